# SPDX-License-Identifier: Apache-2.0
"""Runs every block of ```sh in a page, one after another in one shell's folder, and fails where one does.

    python3 tests/docs/walk.py docs/PAGE.md --bin build/release/bin --model MODEL_DIR
    python3 tests/docs/walk.py README.md --here [--from N] [--gsm8k FILE]

With --here the blocks run in the folder of the page, as somebody's first ones: in one shell, with nothing of this one's
environment but PATH, HOME and TERM. The published file stands for its download.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time


def blocks(page):
    return re.findall(r"^```sh\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


def script_of(a, found):
    script = "set -eo pipefail\n"
    for number, block in enumerate(found, 1):
        if number >= a.first:
            script += f"echo '--- {a.page.name}, block {number} of {len(found)}'\n{block}\n"
    return script


def walk_here(a, found):
    """One shell for all, since `source` of one block counts for the next."""
    folder = a.page.resolve().parent
    if a.gsm8k and not (folder / "data" / "gsm8k_train.jsonl").exists():
        (folder / "data").mkdir(exist_ok=True)
        shutil.copy(a.gsm8k, folder / "data" / "gsm8k_train.jsonl")
    env = {name: os.environ[name] for name in ("PATH", "HOME", "TERM") if name in os.environ}
    started = time.monotonic()
    done = subprocess.run(["bash", "-c", script_of(a, found)], cwd=folder, env=env)
    if done.returncode != 0:
        sys.exit(f"{a.page.name}: exit code {done.returncode}")
    print(f"{a.page.name}: all {len(found)} blocks done in {time.monotonic() - started:.0f} s")


def walk_with_model(a, found):
    with tempfile.TemporaryDirectory() as folder:
        here = pathlib.Path(folder)
        (here / "model").symlink_to(a.model.resolve())
        (here / "data").mkdir()
        rows = ({"instruction": f"Say {n}.", "output": f"{n}, and then {n + 1}."} for n in range(200))
        (here / "data" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        python = here / "python3"  # a link would leave its virtual environment
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        env = dict(os.environ, PATH=f"{a.bin.resolve()}:{here}:{os.environ['PATH']}", HF_HUB_OFFLINE="1")
        for number, block in enumerate(found, 1):
            print(f"--- {a.page.name}, block {number} of {len(found)}\n{block}", flush=True)
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", block], cwd=here, env=env, timeout=280)
            if done.returncode != 0:
                sys.exit(f"{a.page.name}, block {number}: exit code {done.returncode}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=pathlib.Path)
    parser.add_argument("--bin", type=pathlib.Path)
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--here", action="store_true")
    parser.add_argument("--script", action="store_true", help="print the blocks as one script, and run nothing")
    parser.add_argument("--from", dest="first", type=int, default=1, metavar="N", help="with --here: leave out the blocks before this one")
    parser.add_argument("--gsm8k", type=pathlib.Path, help="with --here: the published training file")
    a = parser.parse_args()
    found = blocks(a.page.read_text())
    if not found:
        sys.exit(f"{a.page} has no commands")
    if a.script:
        return print(script_of(a, found))
    if a.here:
        return walk_here(a, found)
    if a.bin is None or a.model is None:
        parser.error("--bin and --model are needed, or --here")
    walk_with_model(a, found)


if __name__ == "__main__":
    main()
