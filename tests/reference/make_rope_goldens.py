# SPDX-License-Identifier: Apache-2.0
"""What transformers computes in float64 where config.json turns a fixture's positions another way.

    python tests/reference/make_rope_goldens.py      # after make_model_goldens.py; needs torch, transformers

Writes tests/reference/rope/rope.json (by case: the fixture whose weights are used, the keys of config.json that
change, greedy continuations of 40 tokens made with a key/value cache) beside the token rows, and rope.safetensors
(CASE.row<i>.logits). Rows are computed alone: LongRoPE looks at the longest row of a batch.
"""
import json
import pathlib
import shutil
import tempfile

import torch
from safetensors.torch import save_file

from make_model_goldens import HERE, greedy, load, logits_of

OUT = HERE / "rope"
GREEDY = 40
LONG = dict(short_factor=[1.0, 1.25, 1.5], long_factor=[1.5, 4.0, 7.5])
EARLY = dict(original_max_position_embeddings=20, long_factor=[2.0, 3.0, 5.0, 6.0])
DEFAULT = dict(rope_type="default", rope_theta=10000.0)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=16)
# case: (fixture, changed keys of config.json; None removes one)
CASES = {
    "partial": ("phi3", dict(rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.75))),
    "linear": ("llama", dict(rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=4.0))),
    "dynamic": ("llama", dict(rope_parameters=dict(rope_type="dynamic", rope_theta=10000.0, factor=4.0))),
    "yarn": ("llama", dict(rope_parameters=YARN)),
    "yarn_all_keys": ("qwen3", dict(rope_parameters=dict(YARN, rope_theta=100.0, beta_fast=2.0, beta_slow=0.25, mscale=0.8,
                                                         mscale_all_dim=0.4, truncate=False))),
    "yarn_before_5": ("llama3", dict(rope_scaling=dict(type="yarn", factor=3.0, attention_factor=1.3,
                                                       original_max_position_embeddings=20))),
    # Phi-4-mini: a part of each head is turned, by other factors beyond the original length.
    "longrope": ("phi3", dict(original_max_position_embeddings=12, rope_parameters=dict(
        rope_type="longrope", rope_theta=10000.0, partial_rotary_factor=0.75, **LONG))),
    # LongRoPE under its names in Phi-3's first files.
    "longrope_su": ("phi3", dict(original_max_position_embeddings=20, rope_parameters=None, rope_theta=500.0,
                                 rope_scaling=dict(EARLY, type="su", short_factor=[1.0, 1.1, 1.2, 1.4]))),
    "longrope_yarn": ("phi3", dict(original_max_position_embeddings=20, rope_parameters=None, rope_theta=500.0,
                                   rope_scaling=dict(EARLY, type="yarn", short_factor=[1.0] * 4, attention_factor=1.5))),
    # What model cards tell to add to a config.json that transformers 5 wrote.
    "yarn_beside": ("qwen3", dict(rope_parameters=DEFAULT, rope_scaling=dict(
        rope_type="yarn", factor=4.0, original_max_position_embeddings=16))),
    "linear_beside": ("llama", dict(rope_parameters=DEFAULT, rope_theta=500.0, rope_scaling=dict(type="linear", factor=3.0))),
    # The original length left out.
    "yarn_short": ("llama", dict(rope_parameters=None, rope_scaling=dict(type="yarn", factor=4.0))),
    "llama3_short": ("llama", dict(rope_parameters=dict(rope_type="llama3", rope_theta=500.0, factor=4.0,
                                                        low_freq_factor=1.0, high_freq_factor=4.0))),
    "longrope_short": ("llama", dict(rope_parameters=dict(rope_type="longrope", rope_theta=10000.0, factor=4.0,
                                                          short_factor=[1.0, 1.2, 1.5, 2.0], long_factor=[2.0] * 4))),
}


def cached_greedy(model, ids):
    prompt = torch.tensor(ids)[None]
    out = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=GREEDY, do_sample=False,
                         use_cache=True, eos_token_id=None, pad_token_id=0)
    return out[0, len(ids):].tolist()


def run(name, rows, tensors):
    fixture, changes = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(HERE / fixture / "model.safetensors", folder)
        config = dict(json.loads((HERE / fixture / "config.json").read_text()), **changes)
        config = {key: value for key, value in config.items() if value is not None}
        (pathlib.Path(folder) / "config.json").write_text(json.dumps(config))
        model = load(pathlib.Path(folder)).eval()
        for i, logits in enumerate(logits_of(model, rows)):
            tensors[f"{name}.row{i}.logits"] = logits
        continued = [cached_greedy(model, row["ids"]) for row in rows]
        anew = [greedy(load(pathlib.Path(folder)).eval(), row["ids"], GREEDY) for row in rows]
    assert continued == anew, (name, continued, anew)
    print(name, len(set(sum(continued, []))), continued[0])
    return dict(fixture=fixture, changes=changes, greedy=continued)


if __name__ == "__main__":
    torch.set_num_threads(1)
    OUT.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(11)
    ROWS = [dict(ids=torch.randint(3, 96, (length,), generator=generator).tolist()) for length in (5, 12, 21)]
    TENSORS = {}
    FACTS = {name: run(name, ROWS, TENSORS) for name in CASES}
    save_file(TENSORS, OUT / "rope.safetensors")
    (OUT / "rope.json").write_text(json.dumps(dict(rows=[row["ids"] for row in ROWS], cases=FACTS)) + "\n")
