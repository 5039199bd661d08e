# SPDX-License-Identifier: Apache-2.0
"""Makes tests/reference/gguf/: GGUF files written by the Python package gguf, and what that package reads in them.

    python tests/reference/make_gguf_fixtures.py      (gguf 0.19, numpy, safetensors)

blocks.gguf         a tensor of every type that the program reads, and metadata of every value type
blocks.safetensors  the same tensors as gguf.quants.dequantize gives them (fp32)
blocks.json         the same metadata
../../fuzz/corpus/gguf/   small whole files, and files broken in one place each
NAME.gguf           the tiny models NAME of this folder as llama.cpp's converter writes them (fp32; q and k rows of
                    llama interleaved, Conv1D of gpt2 transposed), so that their logits must be those of the folder
"""
import json
import pathlib

import gguf
import numpy as np
from safetensors.numpy import load_file, save_file

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "gguf"
T = gguf.GGMLQuantizationType
QUANTIZED = [T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q4_K, T.Q5_K, T.Q6_K]
# Bytes of a block at which a half-precision scale begins; all others are random.
SCALES = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q4_K: [0, 2], T.Q5_K: [0, 2],
          T.Q6_K: [208]}


def random_blocks(random, kind, rows, columns):
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (rows, columns // elements, size), dtype=np.uint8)
    for at in SCALES[kind]:
        scale = random.normal(0, 0.02, blocks.shape[:2]).astype(np.float16)
        blocks[:, :, at:at + 2] = scale[:, :, None].view(np.uint8).reshape(*blocks.shape[:2], 2)
    return blocks.reshape(rows, -1)


def make_blocks():
    random = np.random.default_rng(4)
    writer = gguf.GGUFWriter(OUT / "blocks.gguf", "test")
    metadata = {"general.architecture": "test"}

    def add(name, kind, value, sub_type=None):
        writer.add_key_value("test." + name, value, kind, sub_type)
        metadata["test." + name] = value

    v = gguf.GGUFValueType
    for name, kind, value in (("u8", v.UINT8, 255), ("i8", v.INT8, -128), ("u16", v.UINT16, 65535),
                              ("i16", v.INT16, -32768), ("u32", v.UINT32, 2**32 - 1), ("i32", v.INT32, -2**31),
                              ("u64", v.UINT64, 2**64 - 1), ("i64", v.INT64, -2**63), ("f32", v.FLOAT32, 0.15625),
                              ("f64", v.FLOAT64, 0.1), ("yes", v.BOOL, True), ("no", v.BOOL, False),
                              ("text", v.STRING, "naïve 你好"), ("empty", v.STRING, "")):
        add(name, kind, value)
    add("ints", v.ARRAY, [1, -2, 3], v.INT32)
    add("texts", v.ARRAY, ["a", "", "ccc"], v.STRING)
    add("nested", v.ARRAY, [[1, 2], [3]], v.ARRAY)

    expected = {}
    for name, values in (("F32", random.normal(size=(3, 5)).astype(np.float32)),
                         ("F16", random.normal(size=(2, 3, 4)).astype(np.float16))):
        writer.add_tensor(name, values)
        expected[name] = values.astype(np.float32)
    half = gguf.quants.quantize(random.normal(size=(4, 6)).astype(np.float32), T.BF16)
    writer.add_tensor("BF16", half, raw_dtype=T.BF16)
    expected["BF16"] = gguf.quants.dequantize(half, T.BF16)
    for kind in QUANTIZED:
        blocks = random_blocks(random, kind, 3, 512)
        writer.add_tensor(kind.name, blocks, raw_dtype=kind)
        expected[kind.name] = gguf.quants.dequantize(blocks, kind).astype(np.float32)
    finish(writer)
    save_file(expected, OUT / "blocks.safetensors")
    (OUT / "blocks.json").write_text(json.dumps(metadata, indent=1, ensure_ascii=False) + "\n")


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def interleave(w, heads):
    """What convert_hf_to_gguf.py calls permute: rows (i, i + D/2) of a head become neighbours."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


LLAMA = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
         "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
GPT2 = {"ln_1": "attn_norm", "ln_2": "ffn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output",
        "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}
TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
       "transformer.wte": "token_embd", "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm"}


def make_model(name, architecture, file=None, **split):
    config = json.loads((HERE / name / "config.json").read_text())
    weights = load_file(HERE / name / "model.safetensors")
    writer = gguf.GGUFWriter(OUT / f"{file or name}.gguf", architecture, **split)
    gpt2 = architecture == "gpt2"
    writer.add_embedding_length(config["n_embd" if gpt2 else "hidden_size"])
    writer.add_block_count(config["n_layer" if gpt2 else "num_hidden_layers"])
    writer.add_head_count(config["n_head" if gpt2 else "num_attention_heads"])
    writer.add_context_length(config["n_positions" if gpt2 else "max_position_embeddings"])
    if gpt2:
        writer.add_feed_forward_length(4 * config["n_embd"])
        writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    else:
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_head_count_kv(config["num_key_value_heads"])
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_rope_freq_base(config.get("rope_theta") or config["rope_parameters"]["rope_theta"])
        if name == "mistral":
            writer.add_sliding_window(config["sliding_window"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    heads = None if gpt2 else {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for key in sorted(weights):
        module, kind = key.rsplit(".", 1)
        w = weights[key]
        if module in TOP:
            writer.add_tensor(f"{TOP[module]}.{kind}", w)
            continue
        _, _, layer, rest = module.split(".", 3)
        part = (GPT2 if gpt2 else LLAMA)[rest]
        if architecture == "llama" and part in heads:
            w = interleave(w, heads[part])
        if gpt2 and w.ndim == 2:
            w = w.T
        writer.add_tensor(f"blk.{layer}.{part}.{kind}", np.ascontiguousarray(w))
    finish(writer)


def small_model(path, tokenizer, kinds):
    """One block of 32 dimensions with a vocabulary of 8, all that a GGUF model has."""
    random = np.random.default_rng(5)
    writer = gguf.GGUFWriter(path, "llama")
    for add, value in ((writer.add_embedding_length, 32), (writer.add_block_count, 1), (writer.add_head_count, 4),
                       (writer.add_head_count_kv, 2), (writer.add_context_length, 16),
                       (writer.add_feed_forward_length, 32), (writer.add_layer_norm_rms_eps, 1e-5),
                       (writer.add_tokenizer_model, tokenizer), (writer.add_eos_token_id, 2), (writer.add_bos_token_id, 1)):
        add(value)
    tokens = ["<unk>", "<s>", "</s>", "a", "b", "ab", "1", "\u0120" if tokenizer == "gpt2" else "\u2581"]
    writer.add_token_list(tokens)
    writer.add_token_types([2, 3, 3, 1, 1, 1, 1, 1])
    if tokenizer == "gpt2":
        writer.add_tokenizer_pre("smollm")
        writer.add_token_merges(["a b"])
    else:
        writer.add_token_scores([0.0, 0.0, 0.0, -2.0, -3.0, -1.0, -4.0, -5.0])
    shapes = {"token_embd": (8, 32), "blk.0.attn_q": (32, 32), "blk.0.attn_k": (16, 32), "blk.0.attn_v": (16, 32),
              "blk.0.attn_output": (32, 32), "blk.0.ffn_gate": (32, 32), "blk.0.ffn_up": (32, 32),
              "blk.0.ffn_down": (32, 32)}
    for i, (name, shape) in enumerate(shapes.items()):
        kind = kinds[i % len(kinds)]
        writer.add_tensor(name + ".weight", random_blocks(random, kind, *shape), raw_dtype=kind)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(name + ".weight", np.ones(32, np.float32))
    finish(writer)


def make_corpus():
    corpus = HERE.parent / "fuzz/corpus/gguf"
    corpus.mkdir(exist_ok=True)
    small_model(corpus / "gpt2_words.gguf", "gpt2", [T.Q4_0, T.Q5_1, T.Q8_0])
    small_model(corpus / "sentencepiece.gguf", "llama", [T.Q4_1, T.Q5_0])
    blocks = (OUT / "blocks.gguf").read_bytes()
    good = (corpus / "gpt2_words.gguf").read_bytes()
    text = lambda s: len(s).to_bytes(8, "little") + s
    u32, u64 = (lambda n: n.to_bytes(4, "little")), (lambda n: n.to_bytes(8, "little"))
    start = lambda tensors, keys, version=3: b"GGUF" + u32(version) + u64(tensors) + u64(keys)
    tensor = lambda name, shape, kind, at: text(name) + u32(len(shape)) + b"".join(map(u64, shape)) + u32(kind) + u64(at)
    broken = {
        "blocks": blocks, "cut_in_data": good[:-40], "cut_in_tokens": good[:700], "version_1": start(0, 0, 1),
        "big_endian": b"GGUF\0\0\0\3" + bytes(16), "many_keys": start(0, 2**63), "many_tensors": start(2**63, 0),
        "long_key": start(0, 1) + u64(2**63), "long_array": start(0, 1) + text(b"k") + u32(9) + u32(4) + u64(2**61),
        "deep": start(0, 1) + text(b"k") + u32(9) + (u32(9) + u64(1)) * 30, "twice": start(0, 2) + (text(b"k") + u32(7) + b"\1") * 2,
        "alignment": start(0, 1) + text(b"general.alignment") + u32(4) + u32(0),
        "overflow": start(1, 0) + tensor(b"w", (2**32, 2**31, 2**31), 0, 0) + bytes(64),
        "beyond": start(1, 0) + tensor(b"w", (8,), 0, 2**63 - 32) + bytes(64),
        "overlap": start(2, 0) + tensor(b"a", (16,), 0, 0) + tensor(b"b", (16,), 0, 32) + bytes(160),
        "half_block": start(1, 0) + tensor(b"w", (48,), 2, 0) + bytes(64),
        "float_count": good.replace(b"llama.attention.head_count\4", b"llama.attention.head_count\6"),
    }
    for name, content in broken.items():
        (corpus / name).write_bytes(content)


def main():
    OUT.mkdir(exist_ok=True)
    make_blocks()
    for name, architecture in (("llama", "llama"), ("mistral", "llama"), ("qwen2", "qwen2"), ("gpt2", "gpt2")):
        make_model(name, architecture)
    make_model("llama", "llama", "llama_split", split_max_tensors=9)
    make_corpus()


if __name__ == "__main__":
    main()
