# SPDX-License-Identifier: Apache-2.0
"""Makes docs/PERFORMANCE.md and its plots of the results of suite.py."""
import json
import math
import os

from plots import bars, lines, number


class Unreadable(Exception):
    """Results that this program cannot use."""


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            results = json.load(file)
    except (OSError, ValueError) as error:
        raise Unreadable(f"{path} cannot be read ({error}). Give the results.json that suite.py --out wrote.") from error
    if not isinstance(results, dict) or results.get("format") != "fsllm_benchmarks" or results.get("version") != 1:
        raise Unreadable(f"{path} is no results of suite.py (its format is not fsllm_benchmarks, version 1). Measure anew.")
    return results


def table(head, rows):
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)] + ["| " + " | ".join(row) + " |" for row in rows] + [""]


def times(x):
    return "–" if x is None or not math.isfinite(x) else f"{number(x)} ×"


def ratio(x, y):
    return x / y if x is not None and y else None


def percent(x):
    return f"{number(100 * x, 2)} %"


def ranks_text(ranks, cores):
    return f"{ranks}" if ranks <= cores else f"{ranks} (on {cores} core{'s' * (cores > 1)})"


class Page:
    def __init__(self, results, folder):
        self.results, self.folder, self.out = results, folder, []
        self.cores = results["machine"]["cores"]

    def add(self, *text):
        self.out += [*text, ""]

    def section(self, title, text):
        self.add(f"## {title}", "", text)

    def plot(self, name, svg, what):
        (self.folder / "img").mkdir(exist_ok=True)
        (self.folder / "img" / f"performance_{name}.svg").write_text(svg, encoding="utf-8")
        self.add(f"![{what}](img/performance_{name}.svg)")

    def crowded(self, ranks):
        """Says where ranks had to share cores."""
        if max(ranks) > self.cores:
            self.add(f"**{max(ranks)} ranks share {self.cores} core{'s' * (self.cores > 1)} here**: they show what sharing costs, not how the "
                     "program scales to that many cores.")

    def head(self):
        machine = self.results["machine"]
        self.add("# Performance", "", "Made by `tests/bench/suite.py`; do not edit, measure again:")
        self.add("```", "python3 tests/bench/suite.py --bin build/release/bin --model MODEL_DIR --data local_training_[0-3].json.gz \\",
                 "    --baseline baseline_peft.py --python .deps/venv/bin/python --compile --out DIR",
                 "python3 tests/bench/suite.py --page DIR/results.json docs/PERFORMANCE.md", "```")
        if self.results["quick"]:
            self.add("**Made with `--quick`: tiny sizes, to show that all works. These figures measure nothing.**")
        flags = ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in machine["flags"].items())
        name = machine["model_name"] + (f" (family {machine['family']}, model {machine['model']})" if machine["family"] else "")
        rows = [["processor", name + (f", virtual ({machine['hypervisor']})" if machine["hypervisor"] else "")],
                ["instructions", flags], ["cores", f"{machine['cores']}"], ["memory", f"{machine['memory_gib']} GiB"],
                ["model", self.results["model"]], ["program", "; ".join(self.results["program"])]]
        versions = self.results["parts"].get("step", {}).get("versions")
        if versions:
            rows.append(["peers", ", ".join(f"{what} {which}" for what, which in versions.items())])
        self.out += table(["", ""], rows)
        measured = {name: part["measured"] for name, part in self.results["parts"].items()}
        repeats = " or ".join(sorted({str(m["repeat"]) for m in measured.values()}))
        self.add(f"One thread a process. Medians (of {repeats}) of runs in turn with what stands beside them, or of rounds after the first. "
                 "Figures with × say how many times better fsllm_hpc, or more ranks, are. Tokens are those of rows, without padding.")
        busy = [f"{name} ({number(m['others_cores'], 2)})" for name, m in measured.items() if m["others_cores"] > 0.1]
        if busy:
            self.add("**Other programs ran beside some parts** (cores that they kept busy on average): " + ", ".join(busy) + ".")

    def step(self, part):
        rows = {(row["type"], row["who"]): row for row in part["rows"]}
        types = list(dict.fromkeys(row["type"] for row in part["rows"]))
        names = {"fsllm_hpc": "fsllm_hpc", "plain": "transformers + peft", "compiled": "the same, torch.compile"}
        there = [who for who in names if any((dtype, who) in rows for dtype in types)]
        self.section(
            "A training step beside transformers + peft",
            f"Clients with their own Dolly rows: {part['clients']}; rounds: {part['rounds']}; steps a turn: {part['steps']}; rows a step: "
            f"{part['batch']}, of up to {part['max_len']} tokens; LoRA r 8 on q and v; {part['tokens']:,} tokens, the same on both sides, "
            "which is checked.")
        table_rows = []
        for dtype in types:
            mine = rows[dtype, "fsllm_hpc"]
            bound = rows[dtype, "products"]["tokens_per_second"]
            for who in there:
                row = rows.get((dtype, who))
                if row is None:
                    continue
                other = who != "fsllm_hpc"
                rate, memory, first = row["tokens_per_second"], row["peak_rss_mib"], row["first_step_done_s"]
                table_rows.append([dtype, names[who], number(rate), times(mine["tokens_per_second"] / rate) if other else "", number(memory),
                                   times(memory / mine["peak_rss_mib"]) if other else "",
                                   number(first) + ("" if other else f" (from shards {number(mine['from_shards_s'])})"),
                                   times(first / mine["first_step_done_s"]) if other else "", number(rate / bound, 2)])
        self.out += table(["type", "", "tokens/s", "fsllm_hpc is faster by", "peak memory, MiB", "smaller by", "first step done, s", "sooner by",
                           "share of bare products"], table_rows)
        others = [row for row in part["rows"] if row["who"] in ("plain", "compiled")]
        if others:
            best = max((row for row in part["rows"] if row["who"] == "fsllm_hpc"), key=lambda row: row["tokens_per_second"])
            peer = max(others, key=lambda row: row["tokens_per_second"])
            self.add(f"Each in its best type: {number(best['tokens_per_second'])} ({best['type']}) against "
                     f"{number(peer['tokens_per_second'])} ({peer['type']}, {names[peer['who']]}): "
                     f"**{times(best['tokens_per_second'] / peer['tokens_per_second'])}**.")
        if any(row["who"] == "compiled" for row in others):
            self.add("torch.compile: measured once a type, its fastest round after the first counts; the first step contains the "
                     "compilation.")
        value = lambda dtype, who: rows[dtype, who]["tokens_per_second"] if (dtype, who) in rows else None
        series = [(names[who], [value(dtype, who) for dtype in types]) for who in there]
        self.plot("step", bars("Training, one thread", "tokens/s", types, series + [("bare products", [value(d, "products") for d in types])]),
                  "tokens a second of fsllm_hpc and its peers")

    def size(self, part):
        self.section(
            "Against the model's size",
            f"Random weights in the model's shape with fewer layers, one client, steps of {part['batch']} rows of {part['length']} tokens. "
            "The bound are matrix products of the same shapes and nothing else (`gemm_bench`).")
        rows = part["rows"]
        self.out += table(["layers", "parameters, millions", "type", "tokens/s", "share of bare products", "peak memory, MiB", "first step done, s"],
                          [[f"{r['layers']}", number(r["parameters"] / 1e6), r["type"], number(r["tokens_per_second"]),
                            number(r["tokens_per_second"] / r["bound"], 2), number(r["peak_mib"]), number(r["first_step_s"])] for r in rows])
        types = list(dict.fromkeys(r["type"] for r in rows))
        series = []
        for dtype in types:
            series.append((dtype, [(r["parameters"] / 1e6, 1e3 / r["tokens_per_second"]) for r in rows if r["type"] == dtype]))
            series.append((f"{dtype}, bare products", [(r["parameters"] / 1e6, 1e3 / r["bound"]) for r in rows if r["type"] == dtype]))
        self.plot("size", lines("Time of a token against the model's size", "millions of parameters", "milliseconds a token", series, log_x=False),
                  "milliseconds a token against parameters")

    def length(self, part):
        self.section(
            "Against the length of rows",
            f"One client, steps of {part['tokens']} tokens in rows of the same length.")
        rows = part["rows"]
        types = list(dict.fromkeys(r["type"] for r in rows))
        self.out += table(["tokens a row", "rows", "type", "tokens/s", "of the shortest rows'", "peak memory, MiB"],
                          [[f"{r['length']}", f"{r['rows']}", r["type"], number(r["tokens_per_second"]),
                            number(r["tokens_per_second"] / next(q["tokens_per_second"] for q in rows if q["type"] == r["type"]), 2),
                            number(r["peak_mib"])] for r in rows])
        self.plot("length", lines("Training speed against the length of rows", "tokens a row", "tokens/s",
                                  [(t, [(r["length"], r["tokens_per_second"]) for r in rows if r["type"] == t]) for t in types]),
                  "tokens a second against the length of rows")

    def clients(self, part):
        rows, target = part["rows"], part["target"]
        least = min(r["batch"] * r["length"] for r in rows)
        small = [r for r in rows if r["batch"] * r["length"] == least]
        self.section(
            "Against the number of clients",
            "One rank, LoRA r 8 on q and v, a checkpoint after every round. After training: what of "
            "the time from the end of a round to that of the next lies outside `train` of `metrics.jsonl`: aggregation, reports, the "
            "checkpoint. All outside steps: what lies outside the clients' own seconds (`metrics_clients.jsonl`), which is also the start "
            "of each turn and the addition of its update. With one step of one short row a turn both are as large as they can be.")
        self.out += table(["clients", "steps a turn", "rows × tokens a step", "a round, s", "after training", "all outside steps",
                           "starts of turns, additions, s", "aggregation, s", "reports, checkpoint, s", "peak memory, MiB"],
                          [[f"{r['clients']}", f"{r['steps']}", f"{r['batch']} × {r['length']}", number(r["round_s"]),
                            percent(r["after_training"]), percent(r["not_training"]), number(r["phase_s"] - r["trained_s"], 2),
                            number(r["aggregate_s"], 2), number(r["between_s"], 2), number(r["peak_mib"])] for r in rows])
        for r in rows:
            if r["clients"] >= 100:
                share = lambda x: f"{percent(x)} ({'reached' if x <= target else 'missed'})"
                self.add(f"The target is {percent(target)} at 100 clients. With {r['batch']} × {r['length']} tokens a step: "
                         f"{share(r['after_training'])} after training, {share(r['not_training'])} with all outside steps.")
        series = []
        for steps in sorted({r["steps"] for r in small}):
            series.append((f"all outside steps, {steps} step{'s' * (steps > 1)} a turn",
                           [(r["clients"], 100 * r["not_training"]) for r in small if r["steps"] == steps]))
        series.append(("after training, 1 step a turn", [(r["clients"], 100 * r["after_training"]) for r in small if r["steps"] == 1]))
        self.plot("clients", lines("Share of a round that is not training", "clients", "% of a round", series, log_y=True,
                                   mark=(100 * target, "target at 100 clients")), "share of a round that is not training")

    def scaling(self, strong, weak):
        self.section(
            "More ranks",
            "Strong scaling: the same eight clients on more ranks. Weak scaling: two clients a rank. Seconds are those of a round, "
            "aggregation included.")
        parts = [(name, part) for name, part in (("strong", strong), ("weak", weak)) if part]
        rows, series = [], []
        for name, part in parts:
            one = part["rows"][0]
            for r in part["rows"]:
                speed = r["tokens"] / r["seconds"] / (one["tokens"] / one["seconds"])
                rows.append([name, ranks_text(r["ranks"], part["cores"]), f"{r['clients']}", number(r["seconds"]), times(speed),
                             number(speed / min(r["ranks"], part["cores"]), 2), percent(r["aggregate"] / r["seconds"])])
            series.append((f"{name} scaling", [(r["ranks"], r["tokens"] / r["seconds"] / (one["tokens"] / one["seconds"])) for r in part["rows"]]))
        self.out += table(["", "ranks", "clients", "a round, s", "tokens/s against one rank", "of the cores' ideal", "aggregation's share"], rows)
        ranks = [r["ranks"] for r in parts[0][1]["rows"]]
        cores = parts[0][1]["cores"]
        self.crowded(ranks)
        series.append(("bound of the cores", [(n, min(n, cores)) for n in ranks]))
        machine = f"ranks (the machine has {cores} core{'s' * (cores > 1)})"
        self.plot("scaling", lines("Speed on more ranks", machine, "tokens/s against one rank", series),
                  "tokens a second on more ranks against one")

    def attention(self, part):
        heads, kv, dim = part["shape"]
        self.section(
            "Attention",
            f"Forward and backward on one core, {heads} heads over {kv} of {dim}, beside LibTorch's fused kernel and its batched products "
            "with a softmax; best of seven.")
        short = {"Float": "fp32", "BFloat16": "bf16"}
        self.out += table(["type", "rows of tokens", "ms", "GFLOP/s", "fused, ms", "", "products, ms", ""],
                          [[short.get(r["type"], r["type"]), f"{r['rows']} of {r['length']}", number(r["ms"]), number(r["gflops"]),
                            number(r["fused_ms"]), times(r["fused_ms"] / r["ms"]), number(r["products_ms"]),
                            times(r["products_ms"] / r["ms"])] for r in part["rows"]])
        groups = [f"{short.get(r['type'], r['type'])}, {r['rows']} × {r['length']}" for r in part["rows"]]
        self.plot("attention", bars("Attention: how much longer LibTorch needs", "times fsllm_hpc's time", groups,
                                    [("fused kernel", [r["fused_ms"] / r["ms"] for r in part["rows"]]),
                                     ("batched products", [r["products_ms"] / r["ms"] for r in part["rows"]])]),
                  "time of LibTorch's attention against ours")

    def loss(self, part):
        r = part["rows"][0]
        self.section(
            "Loss",
            f"Loss and gradients of a tied head that learns, {r['tokens']} tokens, {r['vocabulary']:,} × {r['hidden']}: a chunk of logits at "
            f"a time, beside LibTorch's cross-entropy over all ({number(r['logits_mib'])} MiB of logits). Both hold "
            f"{number(r['gradients_mib'])} MiB of gradients.")
        self.out += table(["", "chunks", "all logits", ""], [
            ["seconds", number(r["chunks_seconds"]), number(r["all_seconds"]), times(r["all_seconds"] / r["chunks_seconds"])],
            ["memory at the peak, MiB", number(r["chunks_peak_mib"]), number(r["all_peak_mib"]),
             times(ratio(r["all_peak_mib"], r["chunks_peak_mib"]))]])

    def reduce(self, part):
        self.section(
            "Sums over ranks",
            f"Sum and broadcast of {part['mib']} MiB a rank beside MPI's own on the same ranks (`comm_bench`), best of nine.")
        self.out += table(["ranks", "", "ms", "GB/s", "faster than MPI's", "times memcpy's time"],
                          [[ranks_text(r["ranks"], self.cores), r["what"], number(r["ms"]), number(r["gb_per_second"]),
                            times(r["mpi_ratio"]), number(r["memcpy_ratio"])] for r in part["sums"]])
        self.add("A round without training (`round_bench`): clients' updates are added, reduced, the server steps, the ranks get the new "
                 "state; `memcpy` of the bytes that must move, by as many ranks, beside it.")
        self.out += table(["clients", "MB each", "sums", "ranks", "a round, ms", "memcpy, ms", "times memcpy's time"],
                          [[f"{r['clients']}", number(r["bytes"] / 1e6), r["reduce"], ranks_text(r["ranks"], self.cores), number(1e3 * r["seconds"]),
                            number(1e3 * r["memcpy_seconds"]), number(r["ratio"])] for r in part["rounds"]])
        self.crowded([r["ranks"] for r in part["rounds"]])
        if part["server"]:
            self.add("The server's part (`aggregation_bench`):")
            self.add(*[f"- {line}" for line in part["server"]])

    def load(self, part):
        self.section(
            "Start",
            f"From mpirun to the end of the first step, shards made beforehand, the model's files {number(part['model_mib'])} MiB in the "
            "page cache; an empty program of LibTorch and MPI, and one read of the model, beside it (`startup_bench.py`).")
        self.out += table(["ranks", "to the first step, s", "empty program, s", "one read, s", "times empty program and read"],
                          [[ranks_text(r["ranks"], self.cores), number(r["first_step_s"]), number(r["empty_s"]), number(r["read_s"]),
                            number(r["first_step_s"] / (r["empty_s"] + r["read_s"]))] for r in part["rows"]])

    def shard(self, part):
        self.section(
            "Preparing data",
            f"`fsllm_shard` over {part['count']:,} Dolly rows for eight clients, rows of up to {part['tok_len']} tokens, start included.")
        one = part["rows"][0]["seconds"]
        self.out += table(["ranks", "s", "rows/s", "against one rank"],
                          [[ranks_text(r["ranks"], self.cores), number(r["seconds"]), number(r["rows_per_second"]), times(one / r["seconds"])]
                           for r in part["rows"] if "slow_seconds" not in r])
        for r in part["rows"]:
            if "slow_seconds" in r:
                self.add(f"With a SentencePiece tokenizer, one rank: {number(r['seconds'])} s against {number(r['slow_seconds'])} s of "
                         f"FederatedScope-LLM's way (slow tokenizers): {times(r['slow_seconds'] / r['seconds'])}.")
        for r in part["tokenizers"]:
            self.add(f"Tokenising alone: {number(r['mb_per_second'])} MB/s against {number(r['their_mb_per_second'])} of Hugging Face's "
                     f"`tokenizers`, the same tokens: {times(r['mb_per_second'] / r['their_mb_per_second'])}.")
        self.crowded([r["ranks"] for r in part["rows"]])

    def checkpoint(self, part):
        self.section(
            "Checkpoints",
            "What a checkpoint after every round adds to the time between two rounds, with its SHA-256 and fsync, beside a bare write and "
            f"fsync of as many bytes to the same place ({part['file_system']}) and their SHA-256 in Python.")
        self.out += table(["", "MB", "s", "MB/s", "bare write, s", "SHA-256, s", "times write and SHA-256"],
                          [[r["what"], number(r["bytes"] / 1e6), number(r["seconds"]),
                            number(ratio(r["bytes"] / 1e6, r["seconds"])), number(r["write_seconds"]), number(r["sha256_seconds"]),
                            number(r["seconds"] / (r["write_seconds"] + r["sha256_seconds"]))]
                           for r in part["rows"]])

    def write(self):
        parts = self.results["parts"]
        self.head()
        for name in ("step", "size", "length", "clients", "scaling", "attention", "loss", "reduce", "load", "shard", "checkpoint"):
            if name == "scaling":
                if "strong" in parts or "weak" in parts:
                    self.scaling(parts.get("strong"), parts.get("weak"))
            elif name in parts:
                getattr(self, name)(parts[name])
                if parts[name].get("notes"):
                    self.add("Left out: " + "; ".join(parts[name]["notes"]) + ".")
        return "\n".join(self.out).rstrip() + "\n"


def write(results_path, page_path):
    results = read(results_path)
    try:
        page = Page(results, page_path.parent)
        text = page.write()
        fresh = page_path.with_name(page_path.name + ".part")
        fresh.write_text(text, encoding="utf-8")
        os.replace(fresh, page_path)
    except OSError as error:
        raise Unreadable(f"{page_path} cannot be written ({error}). Give a page in a folder that exists.") from error
    except (LookupError, TypeError, ValueError, ZeroDivisionError) as error:
        raise Unreadable(f"{results_path} lacks what the page shows ({error!r}). Measure anew.") from error
    print(f"{page_path}: {', '.join(page.results['parts'])}")
