# SPDX-License-Identifier: Apache-2.0
"""Preparing Dolly end to end: fsllm_shard against the way of FederatedScope-LLM, one core each.

    python3 tests/bench/shard_bench.py --bin build/release/bin --model MODEL_DIR --data databricks-dolly-15k.jsonl \\
        --python PYTHON [--repeat 3]

FederatedScope-LLM tokenises one text at a time with the slow tokenizer (use_fast=False): prompt and answer together, cut
to tok_len, then the prompt alone for its length. PYTHON needs torch and a transformers that still has slow tokenizers
(4.x); MODEL_DIR has config.json and a SentencePiece tokenizer.model. Runs alternate; medians and their ratio are printed.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

PROMPTS = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{context}\n\n### Response:",
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:")


def slow_way(model, data, tok_len):
    """What a process of FederatedScope-LLM does before its first round, imports included."""
    import torch
    import transformers
    tokenizer = transformers.AutoTokenizer.from_pretrained(model, use_fast=False, model_max_length=tok_len,
                                                           padding_side="right")
    assert not tokenizer.is_fast
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    ids = lambda text: tokenizer(text, return_tensors="pt", padding="longest", max_length=tok_len, truncation=True).input_ids[0]
    rows, tokens = [], 0
    for line in open(data, encoding="utf-8"):
        row = json.loads(line)
        prompt = PROMPTS[0 if row["context"] else 1].format_map(row)
        both, source = ids(prompt + row["response"] + tokenizer.eos_token), ids(prompt)
        labels = both.clone()
        labels[:len(source)] = -100
        rows.append({"input_ids": both, "labels": labels})
        tokens += len(both)
    torch.save(rows, os.devnull)
    return tokens


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bin")
    p.add_argument("--model", required=True)
    p.add_argument("--data", required=True, type=pathlib.Path)
    p.add_argument("--python", default=sys.executable)
    p.add_argument("--repeat", type=int, default=3)
    p.add_argument("--tok-len", type=int, default=512)
    p.add_argument("--ranks", type=int, nargs="*", default=[1])
    p.add_argument("--slow-way", action="store_true", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.slow_way:
        print(slow_way(a.model, a.data, a.tok_len))
        return
    environment = dict(os.environ, OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    times = {name: [] for name in ["slow", *a.ranks]}
    for _ in range(a.repeat):
        with tempfile.TemporaryDirectory() as folder:
            start = time.monotonic()
            subprocess.run([a.python, __file__, "--slow-way", "--model", a.model, "--data", a.data, "--tok-len", str(a.tok_len)],
                           check=True, env=environment, stdout=subprocess.DEVNULL)
            times["slow"].append(time.monotonic() - start)
            for ranks in a.ranks:
                start = time.monotonic()
                command = [f"{a.bin}/fsllm_shard", "--data", "dolly-15k@llm", "--root", a.data.parent, "--model", a.model,
                           "--clients", "8", "--splitter", "meta", "--out", f"{folder}/{ranks}",
                           f"--set=llm.tok_len={a.tok_len}", "--set=data.truncate=answer_right"]
                if ranks > 1:
                    command = ["mpirun", "-np", str(ranks), *command]
                subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
                times[ranks].append(time.monotonic() - start)
    slow = statistics.median(times["slow"])
    print(f"slow tokenizer, one process: {slow:.1f} s")
    for ranks in a.ranks:
        mine = statistics.median(times[ranks])
        print(f"fsllm_shard on {ranks} ranks: {mine:.1f} s, {slow / mine:.1f} x")


if __name__ == "__main__":
    main()
