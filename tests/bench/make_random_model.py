# SPDX-License-Identifier: Apache-2.0
"""A model folder of random bf16 weights in the shape of a config.json, to see how large models load and train.

    python3 tests/bench/make_random_model.py --config config.json --out DIR      (LLaMA-like models)
"""
import argparse
import array
import json
import math
import pathlib
import random


def shapes_of(c):
    hidden, inner = c["hidden_size"], c["intermediate_size"]
    size = c.get("head_dim") or hidden // c["num_attention_heads"]
    q, kv = size * c["num_attention_heads"], size * c.get("num_key_value_heads", c["num_attention_heads"])
    yield "model.embed_tokens.weight", (c["vocab_size"], hidden)
    for layer in range(c["num_hidden_layers"]):
        block = f"model.layers.{layer}."
        yield block + "input_layernorm.weight", (hidden,)
        for name, rows in (("q", q), ("k", kv), ("v", kv)):
            yield block + f"self_attn.{name}_proj.weight", (rows, hidden)
        yield block + "self_attn.o_proj.weight", (hidden, q)
        yield block + "post_attention_layernorm.weight", (hidden,)
        for name in ("gate", "up"):
            yield block + f"mlp.{name}_proj.weight", (inner, hidden)
        yield block + "mlp.down_proj.weight", (hidden, inner)
    yield "model.norm.weight", (hidden,)
    if not c.get("tie_word_embeddings"):
        yield "lm_head.weight", (c["vocab_size"], hidden)


def bf16(values):
    return memoryview(array.array("H", (bits >> 16 for bits in array.array("I", array.array("f", values).tobytes()))))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--config", required=True, type=pathlib.Path)
    p.add_argument("--out", required=True, type=pathlib.Path)
    a = p.parse_args()
    config = json.loads(a.config.read_text())
    a.out.mkdir(parents=True, exist_ok=True)
    (a.out / "config.json").write_text(json.dumps(config, indent=1))
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes_of(config):
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    chance = random.Random(0)
    noise = bf16(chance.gauss(0, 0.02) for _ in range(1048573))  # a prime: rows of a matrix differ
    ones = bf16([1.0] * (1 << 16))
    with open(a.out / "model.safetensors", "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes_of(config):
            source, left = (ones if len(shape) == 1 else noise), math.prod(shape)
            while left > 0:
                out.write(source[:left])
                left -= min(left, len(source))
    print(f"{end / 2e9:.2f} billion parameters, {end / 2**30:.1f} GiB in {a.out}")


if __name__ == "__main__":
    main()
