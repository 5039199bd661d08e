# SPDX-License-Identifier: Apache-2.0
"""Federated DPO and its pairwise reward loss with plain transformers + peft in float64: three clients of unequal
size, FedAvg by pairs; the reference is the same model with peft's adapters disabled.

    python tests/reference/make_preference_goldens.py [CASE...]   # needs torch, transformers, peft, safetensors

Writes tests/reference/preference/pairs.jsonl (token pairs with a "client" field) and, for each case, NAME.safetensors
(the averaged adapter after the last round under its PEFT names) and NAME.json: settings, mean training loss per pair
of each round, and loss, accuracy and margin of all clients' pairs before the first round and after the last. Every
case starts from the fixture's adapter/, so the first losses are not log 2. Pairs are taken in file order, going on
from round to round.
"""
import json
import pathlib
import sys

import torch
from safetensors.torch import save_file

from federated_loop import ROUNDS, SIZES, load, train

OUT = pathlib.Path(__file__).parent / "preference"

CASES = {
    "llama_dpo_sgd": dict(model="llama", loss="dpo", beta=0.1, optimizer="SGD", lr=0.1, batch=2, steps=3,
                          accumulation=1, clip=0.0),
    "llama_dpo_adamw": dict(model="llama", loss="dpo", beta=0.5, optimizer="AdamW", lr=0.01, batch=2, steps=2,
                            accumulation=2, clip=0.3),
    "gpt2_reward_sgd": dict(model="gpt2", loss="reward", beta=2.0, optimizer="SGD", lr=0.1, batch=3, steps=2,
                            accumulation=1, clip=0.0),
    "qwen2_reward_adamw": dict(model="qwen2", loss="reward", beta=1.0, optimizer="AdamW", lr=0.01, batch=2, steps=2,
                               accumulation=1, clip=0.0),
}


def make_pairs():
    generator = torch.Generator().manual_seed(11)
    draw = lambda low, high: int(torch.randint(low, high, (1,), generator=generator))
    tokens = lambda count: torch.randint(3, 96, (count,), generator=generator).tolist()
    return [dict(client=client, prompt_input_ids=tokens(draw(1, 9)), chosen_input_ids=tokens(draw(1, 12)),
                 rejected_input_ids=tokens(draw(1, 12))) for client, size in SIZES.items() for _ in range(size)]


def log_probability(model, prompt, answer):
    ids = torch.tensor(prompt + answer)
    logits = model(ids[None]).logits[0, len(prompt) - 1:-1]
    return torch.log_softmax(logits, -1).gather(1, ids[len(prompt):, None]).sum()


def margin(model, pair, case):
    """r(x, chosen) - r(x, rejected)."""
    rewards = []
    for answer in (pair["chosen_input_ids"], pair["rejected_input_ids"]):
        with torch.no_grad(), model.disable_adapter():
            reference = log_probability(model, pair["prompt_input_ids"], answer)
        ratio = log_probability(model, pair["prompt_input_ids"], answer) - reference
        rewards.append(case["beta"] * ratio / (len(answer) if case["loss"] == "reward" else 1))
    return rewards[0] - rewards[1]


def step_loss(model, pairs, case):
    return sum(-torch.nn.functional.logsigmoid(margin(model, pair, case)) for pair in pairs), len(pairs)


def judge(model, pairs, case):
    with torch.no_grad():
        margins = torch.stack([margin(model, pair, case) for pair in pairs])
    return dict(loss_per_pair=-torch.nn.functional.logsigmoid(margins).mean().item(),
                reward_accuracy=(margins > 0).double().mean().item(), reward_margin=margins.mean().item())


def run(name, case, pairs):
    model = load(case["model"])
    before = judge(model, pairs, case)
    server, losses = train(model, pairs, case, step_loss)
    after = judge(model, pairs, case)
    save_file({k: v.float().contiguous() for k, v in server.items()}, OUT / f"{name}.safetensors")
    (OUT / f"{name}.json").write_text(json.dumps(dict(case, rounds=ROUNDS, losses=losses, before=before, after=after)) + "\n")
    print(name, losses, before, after)


if __name__ == "__main__":
    torch.set_num_threads(1)
    OUT.mkdir(exist_ok=True)
    PAIRS = make_pairs()
    (OUT / "pairs.jsonl").write_text("".join(json.dumps(p) + "\n" for p in PAIRS))
    for case_name in CASES:
        if len(sys.argv) == 1 or case_name in sys.argv[1:]:
            run(case_name, CASES[case_name], PAIRS)
