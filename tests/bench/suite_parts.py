# SPDX-License-Identifier: Apache-2.0
"""The parts of suite.py: each measures with the bench programs beside it, or through fsllm_hpc, and returns its results."""
import argparse
import hashlib
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

import bench

HERE = pathlib.Path(__file__).resolve().parent
RANKS = (1, 2, 4)


class Failed(Exception):
    """What ends one part; the others go on."""


def cores():
    return len(os.sched_getaffinity(0))


def file_system(folder):
    done = subprocess.run(["stat", "-f", "-c", "%T", str(folder)], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def call(words, what, **more):
    """Standard output of a program."""
    words = [str(word) for word in words]
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, **more)
    except OSError as error:
        raise Failed(f"{what}: {words[0]} does not start ({error.strerror}). Mend that and measure this part again.") from error
    if done.returncode != 0:
        raise Failed(f"{what}: {pathlib.Path(words[0]).name} has failed (exit code {done.returncode}). Look into log.txt of --out.")
    return done.stdout


def json_lines(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def on_ranks(a, ranks, program, *words):
    return [*(["mpirun", "-np", ranks] if ranks > 1 else []), pathlib.Path(a.bin) / program, *words]


def config_of(model):
    return json.loads((pathlib.Path(model) / "config.json").read_text())


def size_of(folder):
    return sum(path.stat().st_size for path in pathlib.Path(folder).rglob("*") if path.is_file())


def seconds_of(work, *arguments, **more):
    start = time.monotonic()
    work(*arguments, **more)
    return time.monotonic() - start


def write_bytes(path, count):
    data = os.urandom(min(count, 1 << 20))
    with open(path, "wb") as out:
        for left in range(count, 0, -len(data)):
            out.write(data[:left])
        out.flush()
        os.fsync(out.fileno())


def sha256_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_rows(path, clients, rows, length, vocabulary):
    """Rows of ids, the same for each client but for their numbers, so that all have as much to do."""
    span = min(vocabulary - 3, 900)
    with open(path, "w") as out:
        for client in range(clients):
            for row in range(rows):
                ids = [3 + (37 * i + 11 * row + client) % span for i in range(length)]
                out.write(json.dumps({"input_ids": ids, "labels": [-100] * (length // 4) + ids[length // 4:], "client": f"c{client:03d}"}) + "\n")


def federate(a, model, clients, rows, length, *, steps=1, rounds=2, ranks=1, dtype="fp32", adapter=True, keys=()):
    """A run of fsllm_hpc whose clients have equal work: `rows` rows of `length` tokens a step. What its rounds took."""
    with tempfile.TemporaryDirectory(dir=a.work) as name:
        folder = pathlib.Path(name)
        write_rows(folder / "rows.jsonl", clients, rows, length, config_of(model)["vocab_size"])
        lora = "{use: True, args: [{r: 8, lora_alpha: 16, target_modules: [q_proj, v_proj]}]}" if adapter else "{use: False}"
        (folder / "run.yaml").write_text(f"""
outdir: {folder}
expname: run
use_gpu: False
model: {{type: {model}}}
data: {{root: {folder}, type: rows.jsonl, splitter: natural, splitter_args: [{{field: client}}], splits: [1.0, 0, 0]}}
federate: {{client_num: {clients}, total_round_num: {rounds}}}
dataloader: {{batch_size: {rows}, shuffle: False}}
train: {{local_update_steps: {steps}, batch_or_epoch: batch, storage_dtype: {dtype}, compute_dtype: {dtype}, optimizer: {{type: AdamW, lr: 0.0001}}}}
llm: {{tok_len: {length}, adapter: {lora}}}
""")
        call(on_ranks(a, ranks, "fsllm_hpc", "--cfg", folder / "run.yaml", *keys), "a run of fsllm_hpc", stderr=a.log)
        lines = {kind: json_lines((folder / "run" / f"metrics{kind}.jsonl").read_text()) for kind in ("", "_clients", "_ranks")}
        of_rounds = [event for event in lines[""] if event["event"] == "round"]
        ends = [line["time"] for line in lines["_ranks"] if line["rank"] == 0]
        result = {"rounds": [], "first_step_s": of_rounds[0]["seconds"]["to_first_step"],
                  "peak_mib": max(event["peak_rss_bytes"] for event in of_rounds) / 2**20}
        for k, event in enumerate(of_rounds):
            seconds = event["seconds"]
            turns = [line["train"]["seconds"] for line in lines["_clients"] if line["round"] == event["round"] and "train" in line]
            own = seconds["train"] + seconds["aggregate"] + seconds["evaluate"]
            result["rounds"].append({
                "tokens": event["train"]["tokens"], "train": seconds["train"], "aggregate": seconds["aggregate"], "in_turns": sum(turns),
                # The first round ends no other: what lies before it is the start of the program.
                "between": ends[k] - ends[k - 1] - own if k > 0 else None, "all": ends[k] - ends[k - 1] if k > 0 else own})
        folders = sorted((folder / "run" / "checkpoints").glob("round_*"))
        result["checkpoint_bytes"] = size_of(folders[-1]) if folders else 0
        return result


def later(result, key):
    """Median over the rounds after the first, which makes buffers and reads pages."""
    return statistics.median(each[key] for each in result["rounds"][1:])


# The parts. Each returns what stands in results.json under its name.

def step(a):
    """Training beside transformers + peft."""
    rows, note = [], []
    types = ("fp32",) if a.quick else ("fp32", "bf16")
    peers = [("plain", False)] if a.baseline else []
    if a.baseline and a.compile:
        peers.append(("compiled", True))
    if not a.baseline:
        note.append("transformers + peft (no --baseline)")
    elif not a.compile:
        note.append("torch.compile (no --compile)")
    settings = {"rounds": 2, "steps": 1 if a.quick else 2, "batch": 1 if a.quick else 4, "max_len": 128}
    with tempfile.TemporaryDirectory(dir=a.work) as name:
        values = {}
        for dtype in types:
            one = argparse.Namespace(**vars(a), **settings, dtype=dtype, packing="pack", checkpointing="none")
            folder = pathlib.Path(name) / dtype
            folder.mkdir()
            bench.write_run(folder, one)
            for path in pathlib.Path(a.model).iterdir():
                if path.is_file():
                    path.read_bytes()  # neither program pays for a cold page cache
            for turn in range(a.repeat):
                mine = bench.ours(folder, one, turn)
                mine["from_shards_s"] = bench.first_step_from_shards(folder, one, turn)
                values.setdefault((dtype, "fsllm_hpc"), []).append(mine)
                for peer, compiled in peers:
                    if compiled and turn > 0:
                        continue
                    one.compile = compiled
                    try:
                        got = bench.theirs(one)
                    except subprocess.CalledProcessError as error:
                        a.log.write(error.stderr)
                        a.log.flush()
                        if not compiled:
                            raise
                        note.append(f"torch.compile in {dtype} (it has failed)")
                        continue
                    if got["tokens_real"] != mine["tokens_real"]:
                        raise Failed(f"step: {got['tokens_real']} tokens there, {mine['tokens_real']} here (the baseline trains on "
                                     "other rows). Give the baseline that bench.py describes.")
                    values.setdefault((dtype, peer), []).append(got)
                    versions = got.get("versions", {})
            turns = settings["rounds"] * settings["steps"] * len(a.data)
            words = [pathlib.Path(a.bin) / "gemm_bench", a.model, mine["tokens_real"] // turns, mine["targets"] // turns, 1 if a.quick else 5]
            bound = json_lines(call(words + (["bf16"] if dtype == "bf16" else []), "gemm_bench", stderr=a.log))
            values[dtype, "products"] = [{"real_tok_s": one["tokens_per_second"]} for one in bound]
    for (dtype, who), runs in values.items():
        row = {key: statistics.median(run[key] for run in runs) if key in runs[0] else None
               for key in ("real_tok_s", "peak_rss_mib", "first_step_done_s", "from_shards_s")}
        rows.append({"type": dtype, "who": who, "runs": len(runs), "tokens_per_second": row.pop("real_tok_s"), **row})
    return {"rows": rows, "clients": len(a.data), "tokens": mine["tokens_real"], **settings, "notes": note,
            "versions": versions if peers else {}}


def load(a):
    """From mpirun to the first step."""
    rows = []
    for ranks in (1,) if a.quick else (1, 4):
        with tempfile.TemporaryDirectory(dir=a.work) as name:
            text = call([sys.executable, HERE / "startup_bench.py", "--bin", a.bin, "--model", a.model, "--np", ranks, "--repeat",
                         a.repeat, "--out", name], "startup_bench.py", stderr=a.log)
        found = {what.strip(): float(seconds) for what, seconds in re.findall(r"^(.{32}) +([\d.]+) s", text, re.M)}
        rows.append({"ranks": ranks, "empty_s": found["empty program"], "read_s": found["read of the model"],
                     "first_step_s": found["to the end of the first step"], "all_s": found["fsllm_hpc, all"]})
    return {"rows": rows, "model_mib": size_of(a.model) / 2**20}


def attention(a):
    """Attention of training alone, in the model's heads."""
    c = config_of(a.model)
    heads = c["num_attention_heads"]
    shape = [heads, c.get("num_key_value_heads", heads), c.get("head_dim") or c["hidden_size"] // heads]
    return {"shape": shape, "rows": json_lines(call([pathlib.Path(a.bin) / "attention_bench", *shape], "attention_bench", stderr=a.log))}


def loss(a):
    """Loss and gradients of a head that learns."""
    c = config_of(a.model)
    tokens = 128 if a.quick else 2048
    lines = json_lines(call([pathlib.Path(a.bin) / "head_loss_bench", c["vocab_size"], c["hidden_size"], tokens, a.repeat],
                            "head_loss_bench", stderr=a.log))
    row = {"tokens": tokens, "vocabulary": c["vocab_size"], "hidden": c["hidden_size"], "logits_mib": lines[0]["logits_mib"],
           "gradients_mib": lines[0]["gradients_mib"]}
    for way in ("chunks", "all"):
        for key in ("seconds", "peak_mib"):
            row[f"{way}_{key}"] = statistics.median(line[way][key] for line in lines)
    return {"rows": [row]}


def reduce(a):
    """Sums and the server's part, without training."""
    sums, rounds, server = [], [], []
    for ranks in (2,) if a.quick else RANKS[1:]:
        text = call(on_ranks(a, ranks, "comm_bench", 1 if a.quick else 64), "comm_bench", stderr=a.log)
        for what, ms, rate, mpi, copy in re.findall(
                r"^(.+?) +([\d.]+) ms +([\d.]+) GB/s(?: +([\d.]+) x faster than MPI's)?(?: +([\d.]+) x the time of memcpy)?$", text, re.M):
            sums.append({"ranks": ranks, "what": what, "ms": float(ms), "gb_per_second": float(rate),
                         "mpi_ratio": float(mpi) if mpi else None, "memcpy_ratio": float(copy) if copy else None})
    sizes = [(2, 100000)] if a.quick else [(8, 20000000), (100, 1843200)]
    for clients, size in sizes:
        for kind in ("native", "exact"):
            for ranks in RANKS[:2] if a.quick else RANKS:
                rounds += json_lines(call(on_ranks(a, ranks, "round_bench", clients, size, kind, 3 if a.quick else 9), "round_bench",
                                          stderr=a.log))
    if not a.quick:
        server = call([pathlib.Path(a.bin) / "aggregation_bench"], "aggregation_bench", stderr=a.log).splitlines()
    return {"sums": sums, "rounds": rounds, "server": server, "mib": 1 if a.quick else 64}


def shard(a):
    """Preparing the data."""
    rows, tokenizers, note = [], [], []
    all_rows = [row for path in a.data for row in bench.rows_of(path)]
    if a.quick:
        all_rows = all_rows[:200]
    with tempfile.TemporaryDirectory(dir=a.work) as name:
        folder = pathlib.Path(name)
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in all_rows))
        (folder / "run.yaml").write_text(f"""
model: {{type: {a.model}}}
data: {{root: {folder}, type: rows.jsonl, splitter: iid, splits: [1.0, 0, 0], truncate: answer_right}}
federate: {{client_num: 8}}
llm: {{tok_len: 512}}
""")
        times = {ranks: [] for ranks in (RANKS[:2] if a.quick else RANKS)}
        for turn in range(a.repeat):
            for ranks, seconds in times.items():
                words = on_ranks(a, ranks, "fsllm_shard", "--cfg", folder / "run.yaml", "--out", folder / f"{ranks}_{turn}")
                seconds.append(seconds_of(call, words, "fsllm_shard", stderr=a.log))
        rows = [{"ranks": ranks, "seconds": statistics.median(seconds), "rows_per_second": len(all_rows) / statistics.median(seconds)}
                for ranks, seconds in times.items()]
        if (pathlib.Path(a.model) / "tokenizer.json").exists() and a.baseline:
            data = folder / "dolly.json"
            data.write_text(json.dumps([{"instruction": r["instruction"], "context": r["input"], "response": r["output"]} for r in all_rows]))
            text = call([sys.executable, HERE / "tokenizer_bench.py", "--bin", a.bin, "--tokenizer", pathlib.Path(a.model) / "tokenizer.json",
                         "--data", data, "--python", a.python, "--repeat", a.repeat], "tokenizer_bench.py", stderr=a.log)
            mine, other = re.findall(r" ([\d.]+)", text.splitlines()[-1])[-3:-1]
            tokenizers = [{"mb_per_second": float(mine), "their_mb_per_second": float(other)}]
        else:
            note.append("Hugging Face's tokenizers (no --baseline, or no tokenizer.json)")
        if a.slow_python and a.slow_model:
            originals = "".join(json.dumps({"category": "open_qa", "instruction": r["instruction"], "context": r["input"],
                                            "response": r["output"]}) + "\n" for r in all_rows)
            (folder / "databricks-dolly-15k.jsonl").write_text(originals)
            text = call([sys.executable, HERE / "shard_bench.py", "--bin", a.bin, "--model", a.slow_model, "--data",
                         folder / "databricks-dolly-15k.jsonl", "--python", a.slow_python, "--repeat", a.repeat], "shard_bench.py", stderr=a.log)
            slow, mine = (float(x) for x in re.findall(r": ([\d.]+) s", text))
            rows.append({"ranks": 1, "seconds": mine, "slow_seconds": slow, "rows_per_second": len(all_rows) / mine})
        else:
            note.append("FederatedScope-LLM's way, slow tokenizers (no --slow-python and --slow-model)")
    return {"rows": rows, "tokenizers": tokenizers, "count": len(all_rows), "tok_len": 512, "notes": note}


def checkpoint(a):
    """What a checkpoint adds to a round, beside a bare write and fsync of as many bytes."""
    rows, note = [], []
    kinds = [("LoRA r 8 on q and v", True)]
    if size_of(a.model) < 2**31:
        kinds.append(("all parameters", False))
    else:
        note.append("training of all parameters (the model's files are larger than 2 GiB)")
    for what, adapter in kinds:
        runs = {every: federate(a, a.model, 1, 1, 32, rounds=2 + a.repeat, adapter=adapter, keys=("checkpoint.every_rounds", str(every)))
                for every in (0, 1)}
        size = runs[1]["checkpoint_bytes"]
        path = a.work / "bytes"
        written = statistics.median(seconds_of(write_bytes, path, size) for _ in range(a.repeat))
        digest = statistics.median(seconds_of(sha256_of, path) for _ in range(a.repeat))
        path.unlink()
        rows.append({"what": what, "bytes": size, "seconds": max(later(runs[1], "between") - later(runs[0], "between"), 0),
                     "between_without": later(runs[0], "between"), "write_seconds": written, "sha256_seconds": digest})
    return {"rows": rows, "file_system": file_system(a.work), "notes": note}


def scaling(a, clients_of):
    rows, steps, length = [], 1, 64
    for ranks in RANKS[:2] if a.quick else RANKS:
        clients = clients_of(ranks)
        got = federate(a, a.model, clients, 4, length, steps=steps, rounds=1 + a.repeat, ranks=ranks)
        rows.append({"ranks": ranks, "clients": clients, "seconds": statistics.median(r["train"] + r["aggregate"] for r in got["rounds"][1:]),
                     "aggregate": later(got, "aggregate"), "tokens": got["rounds"][-1]["tokens"]})
    return {"rows": rows, "steps": steps, "batch": 4, "length": length, "cores": cores()}


def strong(a):
    """The same eight clients on more ranks."""
    return scaling(a, lambda ranks: 8)


def weak(a):
    """Two clients a rank."""
    return scaling(a, lambda ranks: 2 * ranks)


def size(a):
    """Cost against the model's layers."""
    rows, config = [], config_of(a.model)
    own = config["num_hidden_layers"]
    layers = [1, 2] if a.quick else sorted({n for n in (2, 5, 10, 20) if n < own} | {min(own, 40)})
    length, batch = (64, 2) if a.quick else (128, 4)
    for count in layers:
        with tempfile.TemporaryDirectory(dir=a.work) as name:
            folder = pathlib.Path(name)
            (folder / "shape.json").write_text(json.dumps(dict(config, num_hidden_layers=count)))
            call([sys.executable, HERE / "make_random_model.py", "--config", folder / "shape.json", "--out", folder / "model"],
                 "make_random_model.py", stderr=a.log)
            parameters = (folder / "model" / "model.safetensors").stat().st_size / 2
            for dtype in ("fp32",) if a.quick else ("fp32", "bf16"):
                got = federate(a, folder / "model", 1, batch, length, steps=2, rounds=1 + a.repeat, dtype=dtype)
                words = [pathlib.Path(a.bin) / "gemm_bench", folder / "model", batch * length, batch * (length - length // 4), 1 if a.quick else 2]
                bound = json_lines(call(words + (["bf16"] if dtype == "bf16" else []), "gemm_bench", stderr=a.log))[0]
                rows.append({"layers": count, "parameters": parameters, "type": dtype, "bound": bound["tokens_per_second"],
                             "tokens_per_second": later(got, "tokens") / later(got, "train"), "peak_mib": got["peak_mib"],
                             "first_step_s": got["first_step_s"]})
    return {"rows": rows, "batch": batch, "length": length}


def length(a):
    """Cost against the length of rows, with as many tokens in a step."""
    rows, note = [], []
    limit = config_of(a.model).get("max_position_embeddings", 1 << 30)
    lengths, tokens = ([64, 128], 128) if a.quick else ([64, 128, 256, 512, 1024], 1024)
    for count in lengths:
        if count > limit:
            note.append(f"rows of {count} tokens (the model has {limit} positions)")
            continue
        for dtype in ("fp32",) if a.quick else ("fp32", "bf16"):
            got = federate(a, a.model, 1, tokens // count, count, rounds=1 + a.repeat, dtype=dtype)
            rows.append({"length": count, "rows": tokens // count, "type": dtype, "tokens_per_second": later(got, "tokens") / later(got, "train"),
                         "peak_mib": got["peak_mib"]})
    return {"rows": rows, "tokens": tokens, "notes": note}


def clients(a):
    """What of a round is not training, against the number of clients: with the least work that a turn can have, and with the work of
    the first part's turns."""
    rows, small, usual = [], (1, 32 if a.quick else 64), (4, 128)
    work = [(1, 1, *small), (4, 1, *small)] if a.quick else [
        *((n, 1, *small) for n in (1, 2, 5, 10, 20, 50, 100)), *((n, 4, *small) for n in (1, 5, 20)), (100, 1, *usual)]
    for count, steps, batch, length in work:
        got = federate(a, a.model, count, batch, length, steps=steps, rounds=2 if a.quick or count * steps > 20 else 1 + a.repeat)
        all_seconds, trained = later(got, "all"), later(got, "in_turns")
        rows.append({"clients": count, "steps": steps, "batch": batch, "length": length, "round_s": all_seconds, "trained_s": trained,
                     "phase_s": later(got, "train"), "aggregate_s": later(got, "aggregate"), "between_s": later(got, "between"),
                     "peak_mib": got["peak_mib"], "not_training": 1 - trained / all_seconds,
                     "after_training": 1 - later(got, "train") / all_seconds})
    return {"rows": rows, "target": 0.01}


PARTS = {part.__name__: part for part in (step, load, attention, loss, reduce, shard, checkpoint, strong, weak, size, length, clients)}
PROGRAMS = {"step": ["fsllm_hpc", "fsllm_shard", "gemm_bench"], "load": ["fsllm_hpc", "fsllm_shard", "empty_start"], "attention": ["attention_bench"],
            "loss": ["head_loss_bench"], "reduce": ["comm_bench", "round_bench", "aggregation_bench"], "shard": ["fsllm_shard", "tokenizer_bench"],
            "size": ["fsllm_hpc", "gemm_bench"]}
