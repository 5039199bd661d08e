# SPDX-License-Identifier: Apache-2.0
"""Runs every block of ```sh in a page of docs/, one after another in one folder, and fails where one does.

    python3 tests/docs/walk.py PAGE.md --bin build/release/bin --model MODEL_DIR
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile


def blocks(page):
    return re.findall(r"^```sh\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=pathlib.Path)
    parser.add_argument("--bin", required=True, type=pathlib.Path)
    parser.add_argument("--model", required=True, type=pathlib.Path)
    a = parser.parse_args()
    found = blocks(a.page.read_text())
    if not found:
        sys.exit(f"{a.page} has no commands")
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


if __name__ == "__main__":
    main()
