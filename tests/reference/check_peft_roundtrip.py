# SPDX-License-Identifier: Apache-2.0
"""Loads what export_for_peft wrote and compares logits.

    check_peft_roundtrip.py REFERENCE_DIR EXPORT_DIR

EXPORT_DIR/NAME/{adapter, merged, logits.safetensors}: peft.PeftModel.from_pretrained(base, adapter) and the merged
model must give the exporter's logits (fp32) within 1e-4. EXPORT_DIR/NAME/grown*/{adapter, logits.safetensors}: the same
with three more tokens, of which the second last ends each row; the adapter brings the embeddings along. EXPORT_DIR/NAME/method_*/{adapter, logits.safetensors}: other methods. Exit code 1
otherwise.
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
        # Prompt tuning has logits of its virtual tokens in front.
        return torch.cat([model(torch.tensor(row["ids"])[None]).logits[0, -len(row["ids"]):] for row in rows])


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")


def check_grown(reference, exported, rows):
    expected = load_file(exported / "logits.safetensors")["logits"].double()
    base = load(reference)
    old = base.get_input_embeddings().weight.mean(0)
    size = base.get_input_embeddings().weight.shape[0] + 3
    base.resize_token_embeddings(size, mean_resizing=False)
    rows = [{"ids": row["ids"][:-1] + [size - 2]} for row in rows]
    model = PeftModel.from_pretrained(base, exported / "adapter").double()
    off = (logits_of(model, rows) - expected).abs().max().item()
    mean = (model.get_input_embeddings().weight[-3:] - old).abs().max().item()
    print(f"{reference.name} {exported.name}: largest difference {off:.2e} (new rows: {mean:.1e} from the mean)")
    return off <= 1e-4 and mean <= 1e-6


def check(reference, exported):
    rows = json.loads((reference / "golden.json").read_text())["rows"]
    lora = load_file(exported / "logits.safetensors")["logits"].double()
    base = logits_of(load(reference), rows)
    models = {"adapter": PeftModel.from_pretrained(load(reference), exported / "adapter"),
              "merged": load(exported / "merged")}
    good = all([check_grown(reference, folder, rows) for folder in sorted(exported.glob("grown*"))])
    for folder in sorted(exported.glob("method_*")):
        own = load_file(folder / "logits.safetensors")["logits"].double()
        models[folder.name] = (PeftModel.from_pretrained(load(reference), folder / "adapter"), own)
    for what, model in models.items():
        model, expected = model if isinstance(model, tuple) else (model, lora)
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
