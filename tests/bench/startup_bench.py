# SPDX-License-Identifier: Apache-2.0
"""Seconds from mpirun to the first training step, beside an empty program of LibTorch and MPI and one read of the model's file.

    python3 tests/bench/startup_bench.py --bin build/release/bin --model MODEL [--np 4] [--repeat 5] [--out DIR] [KEY=VALUE ...]

Shards are made beforehand, the model's converted weights lie in the cache, as in every run but the first. Runs alternate; medians are
printed. The first step is one short row; its own time is not taken off.
"""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time

ROWS = [{"instruction": f"Say {n}.", "input": "", "output": f"{n}!"} for n in range(64)]


def timed(words, **more):
    start = time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True, **more)
    if done.returncode != 0:
        raise SystemExit(f"{words}: {done.stderr[-2000:]}")
    return time.monotonic() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=pathlib.Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--np", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("keys", nargs="*")
    a = parser.parse_intermixed_args()
    out = a.out or pathlib.Path(tempfile.mkdtemp())
    out.mkdir(parents=True, exist_ok=True)
    (out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (out / "run.yaml").write_text(f"""
model: {{type: {pathlib.Path(a.model).resolve()}}}
hpc: {{stage_dir: {out}/cache}}
data: {{root: {out}, type: rows.jsonl, splits: [1.0, 0.0, 0.0], shards: {out}/shards}}
llm: {{tok_len: 64, adapter: {{use: True, args: [{{adapter_method: lora, r: 8}}]}}}}
federate: {{client_num: {a.np}, total_round_num: 1}}
dataloader: {{batch_size: 1}}
train: {{local_update_steps: 1, batch_or_epoch: batch}}
eval: {{freq: 1, split: [val]}}
checkpoint: {{every_rounds: 0}}
outdir: {out}
""")
    env = dict(os.environ, OMP_NUM_THREADS="1")
    mpirun = ["mpirun", "--oversubscribe", "-np", str(a.np)]
    started = f'date +%s.%N > {out}/started.$OMPI_COMM_WORLD_RANK; exec "$@"'  # the program's clock begins with its process
    run = [*mpirun, "sh", "-c", started, "sh", str(a.bin / "fsllm_hpc"), "--cfg", str(out / "run.yaml"), "--overwrite", "expname=run", *a.keys]
    shutil.rmtree(out / "shards", ignore_errors=True)
    timed([str(a.bin / "fsllm_shard"), "--cfg", str(out / "run.yaml"), "--out", str(out / "shards")], env=env)
    timed(run, env=env)
    columns = {"empty program": [], "read of the model": [], "fsllm_hpc, all": [], "to the end of the first step": []}
    for _ in range(a.repeat):
        columns["empty program"].append(timed([*mpirun, str(a.bin / "empty_start")], env=env))
        columns["read of the model"].append(timed(["sh", "-c", f"find {a.model} -type f | xargs cat > /dev/null"]))
        begin = time.time()
        columns["fsllm_hpc, all"].append(timed(run, env=env))
        first = json.loads(open(out / "run" / "metrics.jsonl").readline())
        columns["to the end of the first step"].append(
            float((out / "started.0").read_text()) - begin + first["seconds"]["to_first_step"])
    for name, values in columns.items():
        print(f"{name:32} {statistics.median(values):7.3f} s   {' '.join(f'{v:.3f}' for v in values)}")
    bound = 3 * statistics.median(columns["empty program"]) + statistics.median(columns["read of the model"])
    print(f"{'3 x empty + read':32} {bound:7.3f} s")


if __name__ == "__main__":
    main()
