# SPDX-License-Identifier: Apache-2.0
"""Makes tests/text/real_tokenizers.json: for real tokenizers and real texts (FSLLM_TEST_DATA) with 5,000 random ones, the
number of tokens, the SHA-256 of all ids (little-endian int32, end to end) and that of the texts decoded from them (a zero
byte behind each), as the Python packages give them.

    FSLLM_TEST_DATA=DIR python tests/reference/make_tokenizer_hashes.py
                                                        (tokenizers 0.23, sentencepiece 0.2.1, tiktoken 0.14)

(sentencepiece 0.2.2 began to break ties between equally likely cuts in another way, which shows in 14 of these texts
with the Unigram model "tiny"; the releases from 0.1.97 to 0.2.1 agree)

and, where tools/bootstrap.sh --with-demo-model was run, those of SmolLM2 (transformers 5.23, gguf 0.19).
"""
import gzip
import hashlib
import json
import os
import pathlib
import struct

import sentencepiece
import tiktoken
from tiktoken.load import load_tiktoken_bpe
from tokenizers import Tokenizer

from make_tokenizer_goldens import LLAMA3

DATA = pathlib.Path(os.environ["FSLLM_TEST_DATA"])
OUT = pathlib.Path(__file__).resolve().parent.parent / "text" / "real_tokenizers.json"
JSON = {"gpt2": "tokenizers/gpt2/tokenizer.json", "gpt-neox": "tokenizers/gpt-neox/20B_tokenizer.json",
        "qwen3": "tokenizers/qwen3/tokenizer.json.gz", "mistral-v3": "tokenizers/mistral-v3/tokenizer.json"}
MODEL = {"llama2": "tokenizers/llama2/tokenizer.model", "stories260K": "models/stories260K/tokenizer.model",
         "mistral-v3-model": "tokenizers/mistral-v3/tokenizer.model.v3", "tiny": "tokenizers/tiny/test_model.model"}
TIKTOKEN = {"llama3": "tokenizers/llama3/tokenizer.model"}

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


def random_texts():
    """See tests/support/real_texts.hpp."""
    state, mask = 1, 2**64 - 1
    ranges = [(32, 127)] * 3 + [(9, 33), (0, 0x300), (0x300, 0x10000), (0x10000, 0x20000), (0, 0x110000)]

    def below(count):
        nonlocal state
        z = state = (state + 0x9E3779B97F4A7C15) & mask
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
        return (z ^ z >> 31) % count

    def character():
        first, end = ranges[below(8)]
        c = first + below(end - first)
        return chr(0xFFFD if 0xD800 <= c <= 0xDFFF else c)

    for _ in range(5000):
        yield "".join(character() for _ in range(1 + below(60)))


def texts():
    """Every string of the rows, field by field in the order of this list."""
    sets = DATA / "datasets"
    lines = lambda path: (json.loads(line) for line in read_text(path).splitlines())
    yield from (row[field] for row in lines(sets / "gsm8k/train.jsonl") for field in ("question", "answer"))
    for path in sorted((sets / "dolly15k-fed10").iterdir()):
        yield from (row[field] for row in json.loads(read_text(path)) for field in ("instruction", "context", "response"))
    for part in ("dev", "test"):
        for path in sorted((sets / "mmlu" / part).iterdir()):
            yield from path.read_bytes().decode().split("\n")
    yield from (row[field] for row in lines(sets / "humaneval/HumanEval.jsonl.gz")
                for field in ("prompt", "canonical_solution", "test"))
    yield from (sets / "text/tiny_shakespeare.txt").read_bytes().decode().split("\n\n")
    yield from random_texts()


def summary(encode, decode):
    """Both take a list and give a list."""
    every = list(texts())
    digest, decoded, tokens = hashlib.sha256(), hashlib.sha256(), 0
    for begin in range(0, len(every), 1000):
        rows = encode(every[begin:begin + 1000])
        for ids, text in zip(rows, decode(rows)):
            tokens += len(ids)
            digest.update(struct.pack(f"<{len(ids)}i", *ids))
            decoded.update(text.encode() + b"\0")
    return {"texts": len(every), "tokens": tokens, "sha256": digest.hexdigest(), "decoded_sha256": decoded.hexdigest()}


def of_hugging_face(tokenizer):
    return summary(lambda rows: [e.ids for e in tokenizer.encode_batch(rows, add_special_tokens=False)],
                   lambda rows: tokenizer.decode_batch(rows, skip_special_tokens=False))


def of_tiktoken(path):
    ranks = load_tiktoken_bpe(str(path))
    special = {"<|begin_of_text|>": len(ranks), "<|end_of_text|>": len(ranks) + 1}
    encoding = tiktoken.Encoding(path.name, pat_str=LLAMA3, mergeable_ranks=ranks, special_tokens=special)
    return summary(lambda rows: [encoding.encode(text, allowed_special="all") for text in rows],
                   lambda rows: [encoding.decode(ids) for ids in rows])


def main():
    out = {}
    for name, path in JSON.items():
        out[name] = {"file": path} | of_hugging_face(Tokenizer.from_str(read_text(DATA / path)))
    for name, path in MODEL.items():
        processor = sentencepiece.SentencePieceProcessor(model_file=str(DATA / path))
        out[name] = {"file": path} | summary(processor.encode, processor.decode)
    for name, path in TIKTOKEN.items():
        out[name] = {"file": path} | of_tiktoken(DATA / path)
    if SMOLLM2.exists():
        out["smollm2"] = {"file": SMOLLM2.name} | of_hugging_face(smollm2())
    else:
        out["smollm2"] = json.loads(OUT.read_text())["smollm2"]
    OUT.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
