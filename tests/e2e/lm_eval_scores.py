# SPDX-License-Identifier: Apache-2.0
"""Tasks by lm-evaluation-harness' hf backend, from local files, for tests/e2e/lm_eval_test.cpp.

    lm_eval_scores.py prepare MODEL_DIR OUT_DIR
        The model with its tokenizer as transformers writes it, which both programs read.
    lm_eval_scores.py score MODEL_DIR DATA_DIR LIMIT SHOTS TASK,... > SCORES.json
        {"results": {task: ...}, "samples": {task: [{"resps": ..., "raw": ..., "filter": ..., "metrics": ...}, ...]}}. The
        fields of each task are those of the installed package; only where its data lies, and the examples, differ.
"""
import contextlib
import csv
import json
import os
import shutil
import sys
import tempfile

os.environ.update(CUDA_VISIBLE_DEVICES="", HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
import torch

torch.set_num_threads(1)


def prepare(model_dir, out_dir):
    from transformers import AutoTokenizer

    os.makedirs(out_dir, exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(os.path.join(model_dir, name), out_dir)
    AutoTokenizer.from_pretrained(model_dir).save_pretrained(out_dir)


def fields(path):
    """Of a task's YAML, without what only the package itself can read."""
    import lm_eval
    import yaml

    class Plain(yaml.SafeLoader):
        pass

    Plain.add_constructor("!function", lambda loader, node: None)
    root = os.path.join(os.path.dirname(lm_eval.__file__), "tasks")
    with open(os.path.join(root, path)) as file:
        config = yaml.load(file, Plain)
    for key in ("tag", "dataset_name", "include", "task_alias"):
        config.pop(key, None)
    return config


def write_rows(folder, name, rows):
    path = os.path.join(folder, name + ".jsonl")
    with open(path, "w") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
    return path


def read_mmlu(data, split, subject):
    with open(os.path.join(data, "mmlu", split, f"{subject}_{split}.csv"), newline="") as file:
        rows = [row for row in csv.reader(file)]
    if rows[0][-1] == "answer":
        rows = rows[1:]
    return [{"question": r[0], "choices": r[1:5], "answer": int(r[5]) if r[5].isdigit() else "ABCD".index(r[5])} for r in rows]


def mmlu(data, folder, shots, subject):
    config = fields("mmlu/default/_default_template_yaml")
    files = {split: write_rows(folder, f"{subject}_{split}", read_mmlu(data, split, subject)) for split in ("dev", "test")}
    described = fields(f"mmlu/default/mmlu_{subject}.yaml")
    config.update(described, dataset_path="json", dataset_kwargs={"data_files": files}, num_fewshot=shots)
    return config


def lambada(data, folder):
    with open(os.path.join(data, "text", "lambada_test.jsonl")) as file:
        rows = [json.loads(line) for line in file]
    config = fields("lambada/lambada_openai.yaml")
    config.update(task="lambada", dataset_path="json", dataset_kwargs={"data_files": {"test": write_rows(folder, "lambada", rows)}})
    return config


def gsm8k(data, folder, shots):
    config = fields("gsm8k/gsm8k-cot.yaml")
    files = {"test": os.path.join(data, "gsm8k", "test.jsonl")}
    config.update(dataset_path="json", dataset_kwargs={"data_files": files}, num_fewshot=shots)
    return config


def choices(data, folder):
    """The user's own questions, in the harness' default format."""
    files = {"test": os.path.join(data, "own.jsonl")}
    return {"task": "own", "dataset_path": "json", "dataset_kwargs": {"data_files": files}, "output_type": "multiple_choice",
            "test_split": "test", "doc_to_text": "{{question}}", "doc_to_choice": "choices", "doc_to_target": "answer",
            "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")]}


def documents(data, folder):
    """wikitext's numbers of texts that need no detokenizer."""
    files = {"test": os.path.join(data, "texts.jsonl")}

    def numbers(doc, results):
        import re

        words, size = len(re.split(r"\s+", doc["text"])), len(doc["text"].encode())
        return {"word_perplexity": (results[0], words), "byte_perplexity": (results[0], size), "bits_per_byte": (results[0], size)}

    return {"task": "texts", "dataset_path": "json", "dataset_kwargs": {"data_files": files}, "output_type": "loglikelihood_rolling",
            "test_split": "test", "doc_to_text": "", "doc_to_target": "{{text}}", "process_results": numbers,
            "metric_list": [{"metric": name} for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")]}


def score(model_dir, data, limit, shots, names):
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    with tempfile.TemporaryDirectory() as folder:
        tasks = []
        for name in names:
            if name.startswith("mmlu_"):
                tasks.append(mmlu(data, folder, shots, name[len("mmlu_"):]))
            elif name == "gsm8k_cot":
                tasks.append(gsm8k(data, folder, shots))
            else:
                tasks.append({"lambada": lambada, "own": choices, "texts": documents}[name](data, folder))
        model = HFLM(pretrained=model_dir, device="cpu", dtype="float32", batch_size=8)
        with contextlib.redirect_stdout(sys.stderr):
            found = lm_eval.simple_evaluate(model=model, tasks=tasks, limit=limit or None, log_samples=True, bootstrap_iters=2)
    samples = {}
    for task, rows in found["samples"].items():
        for row in sorted(rows, key=lambda row: row["doc_id"]):
            numbers = {k: v for k, v in row.items() if isinstance(v, (int, float)) and k != "doc_id"}
            samples.setdefault(task, []).append({"resps": row["filtered_resps"], "raw": row["resps"], "filter": row["filter"], "metrics": numbers})
    json.dump({"results": found["results"], "samples": samples}, sys.stdout, default=str)


if sys.argv[1] == "prepare":
    prepare(*sys.argv[2:4])
else:
    model, data, limit, shots, names = sys.argv[2:7]
    score(model, data, int(limit), int(shots), names.split(","))
