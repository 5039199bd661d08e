# SPDX-License-Identifier: Apache-2.0
"""Every example is checked, trained for two steps a client, and held against the JSON Schema; all other configurations of
configs/ are held against it too, wrong ones are refused by it and by --check, and a run's own config.yaml is read by another
reader of YAML and runs again to the same bits.

    python3 tests/examples/check_examples.py --bin build/release/bin --data FSLLM_TEST_DATA [--only NAME,...]
"""
import argparse
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import jsonschema
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "configs" / "examples"
# What stands between a test's seconds and a run of hours: the model, and the number of rounds and steps.
SMALL = {"federate.total_round_num": "1", "train.local_update_steps": "2", "data.subsample": "0.1", "eval.freq": "1"}
failures = []


def fail(what):
    print(f"FAILED: {what}", flush=True)
    failures.append(what)


def run(command, **more):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=240, **more)


def special(name, a, work):
    """What an example needs beside the small model: keys, words before the program, words behind it."""
    keys, launcher, more = {}, [], []
    if name == "lora-gsm8k":
        keys = {"data.root": work / "gsm8k"}
    elif name == "own-data":
        keys = {"data.root": work}
    elif name == "dpo":
        keys = {"data.root": work}
    elif name == "bitfit":
        keys = {"model.type": ROOT / "tests/reference/gpt2", "llm.tok_len": "16", "data.root": work, "data.type": "tokens.jsonl",
                "data.splitter": "iid", "data.subsample": "1"}  # a model without tokenizer
    elif name == "offsite":
        keys = {"llm.offsite_tuning.emu_l": "1", "llm.offsite_tuning.emu_r": "4", "llm.offsite_tuning.emu_align.train.local_update_steps": "2"}
    elif name == "full-partitioned":
        keys = {"llm.tok_len": "128", "dataloader.batch_size": "4"}
        launcher = ["mpirun", "-np", "4"]
    elif name == "several-nodes":
        keys = {"data.subsample": "1"}
    elif name == "asynchronous":
        keys = {"federate.total_round_num": "2"}
    elif name == "fedswa":
        keys = {"fedswa.start_rnd": "1"}
    elif name == "tasks":
        keys = {"eval.task_data": a.data / "datasets", "eval.task_limit": "1"}
    elif name == "per-client":
        more = ["--client_cfg", EXAMPLES / "per-client.clients.yaml"]
    return keys, launcher, more


def words(keys):
    return [f"{key}={value}" for key, value in keys.items()]


def check_example(a, work, schema, name):
    text = run([a.bin / "fsllm_hpc", "--example", name])
    if text.stdout != (EXAMPLES / f"{name}.yaml").read_text():
        return fail(f"--example {name} is not configs/examples/{name}.yaml")
    document = yaml.safe_load(text.stdout)
    for error in schema.iter_errors(document):
        fail(f"{name}: {error.json_path}: {error.message}")
    keys, launcher, more = special(name, a, work)
    keys = {"model.type": a.data / "models/stories260K", "data.prompt_template": "plain", "outdir": work / "exp", **SMALL,
            "data.root": ROOT / "datasets/quickstart", **keys}
    if name == "offsite":
        keys["llm.offsite_tuning.emu_align.data.root"] = keys["data.root"]
    program = [*launcher, a.bin / "fsllm_hpc", "--cfg", f"example:{name}", *words(keys), *more]
    for what in (["--check"], []):
        done = run([*program, *what])
        if done.returncode != 0:
            return fail(f"{name} {' '.join(what)}: exit code {done.returncode}\n{done.stderr}")
    events = [json.loads(line) for line in (work / "exp" / name / "metrics.jsonl").read_text().splitlines()]
    if events[-1]["event"] != "end" or not any(event["event"] == "round" and event["train"]["steps"] >= 2 for event in events):
        fail(f"{name}: no round with two steps, or no end: {events}")
    resolved = yaml.safe_load((work / "exp" / name / "config.yaml").read_text())
    for error in schema.iter_errors(resolved):
        fail(f"{name}: its config.yaml: {error.json_path}: {error.message}")


