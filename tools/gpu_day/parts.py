# SPDX-License-Identifier: Apache-2.0
"""The parts: each takes a Day and gives the rows of its table. A row of a GPU says so where there is none."""
import array
import hashlib
import json
import os
import re
import struct
import sys

import shapes

LORA = ["llm.adapter.use=True", "llm.adapter.args=[{adapter_method: lora, r: 8, lora_alpha: 16, target_modules: all-linear}]"]
METHODS = {"lora": LORA, "full": ["llm.adapter.use=False"]}


def keys_of(day, shape, rows, seq, batch, steps, gpu):
    data = shapes.write_rows(day, shape, rows, seq)
    return [f"model.type={shapes.model(day, shape)}", f"data.root={data}", "data.type=rows.jsonl", f"dataloader.batch_size={batch}",
            f"train.local_update_steps={steps}", f"llm.tok_len={4096 if seq == 'dolly' else seq}", f"use_gpu={gpu}"]


def file_of(result):
    return result["folder"] / "adapter/adapter_model.safetensors"


def trained_values(result):
    """The fp32 numbers of an adapter's matrices B, which begin at zero: all that they are is training."""
    data = file_of(result).read_bytes()
    begin = 8 + struct.unpack("<Q", data[:8])[0]
    tensors = sorted((n, t["data_offsets"]) for n, t in json.loads(data[8:begin]).items() if "lora_B" in n)
    return array.array("f", b"".join(data[begin + first:begin + end] for _, (first, end) in tensors))


def distance(a, b):
    """|a - b| / |b| of two adapters' matrices B; under SGD that is how far their gradients differ."""
    x, y = trained_values(a), trained_values(b)
    return (sum((p - q) ** 2 for p, q in zip(x, y)) / sum(q * q for q in y)) ** 0.5


# ---- tests

def tests(day):
    rows = []
    for name, words in (("nccl_test, 1 rank", [day.bin / "nccl_test"]),
                        ("nccl_test, 2 ranks", [day.mpirun, "-np", 2, day.bin / "nccl_test"]),
                        ("e2e_test, suites of GPUs", [day.bin / "e2e_test", "--gtest_filter=*Gpu*:*Cuda*"])):
        what = {"test": name}
        if day.no_gpu or not (day.bin / str(words[-2 if "gtest" in str(words[-1]) else -1])).exists():
            rows.append(day.skipped(what, day.no_gpu or "not in this build"))
            continue
        code, text, took, _ = day.run(words, 300)
        count = {k: sum(map(int, re.findall(rf"\[\s*{k}\s*\] (\d+) test", text))) for k in ("PASSED", "SKIPPED", "FAILED")}
        good = code == 0 and (count["PASSED"] > 0 or "2 ranks" in name and len(day.gpus) < 2)
        day.failed += not good
        rows.append(dict(what, passed=count["PASSED"], skipped=count["SKIPPED"], failed=count["FAILED"], seconds=f"{took:.0f}",
                         result="only skips" if code == 0 and not count["PASSED"] else "ok" if good else f"FAILED (exit {code})"))
    return rows


# ---- numbers

STORAGES = ["fp32", "bf16", "fp16", "int8", "nf4"]


def numbers(day):
    """The same training on the CPU in fp32 and on the GPU, for each type of frozen weights."""
    rows = []
    for storage in STORAGES if not day.no_gpu else ("bf16", "nf4"):
        base = [*keys_of(day, "tiny", 24, 64, 2, 4, False), *LORA, "train.optimizer={type: SGD, lr: 1.0}", f"train.storage_dtype={storage}"]
        cpu = day.train(f"cpu_{storage}", [*base, "train.compute_dtype=fp32"])
        computes = (("bf16", False, 5e-2),) if day.no_gpu else (("fp32", True, 1e-3), ("bf16", True, 5e-2), ("fp16", True, 5e-2))
        for compute, gpu, bound in computes:
            other = day.train(f"other_{storage}_{compute}", [*base, f"use_gpu={gpu}", f"train.compute_dtype={compute}"])
            row = {"weights": storage, "compute": f"{compute} on the {'GPU' if gpu else 'CPU'}", "bound": bound, "result": other["result"]}
            if "losses" in cpu and "losses" in other:
                loss = max(abs(x - y) / y for x, y in zip(other["losses"], cpu["losses"]))
                off = distance(other, cpu)
                row.update({"loss differs by": f"{loss:.1e}", "B differs by": f"{off:.1e}"})
                if not off <= bound:
                    day.failed += 1
                    row["result"] = "FAILED: beyond the bound"
            rows.append(row)
    if day.no_gpu:
        rows += [day.skipped({"weights": s, "compute": "fp32, bf16, fp16 on the GPU"}) for s in STORAGES]
    return rows


