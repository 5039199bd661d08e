# SPDX-License-Identifier: Apache-2.0
"""Models of random weights in known shapes, rows of random tokens, and the operations that a step of them takes."""
import json
import random
import subprocess
import sys

LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-5, "dtype": "bfloat16",
         "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 8192, "rope_theta": 500000.0, "attention_bias": False,
         "mlp_bias": False}
SHAPES = {
    # Llama-3.2-1B and Llama-3.1-8B.
    "1B": dict(LLAMA, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8,
               head_dim=64, vocab_size=128256, tie_word_embeddings=True),
    "8B": dict(LLAMA, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
               head_dim=128, vocab_size=128256, tie_word_embeddings=False),
    "tiny": dict(LLAMA, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                 head_dim=16, vocab_size=256, tie_word_embeddings=False),
}
# Quantiles of databricks-dolly-15k's rows under the Alpaca template and Llama 3's tokenizer, answers included.
DOLLY = [37, 40, 42, 45, 47, 49, 51, 53, 54, 56, 58, 60, 63, 65, 68, 71, 75, 77, 80, 83, 86, 90, 92, 95, 98, 101, 104, 108, 112, 116,
         120, 124, 129, 133, 137, 143, 148, 154, 161, 168, 175, 182, 190, 197, 205, 213, 222, 230, 240, 252, 265, 279, 293, 311, 327,
         347, 370, 400, 433, 482, 542, 623, 775, 1265]


def model(day, shape):
    """The folder of a model of that shape, made once."""
    folder = day.work / f"model_{shape}"
    if not (folder / "ready").exists():
        (day.work / f"{shape}.json").write_text(json.dumps(SHAPES[shape]))
        subprocess.run([sys.executable, day.root / "tests/bench/make_random_model.py", "--config", day.work / f"{shape}.json", "--out", folder],
                       check=True, stdout=day.log)
        (folder / "ready").touch()
    return folder


def lengths(rows, seq):
    """Lengths of `rows` rows: all of one length, or Dolly's in an order that chance gave once."""
    if seq != "dolly":
        return [seq] * rows
    return random.Random(0).sample(DOLLY * (rows // len(DOLLY) + 1), rows)


def write_rows(day, shape, rows, seq):
    """A folder with rows.jsonl: random tokens, each a target."""
    folder = day.work / f"rows_{shape}_{seq}_{rows}"
    if not folder.exists():
        chance = random.Random(1)
        folder.mkdir(parents=True)
        with open(folder / "rows.jsonl", "w") as out:
            for length in lengths(rows, seq):
                ids = chance.choices(range(3, SHAPES[shape]["vocab_size"]), k=length)
                out.write(json.dumps({"input_ids": ids, "labels": ids}) + "\n")
    return folder


def matrix_parameters(c):
    """Parameters that a token is multiplied with: the blocks' and the head's."""
    h, size = c["hidden_size"], c["head_dim"]
    block = 2 * h * size * (c["num_attention_heads"] + c["num_key_value_heads"]) + 3 * h * c["intermediate_size"]
    return c["num_hidden_layers"] * block + h * c["vocab_size"]


def lora_parameters(c, rank):
    """LoRA of all linear layers of the blocks."""
    h, size, inner = c["hidden_size"], c["head_dim"], c["intermediate_size"]
    q, kv = size * c["num_attention_heads"], size * c["num_key_value_heads"]
    return c["num_hidden_layers"] * rank * (2 * (h + q) + 2 * (h + kv) + 3 * (h + inner))


def flops_a_token(shape, method, row_lengths, rank=8):
    """Model FLOPs of a training step for each token (PaLM, Chowdhery et al. 2022, appendix B: 6N + 12·L·H·Q·T, attention counted
    without its mask). Under LoRA frozen weights have no gradients of their own: 4N, and 6 for each parameter of the adapter."""
    c = SHAPES[shape]
    n = matrix_parameters(c)
    context = sum(x * x for x in row_lengths) / sum(row_lengths)  # mean over tokens of their row's length
    attention = 12 * c["num_hidden_layers"] * c["num_attention_heads"] * c["head_dim"] * context
    return attention + (6 * n if method == "full" else 4 * n + 6 * lora_parameters(c, rank))
