# SPDX-License-Identifier: Apache-2.0
"""Federated LoRA with plain transformers + peft in float64: three clients of unequal size, FedAvg by rows.

    python tests/reference/make_federated_goldens.py [CASE...]   # needs torch, transformers, peft, safetensors

Writes tests/reference/federated/rows.jsonl (token rows with a "client" field) and, for each case, NAME.safetensors
(the averaged adapter after the last round under its PEFT names) and NAME.json (settings, mean training loss per
target token of each round, summed over clients as the program reports it). Every case starts from the fixture's
adapter/. Rows are taken in file order, going on from round to round.
"""
import json
import pathlib
import sys

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent
OUT = HERE / "federated"
SIZES = {"north": 7, "south": 4, "west": 2}
ROUNDS = 3


def sgd(params, lr):
    return torch.optim.SGD(params, lr=lr)


def adamw(params, lr):
    return torch.optim.AdamW(params, lr=lr, weight_decay=0.01)


CASES = {
    "llama_sgd": dict(model="llama", optimizer=sgd, lr=0.1, batch=2, steps=3, accumulation=1, clip=0.0),
    "llama_adamw": dict(model="llama", optimizer=adamw, lr=0.01, batch=2, steps=3, accumulation=1, clip=0.0),
    "llama_clip_accumulate": dict(model="llama", optimizer=sgd, lr=0.2, batch=2, steps=2, accumulation=2, clip=0.3),
    "gpt2_adamw": dict(model="gpt2", optimizer=adamw, lr=0.01, batch=3, steps=2, accumulation=1, clip=0.0),
    "qwen2_sgd": dict(model="qwen2", optimizer=sgd, lr=0.05, batch=2, steps=3, accumulation=1, clip=0.0),
    "mistral_sgd": dict(model="mistral", optimizer=sgd, lr=0.1, batch=2, steps=2, accumulation=1, clip=0.0),
    "qwen3_adamw": dict(model="qwen3", optimizer=adamw, lr=0.01, batch=2, steps=2, accumulation=1, clip=0.0),
    "gpt_neo_sgd": dict(model="gpt_neo", optimizer=sgd, lr=0.05, batch=2, steps=2, accumulation=1, clip=0.0),
    "gptj_adamw": dict(model="gptj", optimizer=adamw, lr=0.01, batch=2, steps=2, accumulation=1, clip=0.0),
    "opt_sgd": dict(model="opt", optimizer=sgd, lr=0.1, batch=2, steps=2, accumulation=1, clip=0.0),
    "bloom_adamw": dict(model="bloom", optimizer=adamw, lr=0.01, batch=2, steps=2, accumulation=1, clip=0.0),
    "gpt_neox_sgd": dict(model="gpt_neox", optimizer=sgd, lr=0.1, batch=2, steps=2, accumulation=1, clip=0.0),
    "phi3_adamw": dict(model="phi3", optimizer=adamw, lr=0.01, batch=2, steps=2, accumulation=1, clip=0.0),
    "gemma_sgd": dict(model="gemma", optimizer=sgd, lr=0.1, batch=2, steps=2, accumulation=1, clip=0.0),
    "falcon_sgd": dict(model="falcon", optimizer=sgd, lr=0.1, batch=2, steps=2, accumulation=1, clip=0.0),
    "gemma2_sgd": dict(model="gemma2", optimizer=sgd, lr=0.1, batch=2, steps=2, accumulation=2, clip=0.3),
}


def make_rows():
    generator = torch.Generator().manual_seed(7)
    rows = []
    for client, size in SIZES.items():
        for _ in range(size):
            length = int(torch.randint(4, 20, (1,), generator=generator))
            prompt = int(torch.randint(0, length - 1, (1,), generator=generator))
            ids = torch.randint(3, 96, (length,), generator=generator).tolist()
            rows.append(dict(client=client, input_ids=ids, labels=[-100] * prompt + ids[prompt:]))
    return rows


def step_loss(model, rows):
    """Summed loss of each row and the number of targets."""
    total, count = 0, 0
    for row in rows:
        ids, labels = torch.tensor(row["input_ids"]), torch.tensor(row["labels"])[1:]
        logits = model(ids[None]).logits[0, :-1]
        total = total + torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
        count += int((labels != -100).sum())
    return total, count


def train_client(model, rows, case, round_index):
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = case["optimizer"](params, case["lr"])
    batches, loss_sum, targets = case["steps"] * case["accumulation"], 0.0, 0
    size = min(case["batch"], len(rows))
    for step in range(case["steps"]):
        taken = []
        for part in range(case["accumulation"]):
            at = (round_index * batches + step * case["accumulation"] + part) * size
            taken += [rows[(at + k) % len(rows)] for k in range(size)]
        total, count = step_loss(model, taken)
        optimizer.zero_grad()
        (total / count).backward()
        if case["clip"] > 0:
            torch.nn.utils.clip_grad_norm_(params, case["clip"])
        optimizer.step()
        loss_sum += total.item()
        targets += count
    return loss_sum, targets


def adapter_of(model):
    return {k: v.detach().clone() for k, v in get_peft_model_state_dict(model).items()}


def run(name, case, rows):
    folder = HERE / case["model"]
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
    model = PeftModel.from_pretrained(base, folder / "adapter", is_trainable=True).double()
    clients = [[r for r in rows if r["client"] == c] for c in SIZES]
    server, losses = adapter_of(model), []
    for round_index in range(ROUNDS):
        mean, loss_sum, targets = {k: torch.zeros_like(v) for k, v in server.items()}, 0.0, 0
        for own in clients:
            set_peft_model_state_dict(model, server)
            client_loss, client_targets = train_client(model, own, case, round_index)
            loss_sum, targets = loss_sum + client_loss, targets + client_targets
            for key, value in adapter_of(model).items():
                mean[key] += len(own) / len(rows) * value
        server = mean
        losses.append(loss_sum / targets)
    save_file({k: v.float().contiguous() for k, v in server.items()}, OUT / f"{name}.safetensors")
    settings = {k: v for k, v in case.items() if k != "optimizer"}
    settings["optimizer"] = {"sgd": "SGD", "adamw": "AdamW"}[case["optimizer"].__name__]
    (OUT / f"{name}.json").write_text(json.dumps(dict(settings, rounds=ROUNDS, losses=losses)) + "\n")
    print(name, losses)


if __name__ == "__main__":
    torch.set_num_threads(1)
    OUT.mkdir(exist_ok=True)
    ROWS = make_rows()
    (OUT / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    for case_name in CASES:
        if len(sys.argv) == 1 or case_name in sys.argv[1:]:
            run(case_name, CASES[case_name], ROWS)
