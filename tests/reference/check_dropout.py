# SPDX-License-Identifier: Apache-2.0
"""Runs the models that dropout_logits wrote in transformers, in float64 and in training, with the same masks: every
call of dropout draws its mask from one generator, in the order of the calls. Fails where logits differ.

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

SEED, BOUND = 17, 2e-5  # stored logits of fp64 models are their fp32 values


def draw_from(generator, calls):
    def dropout(x, p=0.5, training=True, inplace=False):
        if not training or p == 0:
            return x
        calls.append(p)
        mask = torch.empty(x.shape, dtype=torch.bool).bernoulli_(1 - p, generator=generator)
        return x * mask / (1 - p)

    return dropout


torch.set_num_threads(1)
failures = 0
for folder in sorted(Path(sys.argv[1]).iterdir()):
    row = json.loads((HERE / folder.name / "golden.json").read_text())["rows"][0]["ids"]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").train()
    calls = []
    torch.nn.functional.dropout = draw_from(torch.Generator().manual_seed(SEED), calls)
    with torch.no_grad():
        theirs = model(torch.tensor([row]), use_cache=False).logits[0]
    ours = load_file(folder / "logits.safetensors")["logits"].double()
    error = (ours - theirs).abs().max().item()
    with torch.no_grad():
        plain = model.eval()(torch.tensor([row]), use_cache=False).logits[0]
    effect = (plain - theirs).abs().max().item()
    good = error <= BOUND and effect > 100 * BOUND and calls
    failures += not good
    print(f"{folder.name}: {len(calls)} masks, largest error {error:.1e}, dropout changes {effect:.2f}", "" if good else "FAILED")
sys.exit(failures > 0)
