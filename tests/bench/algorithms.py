# SPDX-License-Identifier: Apache-2.0
"""Federated algorithms side by side: held-out loss over seeds, aggregation error and bytes, as a Markdown table.

    python3 tests/bench/algorithms.py --bin build/release/bin --model MODEL_DIR --data gsm8k|dolly --root DIR
        --out DIR [--seeds 5] [--jobs 2] [--only NAME ...] [KEY=VALUE ...]

Every algorithm runs with the same clients, rows, steps and local learning rate for each seed; DIR of --root holds the data
set's files under FS-LLM's names. KEY=VALUE goes to every run. Runs that have ended are not run again. Intervals are 95 %
by Student's t: of the mean over seeds, and of the mean difference to FedAvg of the same seed.
"""
import argparse
import concurrent.futures
import json
import math
import os
import pathlib
import statistics
import subprocess

DATA = {
    "gsm8k": ["data.type=gsm8k@llm", "data.splitter=iid", "data.splits=[0.95,0.05,0.0]"],
    "dolly": ["data.type=dolly-15k@llm", "data.splitter=lda", "data.splitter_args=[{alpha: 0.05}]",
              "data.splits=[0.97,0.03,0.0]"],
}
ALGORITHMS = {
    "fedavg": [],
    "fedprox": ["fedprox.use=True", "fedprox.mu=0.1"],
    "scaffold": ["federate.method=scaffold"],
    "FedAdam": ["fedopt.use=True", "fedopt.optimizer={type: FedAdam, lr: 0.003}"],
    "diloco": ["federate.method=diloco", "federate.keep_optimizer=True"],
    "ffa": ["federate.lora_aggregation=ffa"],
    "rolora": ["federate.lora_aggregation=rolora"],
    "fedsb": ["federate.lora_aggregation=fedsb"],
    "fedsvd": ["federate.lora_aggregation=fedsvd"],
    "flora": ["federate.lora_aggregation=flora"],
    "fedex": ["federate.lora_aggregation=fedex"],
    "flexlora": ["federate.lora_aggregation=flexlora"],
    "fedask": ["federate.lora_aggregation=fedask"],
    "frlora": ["federate.lora_aggregation=frlora"],
    "hetlora": ["federate.lora_aggregation=hetlora"],
    "median": ["aggregator.robust_rule=median"],
    "FedSA (lora_B local)": ["personalization.local_param=[lora_B]"],
    "ditto": ["federate.method=ditto"],
    "pfedme": ["federate.method=pfedme", "personalization.regular_weight=15", "personalization.lr=0.003"],
    "fedem": ["federate.method=fedem", "model.model_num_per_trainer=2"],
    "local": ["federate.method=local"],
}
# Two-sided 95 % points of Student's t by degrees of freedom.
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def call(words, what):
    done = subprocess.run(words, capture_output=True, text=True, env=dict(os.environ, OMP_NUM_THREADS="1"))
    if done.returncode != 0:
        raise SystemExit(f"{what}: {done.stderr[-2000:]}")


def shards(a, seed):
    """One sharding a seed, which all algorithms read."""
    folder = pathlib.Path(a.out) / f"shards_{seed}"
    if (folder / "index.json").exists():
        return
    call([str(pathlib.Path(a.bin) / "fsllm_shard"), "--cfg", str(pathlib.Path(a.out) / "run.yaml"), "--out", str(folder),
          f"seed={seed}", *DATA[a.data], *a.keys], f"shards of seed {seed}")


def run(a, name, seed):
    folder = pathlib.Path(a.out) / "".join(c if c.isalnum() else "_" for c in name) / f"seed_{seed}"
    if not (folder / "summary.json").exists():
        words = ["mpirun", "-np", "2", str(pathlib.Path(a.bin) / "fsllm_hpc"), "--cfg", str(pathlib.Path(a.out) / "run.yaml"), "--overwrite",
                 f"outdir={folder.parent}", f"expname={folder.name}", f"seed={seed}", f"data.shards={pathlib.Path(a.out)}/shards_{seed}",
                 *DATA[a.data], *ALGORITHMS[name], *a.keys]
        call(words, f"{name}, seed {seed}")
    rounds = [e for e in map(json.loads, open(folder / "metrics.jsonl")) if e["event"] == "round"]
    errors = [e["aggregation_error"] for e in rounds if "aggregation_error" in e]
    return {"loss": rounds[-1]["val"]["loss_per_token"],
            "error": statistics.mean(errors) if errors else None,
            "bytes": sum(e["bytes_up"] + e["bytes_down"] for e in rounds)}


def interval(values):
    if len(values) < 2:
        return statistics.mean(values), None
    return statistics.mean(values), T95[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))


def number(mean, half):
    return f"{mean:.4f}" if half is None else f"{mean:.4f} ± {half:.4f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--bin", "--model", "--data", "--root", "--out"):
        parser.add_argument(option, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=list(ALGORITHMS))
    parser.add_argument("keys", nargs="*")
    a = parser.parse_intermixed_args()
    pathlib.Path(a.out).mkdir(parents=True, exist_ok=True)
    (pathlib.Path(a.out) / "run.yaml").write_text(f"""
model: {{type: {a.model}}}
use_gpu: False
data: {{root: {a.root}}}
llm: {{tok_len: 160, adapter: {{use: True, args: [{{adapter_method: lora, r: 8, lora_alpha: 16, target_modules: all-linear}}]}}}}
federate: {{client_num: 8, total_round_num: 10}}
dataloader: {{batch_size: 4}}
train: {{local_update_steps: 5, batch_or_epoch: batch, optimizer: {{type: AdamW, lr: 0.003}}}}
early_stop: {{patience: 0}}
eval: {{freq: 10, split: [val]}}
checkpoint: {{every_rounds: 0}}
""")
    seeds = range(1, a.seeds + 1)
    for seed in seeds:
        shards(a, seed)
    with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
        runs = {(name, seed): pool.submit(run, a, name, seed) for seed in seeds for name in a.only}
        results = {key: future.result() for key, future in runs.items()}
    print("| algorithm | held-out loss | difference to fedavg | aggregation error | MiB up and down |")
    print("|---|---|---|---|---|")
    for name in a.only:
        mine = [results[name, seed] for seed in seeds]
        loss = number(*interval([r["loss"] for r in mine]))
        difference = "–"
        if name != "fedavg" and "fedavg" in a.only:
            difference = number(*interval([r["loss"] - results["fedavg", seed]["loss"] for r, seed in zip(mine, seeds)]))
        errors = [r["error"] for r in mine if r["error"] is not None]
        error = f"{statistics.mean(errors):.2g}" if errors else "–"
        print(f"| {name} | {loss} | {difference} | {error} | {statistics.mean(r['bytes'] for r in mine) / 2**20:.1f} |")


if __name__ == "__main__":
    main()
