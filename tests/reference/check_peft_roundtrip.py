# SPDX-License-Identifier: Apache-2.0
"""Loads what export_for_peft wrote and compares logits.

    check_peft_roundtrip.py REFERENCE_DIR EXPORT_DIR

EXPORT_DIR/NAME/{adapter, merged, logits.safetensors}: peft.PeftModel.from_pretrained(base, adapter) and the merged
model must give the exporter's logits (fp32) within 1e-4. Exit code 1 otherwise.
"""
import json
import os
import pathlib
import sys

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM


def logits_of(model, rows):
    with torch.no_grad():
        return torch.cat([model(torch.tensor(row["ids"])[None]).logits[0] for row in rows])


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")


def check(reference, exported):
    rows = json.loads((reference / "golden.json").read_text())["rows"]
    expected = load_file(exported / "logits.safetensors")["logits"].double()
    base = logits_of(load(reference), rows)
    models = {"adapter": PeftModel.from_pretrained(load(reference), exported / "adapter"),
              "merged": load(exported / "merged")}
    good = True
    for what, model in models.items():
        logits = logits_of(model.double(), rows)
        off, moved = (logits - expected).abs().max().item(), (logits - base).abs().max().item()
        print(f"{reference.name} {what}: largest difference {off:.2e} (the adapter moves logits by {moved:.2f})")
        good = good and off <= 1e-4 and moved > 0.1
    return good


if __name__ == "__main__":
    torch.set_num_threads(1)
    references, exports = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    names = sorted(p.name for p in exports.iterdir())
    sys.exit(0 if names and all([check(references / n, exports / n) for n in names]) else 1)
