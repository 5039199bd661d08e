# SPDX-License-Identifier: Apache-2.0
"""All benchmarks in one command, the peers beside them, and the page that shows the figures.

    python3 tests/bench/suite.py --bin build/release/bin --model MODEL_DIR --data shard0.json.gz shard1.json.gz ... \\
        --baseline baseline_peft.py --python .deps/venv/bin/python --out DIR [--compile] [--repeat 3] [--only step,load,...] [--quick]
    python3 tests/bench/suite.py --page DIR/results.json docs/PERFORMANCE.md

MODEL_DIR is a Hugging Face folder of a LLaMA-like model, whose shape the random models take; each data file is one client's
Dolly rows; the baseline is bench.py's. DIR/results.json is written after every part, and a part that is measured again takes
the place of the old one. --compile measures the baseline through torch.compile too, once a type (minutes, mostly compiling).
What is left out, or ran on fewer cores than ranks, is named in the results and on the page.
"""
import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import performance_page
from suite_parts import PARTS, PROGRAMS, Failed, call, cores

FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16")
NEEDS_DATA = ("step", "shard")
# What several ranks on a small machine need; values of the caller stay.
ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_mpi_yield_when_idle": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1", "OMPI_MCA_hwloc_base_binding_policy": "none",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe", "PRTE_MCA_hwloc_default_binding_policy": "none",
    "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


class Refused(Exception):
    """What the user has to mend."""


def machine():
    text = subprocess.run(["lscpu"], capture_output=True, text=True, env=dict(os.environ, LC_ALL="C")).stdout
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    flags = facts.get("Flags", "").split()
    kibibytes = next((int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {"model_name": facts.get("Model name", "unknown"), "family": facts.get("CPU family", ""), "model": facts.get("Model", ""),
            "hypervisor": facts.get("Hypervisor vendor", ""), "flags": {flag: flag in flags for flag in FLAGS}, "cores": cores(),
            "memory_gib": round(kibibytes / 2**20, 1)}


def processor_seconds():
    """Of all programs, and of this one with what it has started and waited for."""
    with open("/proc/stat") as file:
        user, nice, system, _, _, irq, soft, *_ = (int(ticks) for ticks in file.readline().split()[1:])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK"), sum(os.times()[:4])


def check(a):
    """Everything that can be told before the first measurement."""
    for option in ("bin", "model", "out"):
        if getattr(a, option) is None:
            raise Refused(f"no --{option} (it is needed to measure). Give --{option}, or --page to make the page.")
    if not (pathlib.Path(a.model) / "config.json").exists():
        raise Refused(f"no config.json in {a.model} (--model). Give a Hugging Face folder.")
    for name in a.only:
        if name not in PARTS:
            raise Refused(f"no part '{name}' (--only). Choose among {', '.join(PARTS)}.")
        for program in PROGRAMS.get(name, ["fsllm_hpc"]):
            if not (pathlib.Path(a.bin) / program).exists():
                raise Refused(f"no {program} in {a.bin} (part '{name}' needs it). Build with -DFSLLM_BENCH=ON, or leave it out by --only.")
        if name in NEEDS_DATA and not a.data:
            raise Refused(f"no --data (part '{name}' needs it). Give a file of rows for each client, or leave it out by --only.")
    for path in [*a.data, *([a.baseline] if a.baseline else [])]:
        if not pathlib.Path(path).exists():
            raise Refused(f"no {path} (--data or --baseline). Give a file that exists.")
    if a.repeat < 1:
        raise Refused("--repeat is below 1 (nothing would be measured). Give 1 or more.")


def measure(a):
    check(a)
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    out = pathlib.Path(a.out)
    out.mkdir(parents=True, exist_ok=True)
    results = {"format": "fsllm_benchmarks", "version": 1, "machine": machine(), "parts": {}}
    if (out / "results.json").exists():
        old = performance_page.read(out / "results.json")
        same = all(old.get("machine", {}).get(key) == value for key, value in results["machine"].items() if key != "memory_gib")
        if not same or old.get("model") != pathlib.Path(a.model).name or old.get("quick") != a.quick:
            raise Refused(f"{out / 'results.json'} is of another machine, model or of --quick (its figures stand beside no others). "
                          "Choose another --out.")
        results["parts"] = old.get("parts", {})
    version = call([pathlib.Path(a.bin) / "fsllm_hpc", "--version"], "fsllm_hpc --version").splitlines()
    results.update(model=pathlib.Path(a.model).name, quick=a.quick, program=version)
    failed = []
    with open(out / "log.txt", "a") as a.log, tempfile.TemporaryDirectory(dir=out, prefix="work_") as work:
        a.work = pathlib.Path(work)
        spoken = os.dup(2)
        os.dup2(a.log.fileno(), 2)  # what the programs say, also those that bench.py starts
        try:
            for name in a.only:
                load_before, start, before = os.getloadavg()[0], time.monotonic(), processor_seconds()
                print(f"{name}: {PARTS[name].__doc__.strip()} Load {load_before:.2f}.", flush=True)
                try:
                    part = PARTS[name](a)
                except (Failed, subprocess.CalledProcessError, KeyError, ValueError, OSError) as error:
                    failed.append(name)
                    os.write(spoken, f"{name} failed: {error!r}. What its programs said stands in {out / 'log.txt'}.\n".encode())
                    continue
                seconds = time.monotonic() - start
                busy, own = (after - since for after, since in zip(processor_seconds(), before, strict=True))
                part["measured"] = {"load_before": load_before, "others_cores": max(busy - own, 0) / seconds, "seconds": seconds, "repeat": a.repeat,
                                    "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")}
                results["parts"][name] = part
                fresh = out / "results.json.part"
                fresh.write_text(json.dumps(results, indent=1) + "\n")
                fresh.replace(out / "results.json")
                print(f"  {seconds:.0f} s", flush=True)
        finally:
            os.dup2(spoken, 2)
            os.close(spoken)
    print(f"{out / 'results.json'}: {', '.join(results['parts']) or 'nothing'}; the page: --page {out / 'results.json'} docs/PERFORMANCE.md")
    return 1 if failed else 0


def main():
    path = lambda text: str(pathlib.Path(text).resolve())
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bin", type=path, help="folder of the programs, built with -DFSLLM_BENCH=ON")
    p.add_argument("--model", type=path)
    p.add_argument("--data", nargs="+", default=[], type=path)
    p.add_argument("--baseline", type=path)
    p.add_argument("--python", default=sys.executable, type=os.path.abspath, help="runs the peers: transformers, peft, tokenizers")
    p.add_argument("--compile", action="store_true", help="the baseline through torch.compile too, once a type")
    p.add_argument("--slow-python", type=os.path.abspath, help="a Python with transformers 4.x, for shard_bench.py")
    p.add_argument("--slow-model", type=path, help="a folder with a SentencePiece tokenizer.model, for shard_bench.py")
    p.add_argument("--only", default=list(PARTS), type=lambda text: text.split(","), help=f"parts: {','.join(PARTS)}")
    p.add_argument("--out", type=path)
    p.add_argument("--repeat", type=int, default=3)
    p.add_argument("--quick", action="store_true", help="tiny sizes: shows that all works, measures nothing")
    p.add_argument("--page", nargs=2, metavar=("RESULTS.json", "PAGE.md"), type=pathlib.Path, help="make the page and its plots")
    a = p.parse_args()
    try:
        if a.page:
            performance_page.write(*a.page)
            return 0
        return measure(a)
    except (Refused, performance_page.Unreadable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
