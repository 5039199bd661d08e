# SPDX-License-Identifier: Apache-2.0
"""Makes tests/text/real_tokenizers.json: for real tokenizers and real texts (FSLLM_TEST_DATA), the number of tokens and
the SHA-256 of all ids (little-endian int32, end to end) as the Python packages give them.

    FSLLM_TEST_DATA=DIR python tests/reference/make_tokenizer_hashes.py      (tokenizers 0.23, sentencepiece 0.2)

and, where tools/bootstrap.sh --with-demo-model was run, those of SmolLM2 (transformers 5.23, gguf 0.19).
"""
import gzip
import hashlib
import json
import os
import pathlib
import struct

import sentencepiece
from tokenizers import Tokenizer

DATA = pathlib.Path(os.environ["FSLLM_TEST_DATA"])
OUT = pathlib.Path(__file__).resolve().parent.parent / "text" / "real_tokenizers.json"
JSON = {"gpt2": "tokenizers/gpt2/tokenizer.json", "gpt-neox": "tokenizers/gpt-neox/20B_tokenizer.json",
        "qwen3": "tokenizers/qwen3/tokenizer.json.gz", "mistral-v3": "tokenizers/mistral-v3/tokenizer.json"}
MODEL = {"llama2": "tokenizers/llama2/tokenizer.model", "stories260K": "models/stories260K/tokenizer.model"}

SMOLLM2 = OUT.parent.parent.parent / ".deps/models/SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm2():
    """transformers reads the vocabulary, but not what `tokenizer.ggml.pre = smollm` stands for: digits one by one."""
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(SMOLLM2.parent, gguf_file=SMOLLM2.name).backend_tokenizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                       pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    return tokenizer


def read_text(path):
    return (gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8")).read()


def texts():
    """Every string of the rows, field by field in the order of this list."""
    rows = [json.loads(line) for line in read_text(DATA / "datasets/gsm8k/train.jsonl").splitlines()]
    yield from (row[field] for row in rows for field in ("question", "answer"))
    for path in sorted((DATA / "datasets/dolly15k-fed10").iterdir()):
        yield from (row[field] for row in json.loads(read_text(path)) for field in ("instruction", "context", "response"))


def summary(encode):
    digest, tokens = hashlib.sha256(), 0
    for text in texts():
        ids = encode(text)
        tokens += len(ids)
        digest.update(struct.pack(f"<{len(ids)}i", *ids))
    return {"tokens": tokens, "sha256": digest.hexdigest()}


def main():
    out = {}
    for name, path in JSON.items():
        tokenizer = Tokenizer.from_str(read_text(DATA / path))
        out[name] = {"file": path} | summary(lambda text: tokenizer.encode(text, add_special_tokens=False).ids)
    for name, path in MODEL.items():
        processor = sentencepiece.SentencePieceProcessor(model_file=str(DATA / path))
        out[name] = {"file": path} | summary(processor.encode)
    if SMOLLM2.exists():
        tokenizer = smollm2()
        out["smollm2"] = {"file": SMOLLM2.name} | summary(
            lambda text: tokenizer.encode(text, add_special_tokens=False).ids)
    else:
        out["smollm2"] = json.loads(OUT.read_text())["smollm2"]
    OUT.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
