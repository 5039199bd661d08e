#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Brings a run of fsllm_hpc into Weights & Biases, from its metrics.jsonl, summary.json and config.yaml.

    fsllm_wandb.py RUN [--project NAME] [--entity NAME] [--name NAME] [--id ID] [--dir DIR]

Every round becomes a step with all numbers of its event under their paths ("val/loss_per_token"). A run keeps its id, so
that a later call adds the rounds that came since. WANDB_MODE=offline writes to DIR/wandb, for `wandb sync` later. Needs the
package wandb (pip install wandb).
"""
import argparse
import hashlib
import json
import math
import os
import sys


def fail(message):
    print("error: " + message, file=sys.stderr)
    sys.exit(2)


def numbers(value, path=""):
    """{"val": {"loss_per_token": 2.5}} as {"val/loss_per_token": 2.5}; what is no finite number is left out."""
    if isinstance(value, dict):
        return {k: v for name, part in value.items() for k, v in numbers(part, f"{path}/{name}" if path else name).items()}
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return {path: value} if good else {}


def read_rounds(path):
    """Round → its numbers; a line that is damaged, or not whole yet, is left out with a warning."""
    rounds = {}
    with open(path, encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            try:
                event = json.loads(line)
                kind, step = event["event"], event["round"]
                if isinstance(step, bool) or not isinstance(step, int) or step < 0:
                    raise ValueError("round")
            except (ValueError, KeyError, TypeError, RecursionError):
                print(f"warning: {path}:{number} is damaged and left out", file=sys.stderr)
                continue
            if kind in ("start", "round", "tasks"):
                facts = numbers({k: v for k, v in event.items() if k not in ("event", "round")})
                rounds.setdefault(step, {}).update(facts)
    return dict(sorted(rounds.items()))


def read_config(run):
    import yaml  # comes with wandb

    path = os.path.join(run, "config.yaml")
    try:
        with open(path, encoding="utf-8") as file:
            config = yaml.safe_load(file)
    except yaml.YAMLError as error:
        fail(f"{path} is no YAML ({str(error).splitlines()[0]}). Restore it.")
    return config if isinstance(config, dict) else {}


def main():
    parser = argparse.ArgumentParser(prog="fsllm_wandb.py", description="Brings a run of fsllm_hpc into Weights & Biases.")
    parser.add_argument("run", help="run directory: outdir/expname")
    parser.add_argument("--project", default="fsllm_hpc")
    parser.add_argument("--entity")
    parser.add_argument("--name", help="default: the folder's name")
    parser.add_argument("--id", help="default: follows from the run's configuration and inputs")
    parser.add_argument("--dir", default=".", help="where wandb keeps its files")
    given = parser.parse_args()
    for name in ("config.yaml", "metrics.jsonl"):
        if not os.path.isfile(os.path.join(given.run, name)):
            fail(f"{given.run} holds no run that has begun (no {name} there). Give outdir/expname of a run.")
    try:
        import wandb
    except ImportError:
        fail("the Python package wandb is missing. Install it: pip install wandb.")
    config, rounds = read_config(given.run), read_rounds(os.path.join(given.run, "metrics.jsonl"))
    identity = hashlib.sha256()
    for name in ("config.yaml", "run.json"):
        path = os.path.join(given.run, name)
        identity.update(open(path, "rb").read() if os.path.isfile(path) else b"")
    run = wandb.init(project=given.project, entity=given.entity, name=given.name or os.path.basename(os.path.realpath(given.run)),
                     id=given.id or "fsllm-" + identity.hexdigest()[:16], resume="allow", config=config, dir=given.dir,
                     settings=wandb.Settings(console="off", save_code=False, disable_git=True))  # nothing of this machine
    run.define_metric("round")
    run.define_metric("*", step_metric="round")
    begin = run.step  # of an earlier call
    for step, facts in rounds.items():
        if step >= begin:
            run.log({"round": step, **facts}, step=step)
    summary = os.path.join(given.run, "summary.json")
    if os.path.isfile(summary):
        with open(summary, encoding="utf-8") as file:
            try:
                run.summary.update(numbers({k: v for k, v in json.load(file).items() if k != "event"}))
            except (ValueError, AttributeError):
                print(f"warning: {summary} is damaged and left out", file=sys.stderr)
    run.finish()
    print(f"{len(rounds)} rounds of {given.run} are in the W&B project {given.project} as {run.id}")


if __name__ == "__main__":
    main()