# ---- speed

CASES = [  # shape, method, length of rows, rows a step, steps a round
    ("1B", "lora", 4096, 4, 4), ("1B", "lora", "dolly", 32, 4), ("1B", "full", 4096, 4, 4), ("1B", "full", "dolly", 32, 4),
    ("8B", "lora", 4096, 2, 3), ("8B", "lora", "dolly", 32, 3), ("8B", "full", 4096, 1, 3), ("8B", "full", "dolly", 16, 3)]
REHEARSAL = [("tiny", "lora", 64, 2, 2), ("tiny", "full", 64, 2, 2)]


def speed_row(day, shape, method, seq, batch, steps, gpu, more=()):
    """A training of three rounds; tokens/s of the later two, and the share of the GPU's peak that the model's operations are."""
    count = 3 * batch * steps
    result = day.train(f"speed_{shape}_{method}_{seq}{len(more) or ''}",
                       [*keys_of(day, shape, count, seq, batch, steps, gpu), *METHODS[method], *more], stop_early=method == "full")
    row = {"model": shape, "trained": method, "rows": f"{batch} × {seq}", "result": result["result"]}
    if "speed" in result:
        row["tokens/s"] = f"{result['speed']:.0f}"
        row["loss"] = f"{result['losses'][0]:.2f} → {result['losses'][-1]:.2f}"
        if gpu and day.peak:
            flops = shapes.flops_a_token(shape, method, shapes.lengths(count, seq))
            row["MFU"] = f"{100 * result['speed'] * flops / day.peak:.1f} %"
    if gpu:
        row["GPU memory, GiB"] = f"{result['gib']:.1f}"
    return row


def speed(day):
    if day.no_gpu:
        what = [{"model": s, "trained": m, "rows": f"{b} × {seq}"} for s, m, seq, b, _ in CASES]
        return [speed_row(day, *case, gpu=False) for case in REHEARSAL] + [day.skipped(w) for w in what]
    rows = []
    for case in CASES:
        rows.append(speed_row(day, *case, gpu=True))
        if "out of memory" in rows[-1]["result"].lower() and day.has_key("train.activation_checkpointing"):
            rows.append(speed_row(day, *case, gpu=True, more=["train.activation_checkpointing=block"]))
            rows[-1]["trained"] += ", blocks recomputed"
    return rows


# ---- host

def host(day):
    """Four clients with adapters of their own, whose resting ones stay on the GPU, or go to host memory."""
    rows = []
    for moved in ("False", "True"):
        what = {"llm.adapter.mv_to_cpu": moved}
        if day.no_gpu:
            rows.append(day.skipped(what))
            continue
        keys = [*keys_of(day, "1B", 64, "dolly", 8, 2, True), "federate.method=local", "federate.client_num=4", "llm.adapter.use=True",
                "llm.adapter.args=[{adapter_method: lora, r: 64, lora_alpha: 64, target_modules: all-linear}]", f"llm.adapter.mv_to_cpu={moved}"]
        result = day.train(f"host_{moved}", keys, stop_early=True)
        row = dict(what, result=result["result"])
        if "events" in result:
            row.update({"tensors on the GPU between turns, MiB": f"{result['events'][-1].get('device_bytes', 0) / 2**20:.0f}",
                        "GPU memory, GiB": f"{result['gib']:.1f}", "tokens/s": f"{result['speed']:.0f}"})
        rows.append(row)
    return rows


# ---- nccl

def nccl(day):
    """NCCL's collectives on every GPU; and two ranks on one GPU, which it refuses: the host's serve, to the same bits."""
    what = [{"what": f"NCCL, {max(1, len(day.gpus))} ranks on as many GPUs"}, {"what": "two ranks on one GPU, as one rank"}]
    if day.no_gpu:
        return [day.skipped(w) for w in what]
    code, text, took, _ = day.run([day.mpirun, "-np", len(day.gpus), day.bin / "nccl_test"], 120)
    passed = code == 0 and "PASSED" in text and "SKIPPED" not in text
    results = [day.train(f"nccl_{ranks}", [*keys_of(day, "tiny", 24, 64, 2, 2, True), *LORA, "federate.client_num=2"], ranks=ranks)
               for ranks in (1, 2)]
    same = all("losses" in r for r in results) and len({hashlib.sha256(file_of(r).read_bytes()).digest() for r in results}) == 1
    day.failed += (not passed) + (not same)
    return [dict(what[0], result="ok" if passed else f"FAILED (exit {code})", seconds=f"{took:.0f}"),
            dict(what[1], result="the same bits" if same else f"FAILED: {results[1]['result']}, other bits",
                 seconds=f"{results[1]['seconds']:.0f}")]