def adapter_hash(folder):
    return hashlib.sha256((folder / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


def numbers_as_texts(node, path=""):
    """Paths of values that YAML 1.1 took for texts although they are numbers, as 1e-08."""
    if isinstance(node, dict):
        return [found for key, value in node.items() for found in numbers_as_texts(value, f"{path}.{key}")]
    if isinstance(node, list):
        return [found for value in node for found in numbers_as_texts(value, path)]
    try:
        return [path] if isinstance(node, str) and path != ".expname" and float(node) is not None else []
    except ValueError:
        return []


def check_rerun(a, work):
    """A run's config.yaml, as it is, gives the run again."""
    first = work / "exp" / "lora"
    again = work / "again.yaml"
    document = yaml.safe_load((first / "config.yaml").read_text())
    if texts := numbers_as_texts(document):
        fail(f"config.yaml: numbers that are texts to PyYAML: {texts}")
    for unread in ("fedopt", "offsite_tuning", "num_virtual_tokens", "asyn", "momentum"):
        if unread in (first / "config.yaml").read_text():
            fail(f"config.yaml of a LoRA run names {unread}")
    printed = run([a.bin / "fsllm_hpc", "--cfg", first / "config.yaml", "--print-config"]).stdout
    if yaml.safe_load(printed) != document:
        fail("--print-config of a config.yaml is another configuration")
    again.write_text(yaml.safe_dump(document | {"expname": "again"}))
    done = run([a.bin / "fsllm_hpc", "--cfg", again])
    if done.returncode != 0:
        return fail(f"config.yaml does not run again:\n{done.stderr}")
    if adapter_hash(first) != adapter_hash(work / "exp" / "again"):
        fail("config.yaml runs again to another adapter")


# Names below these are the user's, or those of files, tasks and variables.
NAMES_OF_OTHERS = {"inputs", "result", "environment", "job", "tasks", "searched"}


def fields_in(node):
    if isinstance(node, list):
        return {name for item in node for name in fields_in(item)}
    if not isinstance(node, dict):
        return set()
    return set(node) | {name for key, value in node.items() if key not in NAMES_OF_OTHERS for name in fields_in(value)}


def check_fields(work):
    """docs/FORMATS.md names every field of what the examples' runs have written."""
    text = (ROOT / "docs" / "FORMATS.md").read_text()
    fields = set()
    for path in (work / "exp").glob("*/*.json*"):
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        fields |= {(path.name, name) for line in lines for name in fields_in(json.loads(line))}
    unnamed = sorted({name for _, name in fields if not name.startswith("fedex.") and not re.search(rf"(?<![A-Za-z_]){re.escape(name)}(?![A-Za-z_])", text)})
    if unnamed:
        fail(f"docs/FORMATS.md does not name {unnamed}")
    print(f"docs/FORMATS.md names {len(fields)} fields")


def check_all_configurations(schema):
    paths = [path for path in sorted((ROOT / "configs").rglob("*.yaml")) if path.parent != EXAMPLES]
    checked = 0
    for path in paths:
        document = yaml.safe_load(path.read_text())
        if "base" in document or any(str(key).startswith("client_") for key in document):
            continue  # of a sweep; of single clients
        checked += 1
        for error in schema.iter_errors(document):
            fail(f"{path.relative_to(ROOT)}: {error.json_path}: {error.message}")
    print(f"{checked} more configurations fit the schema")


def nested(keys):
    tree = {}
    for path, value in keys.items():
        at = tree
        *above, name = path.split(".")
        for part in above:
            at = at.setdefault(part, {})
        at[name] = value
    return tree


def merged(one, other):
    if not isinstance(one, dict) or not isinstance(other, dict):
        return other
    return {key: merged(one[key], other[key]) if key in one and key in other else (other if key in other else one)[key]
            for key in {**one, **other}}


def check_wrong(a, work, schema):
    good = {"outdir": str(work / "exp"), "model": {"type": str(a.data / "models/stories260K")},
            "data": {"root": str(ROOT / "datasets/quickstart"), "type": "train.jsonl", "prompt_template": "plain"},
            "federate": {"client_num": 2}, "llm": {"adapter": {"use": True}}}
    path = work / "wrong.yaml"
    path.write_text(yaml.safe_dump(good))
    if (done := run([a.bin / "fsllm_hpc", "--cfg", path, "--check"])).returncode != 0 or list(schema.iter_errors(good)):
        return fail(f"the good configuration is refused: {done.stderr}")
    wrong = yaml.safe_load((pathlib.Path(__file__).parent / "wrong.yaml").read_text())
    if len(wrong) < 60:
        fail(f"{len(wrong)} wrong configurations (60 are wanted)")
    for keys in wrong:
        document = merged(good, nested(keys))
        path.write_text(yaml.safe_dump(document))
        done = run([a.bin / "fsllm_hpc", "--cfg", path, "--check"])
        if done.returncode != 2:
            fail(f"{keys} passes --check: exit code {done.returncode}")
        if not list(schema.iter_errors(document)):
            fail(f"{keys} fits the schema")
    path.write_text(yaml.safe_dump(merged(good, nested({key: value for keys in wrong[:9] for key, value in keys.items() if key.startswith("train.optimizer")}))))
    told = run([a.bin / "fsllm_hpc", "--cfg", path, "--check"]).stderr
    if not told.startswith("error: 6 mistakes in the configuration"):
        fail(f"all mistakes are not told at once: {told}")
    print(f"{len(wrong)} wrong configurations are refused by both")


def check_words(a, work):
    """What the program prints where it is asked for names, less or more; and what run.json keeps."""
    hpc = a.bin / "fsllm_hpc"
    for what, name in (("models", "qwen2"), ("adapters", "p-tuning"), ("datasets", "gsm8k@llm"), ("splitters", "lda"), ("templates", "chatml"),
                       ("algorithms", "scaffold"), ("tasks", "mmlu"), ("examples", "qlora")):
        if f"  {name} " not in (out := run([hpc, "--list", what]).stdout):
            fail(f"--list {what} does not name {name}: {out}")
    for words, told in ((["--list", "model"], "Did you mean 'models'?"), (["--example", "lorra"], "Did you mean 'lora'?"),
                        (["--cfg", "example:lorra"], "Did you mean 'lora'?"), (["--quiet", "--verbose", "--list"], "Leave one of them out")):
        done = run([hpc, *words])
        if done.returncode != 2 or told not in done.stderr:
            fail(f"{words}: exit code {done.returncode}, {done.stderr}")
    headed = subprocess.run(f"{hpc} --describe | head -1; exit ${{PIPESTATUS[0]}}", shell=True, executable="/bin/bash", capture_output=True, text=True)
    if headed.returncode != 0 or headed.stderr or headed.stdout.count("\n") != 1:
        fail(f"--describe | head -1: exit code {headed.returncode}, {headed.stderr}")
    keys = words_of_small_run(a, work)
    silent = run([hpc, "--cfg", "example:own-data", *keys, "--quiet", "expname=quiet"])
    if silent.returncode != 0 or silent.stdout or silent.stderr:
        fail(f"--quiet: exit code {silent.returncode}, {silent.stdout}{silent.stderr}")
    told = run([hpc, "--cfg", "example:own-data", *keys, "--verbose", "expname=verbose"])
    if told.returncode != 0 or "client 1 trained 2 steps" not in told.stdout or "\r" in told.stdout or "\033" in told.stdout:
        fail(f"--verbose: exit code {told.returncode}, {told.stdout}{told.stderr}")
    if adapter_hash(work / "exp" / "quiet") != adapter_hash(work / "exp" / "verbose"):
        fail("--quiet and --verbose train different adapters")
    record = json.loads((work / "exp" / "quiet" / "run.json").read_text())
    start = record["starts"][0]
    if record["result"]["adapter/adapter_model.safetensors"] != adapter_hash(work / "exp" / "quiet"):
        fail("run.json has another hash of the adapter")
    if "--quiet" not in start["command"] or not start["hosts"] or start["ranks"] != 1 or len(start["commit"]) < 7:
        fail(f"run.json: starts: {start}")
    file = a.data / "models/stories260K/model.safetensors"
    if file.exists() and (done := run([hpc, "--cfg", "example:own-data", *keys, f"model.type={file}", "--check"])).returncode != 0:
        fail(f"model.type = a file of the model's folder: {done.stderr}")
    done = run([hpc, "--cfg", "example:own-data", *keys, "data.columns={}", "--check"])
    if done.returncode != 2 or "Write data.columns: {instruction: question, output: answer}." not in done.stderr:
        fail(f"columns under other names: exit code {done.returncode}, {done.stderr}")


def words_of_small_run(a, work):
    return words({"model.type": a.data / "models/stories260K", "data.prompt_template": "plain", "outdir": work / "exp", "data.root": work,
                  **SMALL, "data.subsample": "1"})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=lambda word: pathlib.Path(word).resolve())
    parser.add_argument("--data", required=True, type=lambda word: pathlib.Path(word).resolve())
    parser.add_argument("--only", default="", type=lambda word: word.split(",") if word else [])
    a = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "OMPI_MCA_mpi_yield_when_idle",
                 "OMPI_MCA_rmaps_base_oversubscribe"):
        os.environ.setdefault(name, "1")
    printed = run([a.bin / "fsllm_hpc", "--print-schema"]).stdout
    if printed != (EXAMPLES / "fsllm_hpc.schema.json").read_text():
        fail("configs/examples/fsllm_hpc.schema.json is old: fsllm_hpc --print-schema > configs/examples/fsllm_hpc.schema.json")
    jsonschema.Draft7Validator.check_schema(json.loads(printed))
    schema = jsonschema.Draft7Validator(json.loads(printed))
    names = sorted(path.name.removesuffix(".yaml") for path in EXAMPLES.glob("*.yaml"))
    listed = run([a.bin / "fsllm_hpc", "--list", "examples"]).stdout
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        (work / "gsm8k").mkdir()
        (work / "gsm8k" / "gsm8k_train.jsonl").symlink_to(a.data / "datasets/gsm8k/train.jsonl")
        (work / "faq.csv").write_text("question,answer\n" + "".join(f'"Where, at {n}, is it?","Room {n}"\n' for n in range(200)))
        ids = [[1 + (n + i) % 40 for i in range(12)] for n in range(60)]
        (work / "tokens.jsonl").write_text("".join(json.dumps({"input_ids": row, "labels": row}) + "\n" for row in ids))
        pairs = ({"prompt": f"Say {n}.", "chosen": f"{n}", "rejected": f"{n + 1}"} for n in range(200))
        (work / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
        for name in a.only or names:
            if f"  {name} " not in listed:
                fail(f"--list examples does not name {name}")
            if name != "per-client.clients":
                check_example(a, work, schema, name)
            print(name, flush=True)
        if not a.only or "lora" in a.only:
            check_rerun(a, work)
        if not a.only:
            check_words(a, work)
            check_fields(work)
            check_all_configurations(schema)
            check_wrong(a, work, schema)
    sys.exit(f"{len(failures)} failures" if failures else 0)


if __name__ == "__main__":
    main()
