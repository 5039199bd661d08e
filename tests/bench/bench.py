# SPDX-License-Identifier: Apache-2.0
"""Speed and memory side by side: fsllm_hpc, the same federated loop in transformers + peft, and bare GEMMs.

    python3 tests/bench/bench.py --bin build/release/bin --model MODEL_DIR --data shard0.json.gz shard1.json.gz ... \\
        --baseline baseline_peft.py --python .deps/venv/bin/python [--repeat 3] [--dtype bf16] [--compile]

MODEL_DIR is a Hugging Face folder; each data file is one client's Dolly rows; the baseline is a script that takes
--model --data --threads --rounds --steps --batch --max-len (and --dtype bfloat16, --compile) and prints one JSON line with real_tok_s, round_tok_s_real_padded, peak_rss_mib,
first_step_done_s, tokens_real. Runs alternate, one thread each; the medians and their ratios are printed.
"""
import argparse
import gzip
import json
import os
import pathlib
import statistics
import subprocess
import tempfile


def rows_of(path):
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as f:
        text = f.read()
    rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(x) for x in text.splitlines() if x]
    return [{"instruction": r["instruction"], "input": r.get("input", r.get("context")) or "",
             "output": r.get("output", r.get("response"))} for r in rows]


def write_run(folder, a):
    with open(folder / "rows.jsonl", "w") as out:
        for k, path in enumerate(a.data):
            for row in rows_of(path):
                out.write(json.dumps(dict(row, client=f"c{k:03d}")) + "\n")
    (folder / "run.yaml").write_text(f"""
outdir: {folder}
model: {{type: {a.model}}}
data: {{root: {folder}, type: rows.jsonl, splitter: natural, splitter_args: [{{field: client}}], splits: [1.0, 0, 0], truncate: answer_right}}
federate: {{client_num: {len(a.data)}, total_round_num: {a.rounds}}}
dataloader: {{batch_size: {a.batch}, shuffle: False, packing: {a.packing}}}
train: {{local_update_steps: {a.steps}, storage_dtype: {a.dtype}, compute_dtype: {a.dtype}, activation_checkpointing: {a.checkpointing}, optimizer: {{type: AdamW, lr: 0.0003, weight_decay: 0.0}}}}
llm: {{tok_len: {a.max_len}, adapter: {{use: True, args: [{{r: 8, lora_alpha: 16, target_modules: [q_proj, v_proj]}}]}}}}
checkpoint: {{every_rounds: 0}}
""")


def ours(folder, a, turn):
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    name = f"run{turn}"
    subprocess.run([f"{a.bin}/fsllm_hpc", "--cfg", folder / "run.yaml", "expname", name], check=True, env=environment,
                   stdout=subprocess.DEVNULL)
    events = [json.loads(x) for x in open(folder / name / "metrics.jsonl")]
    rounds = [e for e in events if e["event"] == "round"]
    tokens = sum(e["train"]["tokens"] for e in rounds)
    return {"real_tok_s": tokens / sum(e["seconds"]["train"] + e["seconds"]["aggregate"] for e in rounds),
            "peak_rss_mib": max(e["peak_rss_bytes"] for e in rounds) / 2**20,
            "first_step_done_s": rounds[0]["seconds"]["to_first_step"], "tokens_real": tokens,
            "targets": sum(e["train"]["targets"] for e in rounds)}


def first_step_from_shards(folder, a, turn):
    """Seconds to the end of the first step where fsllm_shard has prepared the data, once for all runs."""
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    if not (folder / "shards").exists():
        subprocess.run([f"{a.bin}/fsllm_shard", "--cfg", folder / "run.yaml", "--out", folder / "shards"], check=True,
                       env=environment, stdout=subprocess.DEVNULL)
    name = f"ready{turn}"
    subprocess.run([f"{a.bin}/fsllm_hpc", "--cfg", folder / "run.yaml", "expname", name, "data.shards", folder / "shards",
                    "federate.total_round_num", "1", "train.local_update_steps", "1"], check=True, env=environment,
                   stdout=subprocess.DEVNULL)
    return json.loads(open(folder / name / "metrics.jsonl").readline())["seconds"]["to_first_step"]