# ---- zero

def zero(day):
    """Full training with the state in parts over two ranks of one client."""
    shape, seq, gpu = ("tiny", 64, False) if day.no_gpu else ("1B", 4096, True)
    rows, there = [], day.has_key("hpc.zero_stage")
    for stage in (0, 1, 2, 3):
        what = {"hpc.zero_stage": stage, "model": shape}
        if not there:
            rows.append(day.skipped(what, "not in this build"))
            continue
        keys = [*keys_of(day, shape, 24, seq, 2, 2, gpu), *METHODS["full"], "hpc.ranks_per_client=2", f"hpc.zero_stage={stage}"]
        result = day.train(f"zero_{stage}", keys, ranks=2, stop_early=True)
        row = dict(what, result=result["result"])
        if "speed" in result:
            row.update({"tokens/s": f"{result['speed']:.0f}", "loss": " ".join(f"{x:.4f}" for x in result["losses"]),
                        "memory of a rank, GiB": f"{result['rss']:.2f}"})
        if gpu:
            row["GPU memory of both, GiB"] = f"{result['gib']:.1f}"
        rows.append(row)
    return rows + ([day.skipped({"hpc.zero_stage": "0 to 3", "model": "1B"})] if day.no_gpu else [])


# ---- peer

def peer(day):
    """The same LoRA steps by liger-kernel + peft, in turn with ours."""
    rows = []
    for seq, batch in ((4096, 2), ("dolly", 32)):
        what = {"model": "8B", "rows": f"{batch} × {seq}"}
        if day.no_gpu:
            rows += [day.skipped(dict(what, program="fsllm_hpc")), day.skipped(dict(what, program="liger-kernel + peft"))]
            continue
        mine = speed_row(day, "8B", "lora", seq, batch, 3, True)
        rows.append(dict(what, program="fsllm_hpc", **{k: mine.get(k, "–") for k in ("tokens/s", "GPU memory, GiB", "result")}))
        data = shapes.write_rows(day, "8B", 9 * batch, seq) / "rows.jsonl"
        words = [sys.executable, day.root / "tools/gpu_day/peer.py", "--model", shapes.model(day, "8B"), "--rows", data, "--batch", batch,
                 "--wheels", os.environ.get("FSLLM_WHEELS", "")]
        code, text, _, used = day.run(words, 150, environment=dict(os.environ))
        last = text.strip().splitlines()[-1:] or [""]
        answer = json.loads(last[0]) if last[0].startswith("{") else {"result": f"exit {code}: {last[0][-200:]}"}
        rows.append({**what, "program": "liger-kernel + peft", "GPU memory, GiB": f"{used / 1024:.1f}", **answer})
    return rows


PARTS = {
    "tests": ("tests labelled gpu", ["test", "passed", "skipped", "failed", "seconds", "result"], tests),
    "numbers": ("types of frozen weights against fp32 on the CPU",
                ["weights", "compute", "loss differs by", "B differs by", "bound", "result"], numbers),
    "speed": ("training steps of random weights", ["model", "trained", "rows", "tokens/s", "MFU", "GPU memory, GiB", "loss", "result"], speed),
    "host": ("adapters of resting clients in host memory",
             ["llm.adapter.mv_to_cpu", "tensors on the GPU between turns, MiB", "GPU memory, GiB", "tokens/s", "result"], host),
    "nccl": ("NCCL, and two ranks on one GPU", ["what", "seconds", "result"], nccl),
    "zero": ("ZeRO over two ranks", ["hpc.zero_stage", "model", "tokens/s", "memory of a rank, GiB", "GPU memory of both, GiB", "loss", "result"], zero),
    "peer": ("LoRA beside liger-kernel + peft", ["model", "rows", "program", "tokens/s", "GPU memory, GiB", "result"], peer),
}
