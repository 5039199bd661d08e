# SPDX-License-Identifier: Apache-2.0
"""The parts of tools/gpu_day.sh: runs the asked ones, prints a table each, appends all to DIR/gpu_day.md and DIR/gpu_day.log."""
import argparse
import datetime
import os
import pathlib
import sys
import tempfile

import parts
from machine import Day

PART_SECONDS = 520


def programs(root, given):
    """The folder of the programs: a bundle's, or a build's."""
    found = [given] if given else [root.parent.parent / "bin", root / "build/cuda/bin", root / "build/release/bin"]
    for folder in found:
        if (folder / "fsllm_hpc").exists():
            return folder.resolve()
    sys.exit(f"gpu_day: no fsllm_hpc in {', '.join(map(str, found))}. Build it, or name its folder with --bin.")


def table(columns, rows):
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(row.get(c, "–")).replace("|", "/") for c in columns) + " |" for row in rows]
    return "\n".join(lines)


def main():
    p = argparse.ArgumentParser(prog="gpu_day", description=__doc__)
    p.add_argument("--root", type=pathlib.Path, required=True)
    p.add_argument("--part", action="append", choices=[*parts.PARTS, "all"])
    p.add_argument("--bin", type=pathlib.Path)
    p.add_argument("--out", type=pathlib.Path, default=os.environ.get("OUT") or "gpu_day")
    p.add_argument("--work", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()) / f"fsllm_gpu_day_{os.getuid()}")
    a = p.parse_args()
    wanted = list(parts.PARTS) if not a.part or "all" in a.part else [x for x in parts.PARTS if x in a.part]
    out = pathlib.Path(a.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    a.work.mkdir(parents=True, exist_ok=True)
    with open(out / "gpu_day.log", "a") as log, open(out / "gpu_day.md", "a") as report:

        def say(text):
            print(text, flush=True)
            print(text, file=report, flush=True)

        day = Day(a.root.resolve(), programs(a.root.resolve(), a.bin), a.work.resolve(), log)
        say(f"# GPU day, {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC\n\n{day.describe()}")
        for name in wanted:
            day.start_part(PART_SECONDS)
            title, columns, run = parts.PARTS[name]
            rows = run(day)
            say(f"\n## {name}: {title}\n\n{table(columns, rows)}\n\n{day.part_seconds():.0f} s")
        say(f"\ngpu_day: {day.failed} failed; the programs' words are in {out}/gpu_day.log")
    sys.exit(1 if day.failed else 0)


if __name__ == "__main__":
    main()
