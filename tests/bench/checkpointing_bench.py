# SPDX-License-Identifier: Apache-2.0
"""What train.activation_checkpointing saves and costs: memory and processor time of a step beyond a run of tiny rows.

    python3 tests/bench/checkpointing_bench.py --bin build/release/bin --model MODEL [--full] [--targets 64] [--repeat 3]

One client trains on rows of random tokens, of which the last `--targets` are scored, with LoRA on all linears (dropout
0.05) or all parameters. The three values run in turn, one thread each; medians and their ratios to `none` are printed.
"""
import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import tempfile


def write_rows(path, rows, length, targets):
    with open(path, "w") as out:
        for row in range(rows):
            ids = [100 + (37 * i + 11 * row) % 900 for i in range(length)]
            out.write(json.dumps({"input_ids": ids, "labels": [-100] * (length - targets) + ids[length - targets:]}) + "\n")


def run(folder, a, value, rows, length, targets, turn):
    write_rows(folder / "rows.jsonl", rows, length, targets)
    adapter = ("{use: False}" if a.full else
               "{use: True, args: [{r: 8, lora_dropout: 0.05, target_modules: all-linear}]}")
    (folder / "run.yaml").write_text(f"""
outdir: {folder}
model: {{type: {a.model}}}
data: {{root: {folder}, type: rows.jsonl, splits: [1.0, 0.0, 0.0]}}
federate: {{client_num: 1, total_round_num: 1}}
dataloader: {{batch_size: {rows}}}
train: {{local_update_steps: {a.steps}, activation_checkpointing: {value}, optimizer: {{type: AdamW, lr: 0.0001}}}}
llm: {{tok_len: {length}, adapter: {adapter}}}
hpc: {{stage_dir: {folder}/stage}}
checkpoint: {{every_rounds: 0}}
""")
    name = f"{value}_{length}_{turn}"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([f"{a.bin}/fsllm_hpc", "--cfg", folder / "run.yaml", "expname", name], check=True,
                   env=dict(os.environ, OMP_NUM_THREADS="1"), stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    event = json.loads(open(folder / name / "metrics.jsonl").readline())
    subprocess.run(["rm", "-rf", folder / name], check=True)
    return event["peak_rss_bytes"] / 2**20, seconds


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bin", required=True)
    p.add_argument("--model", required=True, type=os.path.abspath)
    p.add_argument("--full", action="store_true")
    p.add_argument("--rows", type=int, default=8)
    p.add_argument("--length", type=int, default=512)
    p.add_argument("--targets", type=int, default=64)
    p.add_argument("--steps", type=int, default=1)
    p.add_argument("--repeat", type=int, default=3)
    a = p.parse_args()
    values = ["none", "block", "selective"]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        run(folder, a, "none", 1, 17, 16, 0)  # converts the weights
        tiny, start = run(folder, a, "none", 1, 17, 16, 1)
        results = {value: [] for value in values}
        for turn in range(a.repeat):
            for value in values:
                results[value].append(run(folder, a, value, a.rows, a.length, a.targets, turn))
    memory = {v: statistics.median(r[0] for r in results[v]) - tiny for v in values}
    seconds = {v: (statistics.median(r[1] for r in results[v]) - start) / a.steps for v in values}
    print(f"{'':12}{'MiB added':>12}{'ratio':>8}{'CPU s a step':>14}{'ratio':>8}   (a run of one tiny row: {tiny:.0f} MiB)")
    for v in values:
        print(f"{v:12}{memory[v]:12.0f}{memory[v] / memory['none']:8.2f}{seconds[v]:14.2f}{seconds[v] / seconds['none']:8.2f}")


if __name__ == "__main__":
    main()
