# SPDX-License-Identifier: Apache-2.0
"""A federated round without training: round_bench, Flower's simulation engine and NVFlare's simulator, in turn in one run.

    python3 tests/bench/round_bench.py --bin build/release/bin --clients 8 --bytes 20000000 \\
        --flower FLOWER_PYTHON --nvflare NVFLARE_PYTHON

FLOWER_PYTHON needs flwr[simulation] (1.42), NVFLARE_PYTHON nvflare (2.9) and torch, as only PyTorch's tensors go to its disk
off-load; without them a row is left out, and named. All three average fp32 tensors of the same sizes, of clients who add a
constant to what they got (ours send an update). Seconds of a round are the median of those between the marks in each program's
own log, without the first round; memory is the largest sum of proportional set sizes (PSS) of all its processes.
"""
import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime

NET = '''
import torch
class Net(torch.nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes
        self.weights = torch.nn.ParameterList([torch.zeros(n) for n in sizes])
'''
CLIENT = '''
import nvflare.client as flare
flare.init()
while flare.is_running():
    got = flare.receive()
    if got is None:
        break
    flare.send(flare.FLModel(params={k: v + 1e-3 for k, v in got.params.items()}, meta={"NUM_STEPS_CURRENT_ROUND": 1}))
'''


def sizes_of(size):
    """Elements of the tensors, as round_bench.cpp has them."""
    shapes, left, sizes = [10 * 4096] if size <= 128 << 20 else [2048 * 2048, 2048 * 5632], size // 4, []
    while left > 0:
        sizes.append(min(left, shapes[len(sizes) % len(shapes)]))
        left -= sizes[-1]
    return sizes


def flower(args):
    """Prints the seconds of each round, between the marks in Flower's log."""
    import logging
    os.environ.update(FLWR_TELEMETRY_ENABLED="0", RAY_USAGE_STATS_ENABLED="0", RAY_DEDUP_LOGS="0")
    import numpy as np
    from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation
    marks = []

    class Marks(logging.Handler):
        def emit(self, record):
            if re.match(r"\[ROUND|Strategy execution finished", record.getMessage()):
                marks.append(record.created)
    logging.getLogger("flwr").addHandler(Marks())
    client, server = ClientApp(), ServerApp()

    @client.train()
    def train(message, context):
        arrays = [a + np.float32(1e-3) for a in message.content["arrays"].to_numpy_ndarrays()]
        return Message(content=RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": 1})}),
                       reply_to=message)

    @server.main()
    def run(grid, context):
        arrays = ArrayRecord([np.zeros(n, np.float32) for n in sizes_of(args.bytes)])
        strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=args.clients, min_available_nodes=args.clients)
        result = strategy.start(grid=grid, initial_arrays=arrays, num_rounds=args.rounds)
        mean = result.arrays.to_numpy_ndarrays()[-1]
        assert np.allclose(mean, args.rounds * 1e-3, rtol=1e-4), mean[:4]
    run_simulation(server_app=server, client_app=client, num_supernodes=args.clients,
                   backend_config={"client_resources": {"num_cpus": 1.0, "num_gpus": 0.0}, "init_args": {"num_cpus": os.cpu_count()}})
    print("SECONDS", json.dumps([b - a for a, b in zip(marks, marks[1:])]))


def nvflare(args):
    """Prints the seconds of each round, between the marks in the log of NVFlare's server."""
    folder = pathlib.Path(os.getcwd())
    (folder / "net.py").write_text(NET)
    (folder / "client.py").write_text(CLIENT)
    sys.path.insert(0, str(folder))
    from net import Net
    import torch
    from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
    from nvflare.client.config import ExchangeFormat
    from nvflare.recipe import SimEnv
    recipe = FedAvgRecipe(name="round", model=Net(sizes_of(args.bytes)), min_clients=args.clients, num_rounds=args.rounds,
                          train_script="client.py", server_expected_format=ExchangeFormat.PYTORCH,
                          enable_tensor_disk_offload=True)
    recipe.execute(SimEnv(num_clients=args.clients, num_threads=args.clients, workspace_root=str(folder / "work")))
    marks, at = [], None
    for line in open(next((folder / "work").rglob("server/**/log.txt")), encoding="utf-8"):
        if stamp := re.match(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d+)", line):
            at = datetime.strptime(stamp[1], "%Y-%m-%d %H:%M:%S").timestamp() + int(stamp[2]) / 1e3
        if re.search(r"Round \d+ started|Finished FedAvg", line):  # on a line of its own below the stamp
            marks.append(at)
    saved = torch.load(next((folder / "work").rglob("FL_global_model.pt")), weights_only=False)
    values = list(saved.get("model", saved).values())[-1]
    assert torch.allclose(torch.as_tensor(values), torch.tensor(args.rounds * 1e-3), rtol=1e-4), values
    print("SECONDS", json.dumps([b - a for a, b in zip(marks, marks[1:])]))


