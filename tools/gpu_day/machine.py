# SPDX-License-Identifier: Apache-2.0
"""The machine, the programs on it, and one training run with its tokens/s and the memory of the GPU."""
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import time

# Dense peak of half-precision matrix products, TFLOP/s, from NVIDIA's data sheets (SXM parts).
PEAKS = {"B200": 2250, "H200": 989, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "V100": 125, "T4": 65}
BASE = """expname: run
data: {splitter: iid, splits: [1.0, 0.0, 0.0]}
federate: {client_num: 1}
dataloader: {shuffle: False}
train: {batch_or_epoch: batch, optimizer: {type: AdamW, lr: 0.0001}}
early_stop: {patience: 0}
checkpoint: {every_rounds: 0}
"""


def ask(words):
    """What a program prints; empty where it is absent or fails."""
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=60).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def end(process):
    """Ends a program at once, and mpirun with its ranks."""
    if "mpirun" in str(process.args[0]):
        process.terminate()  # it ends its ranks, which are in groups of their own
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


class Day:
    def __init__(self, root, bin_folder, work, log):
        self.root, self.bin, self.work, self.log, self.failed = root, bin_folder, work, log, 0
        self.version = ask([bin_folder / "fsllm_hpc", "--version"])
        self.gpus = [x for x in ask(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]).splitlines() if "," in x]
        has_cuda = "CUDA: ON" in self.version
        self.no_gpu = "" if self.gpus and has_cuda else "no GPU" if not self.gpus else "a build without CUDA"
        name = self.gpus[0] if self.gpus else ""
        self.peak = next((1e12 * x for key, x in PEAKS.items() if key in name), 0)
        (work / "base.yaml").write_text(BASE)
        bundled = bin_folder / "mpirun"
        self.mpirun = str(bundled) if bundled.exists() else "mpirun"
        self.environment = dict(
            os.environ, FSLLM_SOURCE_DIR=str(root), FSLLM_BIN_DIR=str(bin_folder), FSLLM_MPIEXEC=self.mpirun, GTEST_COLOR="no",
            OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMPI_MCA_rmaps_base_oversubscribe="1",
            OMPI_MCA_hwloc_base_binding_policy="none", OMPI_MCA_mpi_yield_when_idle="1",
            OMPI_MCA_btl_vader_single_copy_mechanism="none")
        self.start_part(0)

    def describe(self):
        cpu = re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read())
        gpu = self.gpus[0] if self.gpus else "no GPU"
        load = open("/proc/loadavg").read().split()[0]
        return (f"{gpu}; {cpu.group(1) if cpu else 'a processor without a name'}, {os.cpu_count()} cores, load {load}\n\n"
                f"```\n{self.version}\n```")

    def start_part(self, seconds):
        self.begun = time.monotonic()
        self.end = self.begun + seconds

    def part_seconds(self):
        return time.monotonic() - self.begun

    def left(self, wanted):
        return min(wanted, self.end - time.monotonic())

    def skipped(self, what, why=None):
        return dict(what, result=f"skipped ({why or self.no_gpu})")

    def has_key(self, key):
        """Does this build read that key? One that is not there yet is refused with these words."""
        return ask([self.bin / "fsllm_hpc", "--describe", key]).startswith(key)

    def run(self, words, seconds, until=None, environment=None):
        """Runs a command: (exit code, its output, seconds, most MiB used on the GPU). Ends it after `seconds`, or once until()."""
        limit = self.left(seconds)
        if limit < 5:
            return None, "not run: the time of the part was over", 0.0, 0
        words = [str(w) for w in words]
        print(f"$ {' '.join(words)}", file=self.log, flush=True)
        output = self.work / "output.txt"
        watch = None
        if self.gpus:
            watch = subprocess.Popen(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-lms", "250", "-i", "0"],
                                     stdout=open(self.work / "memory.txt", "w"), stderr=subprocess.DEVNULL)
        start = time.monotonic()
        with open(output, "w") as out:
            process = subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=self.work,
                                       env=environment or self.environment, start_new_session=True)
            code = None
            while code is None:
                time.sleep(0.1)
                code = process.poll()
                if code is None and (late := time.monotonic() - start > limit) or code is None and until and until():
                    end(process)
                    code = 124 if late else 0
        took = time.monotonic() - start
        used = 0
        if watch:
            watch.terminate()
            watch.wait()
            used = max((int(x) for x in (self.work / "memory.txt").read_text().split() if x.isdigit()), default=0)
        text = output.read_text(errors="replace")
        print(f"{text}[exit {code}, {took:.1f} s]\n", file=self.log, flush=True)
        return code, text, took, used

    def train(self, name, keys, ranks=0, rounds=3, seconds=120, stop_early=False):
        """One run of `rounds` rounds. stop_early: ends it after these, so that no model is written."""
        folder = self.work / "runs" / name
        shutil.rmtree(folder, ignore_errors=True)
        words = [self.mpirun, "-np", ranks] if ranks else []
        words += [self.bin / "fsllm_hpc", "--cfg", self.work / "base.yaml", "--overwrite", f"outdir={self.work}/runs", f"expname={name}",
                  f"federate.total_round_num={rounds + stop_early}", *keys]
        metrics = folder / "metrics.jsonl"

        def events():
            lines = metrics.read_text().splitlines() if metrics.exists() else []
            return [e for e in map(json.loads, lines) if e["event"] == "round"]

        code, text, took, used = self.run(words, seconds, (lambda: len(events()) >= rounds) if stop_early else None)
        result = {"folder": folder, "seconds": took, "gib": used / 1024, "result": "ok"}
        if code == 0:
            done = events()
            later = done[1:] or done  # the first round loads kernels
            result.update(losses=[e["train"]["loss_per_token"] for e in done],
                          speed=statistics.median(e.get("tokens_per_second", 0) for e in later),
                          rss=max(e["peak_rss_bytes"] for e in done) / 2**30, events=done)
        else:
            message = [x for x in text.splitlines() if "error" in x.lower() or "not run" in x]
            result["result"] = "not finished in time" if code == 124 else (message or text.splitlines()[-1:] or ["no word"])[0][-300:]
            if code is not None:
                self.failed += 1
        return result
