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
from safetensors.torch import save_file

from federated_loop import ROUNDS, SIZES, load, train

OUT = pathlib.Path(__file__).parent / "federated"

CASES = {
    "llama_sgd": dict(model="llama", optimizer="SGD", lr=0.1, batch=2, steps=3, accumulation=1, clip=0.0),
    "llama_adamw": dict(model="llama", optimizer="AdamW", lr=0.01, batch=2, steps=3, accumulation=1, clip=0.0),
    "llama_clip_accumulate": dict(model="llama", optimizer="SGD", lr=0.2, batch=2, steps=2, accumulation=2, clip=0.3),
    "gpt2_adamw": dict(model="gpt2", optimizer="AdamW", lr=0.01, batch=3, steps=2, accumulation=1, clip=0.0),
    "qwen2_sgd": dict(model="qwen2", optimizer="SGD", lr=0.05, batch=2, steps=3, accumulation=1, clip=0.0),
    "mistral_sgd": dict(model="mistral", optimizer="SGD", lr=0.1, batch=2, steps=2, accumulation=1, clip=0.0),
    "qwen3_adamw": dict(model="qwen3", optimizer="AdamW", lr=0.01, batch=2, steps=2, accumulation=1, clip=0.0),
    "gpt_neo_sgd": dict(model="gpt_neo", optimizer="SGD", lr=0.05, batch=2, steps=2, accumulation=1, clip=0.0),
    "gptj_adamw": dict(model="gptj", optimizer="AdamW", lr=0.01, batch=2, steps=2, accumulation=1, clip=0.0),
    "opt_sgd": dict(model="opt", optimizer="SGD", lr=0.1, batch=2, steps=2, accumulation=1, clip=0.0),
    "bloom_adamw": dict(model="bloom", optimizer="AdamW", lr=0.01, batch=2, steps=2, accumulation=1, clip=0.0),
    "gpt_neox_sgd": dict(model="gpt_neox", optimizer="SGD", lr=0.1, batch=2, steps=2, accumulation=1, clip=0.0),
    "phi3_adamw": dict(model="phi3", optimizer="AdamW", lr=0.01, batch=2, steps=2, accumulation=1, clip=0.0),
    "gemma_sgd": dict(model="gemma", optimizer="SGD", lr=0.1, batch=2, steps=2, accumulation=1, clip=0.0),
    "falcon_sgd": dict(model="falcon", optimizer="SGD", lr=0.1, batch=2, steps=2, accumulation=1, clip=0.0),
    "gemma2_sgd": dict(model="gemma2", optimizer="SGD", lr=0.1, batch=2, steps=2, accumulation=2, clip=0.3),
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


def step_loss(model, rows, _case):
    """Summed loss of each row and the number of targets."""
    total, count = 0, 0
    for row in rows:
        ids, labels = torch.tensor(row["input_ids"]), torch.tensor(row["labels"])[1:]
        logits = model(ids[None]).logits[0, :-1]
        total = total + torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
        count += int((labels != -100).sum())
    return total, count


def run(name, case, rows):
    server, losses = train(load(case["model"]), rows, case, step_loss)
    save_file({k: v.float().contiguous() for k, v in server.items()}, OUT / f"{name}.safetensors")
    (OUT / f"{name}.json").write_text(json.dumps(dict(case, rounds=ROUNDS, losses=losses)) + "\n")
    print(name, losses)


if __name__ == "__main__":
    torch.set_num_threads(1)
    OUT.mkdir(exist_ok=True)
    ROWS = make_rows()
    (OUT / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    for case_name in CASES:
        if len(sys.argv) == 1 or case_name in sys.argv[1:]:
            run(case_name, CASES[case_name], ROWS)
