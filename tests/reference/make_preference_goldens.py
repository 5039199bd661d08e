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
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent
OUT = HERE / "preference"
SIZES = {"north": 7, "south": 4, "west": 2}
ROUNDS = 3

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


def train_client(model, pairs, case, round_index):
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = (torch.optim.SGD(params, lr=case["lr"]) if case["optimizer"] == "SGD" else
                 torch.optim.AdamW(params, lr=case["lr"], weight_decay=0.01))
    batches, loss_sum, count = case["steps"] * case["accumulation"], 0.0, 0
    size = min(case["batch"], len(pairs))
    for step in range(case["steps"]):
        taken = []
        for part in range(case["accumulation"]):
            at = (round_index * batches + step * case["accumulation"] + part) * size
            taken += [pairs[(at + k) % len(pairs)] for k in range(size)]
        total = sum(-torch.nn.functional.logsigmoid(margin(model, pair, case)) for pair in taken)
        optimizer.zero_grad()
        (total / len(taken)).backward()
        if case["clip"] > 0:
            torch.nn.utils.clip_grad_norm_(params, case["clip"])
        optimizer.step()
        loss_sum += total.item()
        count += len(taken)
    return loss_sum, count


def adapter_of(model):
    return {k: v.detach().clone() for k, v in get_peft_model_state_dict(model).items()}


def judge(model, pairs, case):
    with torch.no_grad():
        margins = torch.stack([margin(model, pair, case) for pair in pairs])
    return dict(loss_per_pair=-torch.nn.functional.logsigmoid(margins).mean().item(),
                reward_accuracy=(margins > 0).double().mean().item(), reward_margin=margins.mean().item())


def run(name, case, pairs):
    folder = HERE / case["model"]
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
    model = PeftModel.from_pretrained(base, folder / "adapter", is_trainable=True).double()
    clients = [[p for p in pairs if p["client"] == c] for c in SIZES]
    server, losses, before = adapter_of(model), [], judge(model, pairs, case)
    for round_index in range(ROUNDS):
        mean, loss_sum, count = {k: torch.zeros_like(v) for k, v in server.items()}, 0.0, 0
        for own in clients:
            set_peft_model_state_dict(model, server)
            client_loss, client_count = train_client(model, own, case, round_index)
            loss_sum, count = loss_sum + client_loss, count + client_count
            for key, value in adapter_of(model).items():
                mean[key] += len(own) / len(pairs) * value
        server = mean
        losses.append(loss_sum / count)
    set_peft_model_state_dict(model, server)
    save_file({k: v.float().contiguous() for k, v in server.items()}, OUT / f"{name}.safetensors")
    (OUT / f"{name}.json").write_text(
        json.dumps(dict(case, rounds=ROUNDS, losses=losses, before=before, after=judge(model, pairs, case))) + "\n")
    print(name, losses, before, judge(model, pairs, case))


if __name__ == "__main__":
    torch.set_num_threads(1)
    OUT.mkdir(exist_ok=True)
    PAIRS = make_pairs()
    (OUT / "pairs.jsonl").write_text("".join(json.dumps(p) + "\n" for p in PAIRS))
    for case_name in CASES:
        if len(sys.argv) == 1 or case_name in sys.argv[1:]:
            run(case_name, CASES[case_name], PAIRS)
