# SPDX-License-Identifier: Apache-2.0
"""Runs the models that dropout_logits wrote in transformers, in float64 and in training, with its masks: every call of
dropout takes the next one. Fails where logits differ, or where there are more masks than calls or fewer.

    python tests/reference/check_dropout.py OUT_DIR
"""
import os
import sys
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from make_model_goldens import HERE
import json

BOUND = 2e-5  # stored logits of fp64 models are their fp32 values


def take_from(masks):
    def dropout(x, p=0.5, training=True, inplace=False):
        if not training or p == 0:
            return x
        return x * masks.pop(0).view(x.shape) / (1 - p)

    return dropout


torch.set_num_threads(1)
failures = 0
for folder in sorted(Path(sys.argv[1]).iterdir()):
    row = json.loads((HERE / folder.name / "golden.json").read_text())["rows"][0]["ids"]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").train()
    tensors = load_file(folder / "logits.safetensors")
    masks = [tensors[name] for name in sorted(tensors) if name.startswith("mask.")]
    count = len(masks)
    torch.nn.functional.dropout = take_from(masks)
    with torch.no_grad():
        theirs = model(torch.tensor([row]), use_cache=False).logits[0]
    ours = tensors["logits"].double()
    error = (ours - theirs).abs().max().item()
    with torch.no_grad():
        plain = model.eval()(torch.tensor([row]), use_cache=False).logits[0]
    effect = (plain - theirs).abs().max().item()
    good = error <= BOUND and effect > 100 * BOUND and count > 0 and not masks
    failures += not good
    print(f"{folder.name}: {count} masks, largest error {error:.1e}, dropout changes {effect:.2f}", "" if good else "FAILED")
sys.exit(failures > 0)
