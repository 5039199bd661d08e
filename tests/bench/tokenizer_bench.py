# SPDX-License-Identifier: Apache-2.0
"""Tokenising Dolly on one thread: our tokenizers beside Hugging Face's `tokenizers` (Rust).

    python3 tests/bench/tokenizer_bench.py --bin build/release/bin --tokenizer tokenizer.json... --data DOLLY.json.gz... \\
        --python .deps/venv/bin/python [--repeat 5]

Each side encodes every field of every row once, in a process of its own; runs alternate; medians of MB/s (UTF-8) and their
ratio are printed. Theirs is timed in the fastest of its ways: encode_batch_fast, which gives ids without offsets.
"""
import argparse
import gzip
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time


def read(path):
    opener = gzip.open if str(path).endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as f:
        return f.read()


def texts_of(path):
    return [row[field] for row in json.loads(read(path)) for field in ("instruction", "context", "response") if row[field]]


def theirs(tokenizer_file, texts_file):
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(tokenizer_file)
    texts = [json.loads(line)["text"] for line in open(texts_file, encoding="utf-8")]
    start = time.perf_counter()
    tokens = sum(len(e.ids) for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False))
    seconds = time.perf_counter() - start
    print(json.dumps({"tokens": tokens, "mb_per_second": sum(len(t.encode()) for t in texts) / seconds / 1e6}))


def main():
    if sys.argv[1:2] == ["--theirs"]:
        return theirs(*sys.argv[2:])
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bin", required=True)
    p.add_argument("--tokenizer", nargs="+", required=True, type=pathlib.Path)
    p.add_argument("--data", nargs="+", required=True, type=pathlib.Path)
    p.add_argument("--python", default=sys.executable)
    p.add_argument("--repeat", type=int, default=5)
    a = p.parse_args()
    environment = dict(os.environ, TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1")
    measure = lambda command: json.loads(subprocess.check_output([str(x) for x in command], env=environment))
    with tempfile.TemporaryDirectory() as name:
        texts = pathlib.Path(name, "texts.jsonl")
        with open(texts, "w") as out:
            for path in a.data:
                for text in texts_of(path):
                    out.write(json.dumps({"text": text}) + "\n")
        print(f"{'':28}{'fsllm_hpc':>12}{'tokenizers':>12}{'ratio':>8}   (MB/s)")
        for k, source in enumerate(a.tokenizer):
            model = pathlib.Path(name, str(k))
            model.mkdir()
            (model / "tokenizer.json").write_text(read(source))
            mine, other = [], []
            for _ in range(a.repeat):
                mine.append(measure([f"{a.bin}/tokenizer_bench", model, texts]))
                other.append(measure([a.python, __file__, "--theirs", model / "tokenizer.json", texts]))
            assert mine[0]["tokens"] == other[0]["tokens"], f"{source}: the two gave different tokens"
            x, y = (statistics.median(r["mb_per_second"] for r in runs) for runs in (mine, other))
            print(f"{source.parent.name:28}{x:12.1f}{y:12.1f}{x / y:8.2f}")


if __name__ == "__main__":
    main()