def tree_of(root):
    """The process and all that descend from it or have its session."""
    parents = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = (int(fields[1]), int(fields[3]))
            except OSError:
                pass
    found = {root}
    while True:
        more = {p for p, (parent, session) in parents.items() if parent in found or session == root} - found
        if not more:
            return found
        found |= more


def pss_of(pid):
    try:
        return int(re.search(r"^Pss:\s+(\d+)", pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)[1]) << 10
    except (OSError, TypeError):
        return 0


def watched(command, cwd, env, limit):
    """Output and largest memory (bytes) of a program; ended where that passes `limit`, or after 15 minutes."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, cwd=cwd, env=env, stdout=log, stderr=subprocess.STDOUT, text=True, start_new_session=True)
        peak, why, start = 0, "", time.time()
        while process.poll() is None:
            pids = tree_of(process.pid)
            peak = max(peak, sum(map(pss_of, pids)))
            if peak > limit or time.time() - start > 900:
                why = f"ended at {peak / 2**30:.1f} GiB after {time.time() - start:.0f} s"
                for pid in pids:
                    try:
                        os.kill(pid, 9)
                    except OSError:
                        pass
                process.wait()
            time.sleep(0.1)
        log.seek(0)
        return log.read(), peak, why


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bin", type=pathlib.Path)
    p.add_argument("--clients", type=int, default=8)
    p.add_argument("--bytes", type=int, default=20_000_000)
    p.add_argument("--rounds", type=int, default=6)
    p.add_argument("--repeat", type=int, default=1, help="turns of all programs")
    p.add_argument("--ranks", type=int, nargs="*", default=[1, 2])
    p.add_argument("--reduce", nargs="*", default=["native", "exact"])
    p.add_argument("--flower", help="a Python with flwr[simulation]")
    p.add_argument("--nvflare", help="a Python with nvflare and torch")
    p.add_argument("--limit-gib", type=float, default=12, help="memory at which a program is ended")
    p.add_argument("--peer", choices=["flower", "nvflare"], help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.peer:
        return {"flower": flower, "nvflare": nvflare}[args.peer](args)
    here = str(pathlib.Path(__file__).resolve())
    size = ["--clients", str(args.clients), "--bytes", str(args.bytes), "--rounds", str(args.rounds)]
    commands = {}
    for reduce in args.reduce:
        for ranks in args.ranks:
            commands[f"fsllm_hpc, {reduce} sums, {ranks} rank{'s' * (ranks > 1)}"] = [
                "mpirun", "-np", str(ranks), str(args.bin.resolve() / "round_bench"), str(args.clients), str(args.bytes), reduce,
                str(args.rounds)]
    for name, label in (("flower", "Flower"), ("nvflare", "NVFlare, disk off-load")):
        if getattr(args, name):
            commands[label] = [getattr(args, name), here, "--peer", name, *size]
        else:
            print(f"{label}: left out (no --{name})")
    copies, rows = [], {name: ([], [], []) for name in commands}
    env = dict(os.environ, OMP_NUM_THREADS="1")
    for _ in range(args.repeat):
        for name, command in commands.items():
            with tempfile.TemporaryDirectory() as folder:
                # Who watches takes time from two ranks on two cores: ours are timed alone, and watched after that.
                timed = "" if "--peer" in command else subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True).stdout
                output, peak, why = watched(command, folder, env, args.limit_gib * 2**30)
                output = timed or output
            ours = re.search(r'^\{"clients".*\}$', output, re.M)
            theirs = re.search(r"^SECONDS (.*)$", output, re.M)
            if ours:
                row = json.loads(ours[0])
                seconds = [row["seconds"]]
                rows[name][2].append(f"{row['ratio']:.2f} x memcpy on as many ranks (best of each: {row['ratio_of_best']:.2f}), peak "
                                     f"{row['peak_mib']} MiB a rank with {row['buffer_mib']} of updates")
                if row["ranks"] == 1:
                    copies.append(row["memcpy_seconds"])
            elif theirs:
                seconds = json.loads(theirs[1])[1:]
            else:
                rows[name][2].append(why or "failed: " + output[-1500:])
                continue
            rows[name][0].extend(seconds)
            rows[name][1].append(peak)
    copy = statistics.median(copies) if copies else float("nan")
    print(f"{args.clients} x {args.bytes / 1e6:g} MB, {args.rounds} rounds, {args.repeat} turns; memcpy {1e3 * copy:.1f} ms; load {os.getloadavg()[0]:.1f}")
    print("| | s a round | x memcpy | all processes, MiB | |\n|---|---|---|---|---|")
    for name, (seconds, peaks, notes) in rows.items():
        middle = statistics.median(seconds) if seconds else float("nan")
        print(f"| {name} | {middle:.4f} | {middle / copy:.1f} | {max(peaks, default=0) / 2**20:.0f} | {'; '.join(notes)} |")


if __name__ == "__main__":
    main()