def theirs(a):
    command = [a.python, a.baseline, "--model", a.model, "--data", *a.data, "--threads", 1, "--rounds", a.rounds,
               "--steps", a.steps, "--batch", a.batch, "--max-len", a.max_len]
    command += ["--dtype", "bfloat16"] if a.dtype == "bf16" else []
    command += ["--compile"] if a.compile else []
    out = subprocess.run([str(x) for x in command], check=True, capture_output=True, text=True,
                         cwd=pathlib.Path(a.baseline).resolve().parent).stdout
    got = json.loads(out.strip().splitlines()[-1])
    if a.compile:  # shapes that are new are compiled again, in the first rounds above all
        got["real_tok_s"] = max(real for real, _ in got["round_tok_s_real_padded"][1:] or got["round_tok_s_real_padded"])
    return got


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bin", required=True)
    p.add_argument("--model", required=True, type=lambda x: str(pathlib.Path(x).resolve()))
    p.add_argument("--data", nargs="+", required=True, type=lambda x: str(pathlib.Path(x).resolve()))
    p.add_argument("--baseline", required=True, type=lambda x: str(pathlib.Path(x).resolve()))
    p.add_argument("--python", default="python3", type=os.path.abspath)
    p.add_argument("--repeat", type=int, default=3)
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--steps", type=int, default=5)
    p.add_argument("--batch", type=int, default=4)
    p.add_argument("--max-len", type=int, default=128)
    p.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="of weights and activations, in all three")
    p.add_argument("--compile", action="store_true", help="the baseline through torch.compile (its fastest round after the first counts)")
    p.add_argument("--checkpointing", choices=("none", "block", "selective"), default="none", help="fsllm_hpc's")
    p.add_argument("--packing", choices=("pack", "none", "shared_prefix"), default="pack", help="fsllm_hpc's")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_run(folder, a)
        for path in pathlib.Path(a.model).iterdir():
            path.read_bytes()  # neither program pays for a cold page cache
        mine, other, bound = [], [], []
        for turn in range(a.repeat):
            mine.append(ours(folder, a, turn))
            mine[-1]["from_shards_s"] = first_step_from_shards(folder, a, turn)
            other.append(theirs(a))
            steps = a.rounds * a.steps * len(a.data)
            gemm = [f"{a.bin}/gemm_bench", a.model, mine[0]["tokens_real"] // steps, mine[0]["targets"] // steps, 5]
            gemm += ["bf16"] if a.dtype == "bf16" else []
            bound.append(json.loads(subprocess.check_output([str(x) for x in gemm])))
    assert mine[0]["tokens_real"] == other[0]["tokens_real"], "the two programs trained on different tokens"
    median = lambda runs, key: statistics.median(r[key] for r in runs)
    print(f"{'':24}{'fsllm_hpc':>12}{'baseline':>12}{'ratio':>8}")
    for key, what in (("real_tok_s", "tokens/s"), ("peak_rss_mib", "peak memory, MiB"), ("first_step_done_s", "first step done, s")):
        x, y = median(mine, key), median(other, key)
        print(f"{what:24}{x:12.1f}{y:12.1f}{x / y:8.2f}")
    x = median(mine, "from_shards_s")
    print(f"{'  from ready shards':24}{x:12.1f}{y:12.1f}{x / y:8.2f}")
    limit = median(bound, "tokens_per_second")
    print(f"{'bare GEMMs, tokens/s':24}{limit:12.1f}{'':12}{median(mine, 'real_tok_s') / limit:8.2f}  (share that fsllm_hpc reaches)")


if __name__ == "__main__":
    main()
