# SPDX-License-Identifier: Apache-2.0
"""Beam search of fsllm_eval beside transformers' on the same prompts, token for token.

    python tests/e2e/beams.py FSLLM_EVAL MODEL...
"""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from transformers import AutoModelForCausalLM

torch.set_num_threads(1)
program, models = sys.argv[1], sys.argv[2:]
different = compared = greedy = 0
for folder in models:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    vocab = model.config.vocab_size
    requests, expected = [], []
    eos = model.generation_config.eos_token_id
    for n, (beams, penalty, length) in enumerate(((2, 1.0, 5), (4, 1.0, 9), (3, 0.0, 12), (5, 2.0, 20))):
        ids = [(17 * n + 5 * i * i + 3 * i + 7) % vocab for i in range(length)]
        x = torch.tensor([ids])
        kept = dict(max_new_tokens=12, do_sample=False, attention_mask=torch.ones_like(x), pad_token_id=0)
        theirs = model.generate(x, num_beams=beams, length_penalty=penalty, **kept)[0, length:].tolist()
        plain = model.generate(x, **kept)[0, length:].tolist()
        ends = {eos} if isinstance(eos, int) else set(eos or [])
        theirs = theirs[: next((i for i, t in enumerate(theirs) if t in ends), len(theirs))]
        greedy += plain[: len(theirs)] == theirs
        expected.append(theirs)
        requests.append({"id": n, "type": "generate_until", "context_ids": ids, "until": [], "max_tokens": 12,
                         "num_beams": beams, "length_penalty": penalty})
    with tempfile.TemporaryDirectory() as out:
        asked, answered = Path(out, "in.jsonl"), Path(out, "out.jsonl")
        asked.write_text("".join(json.dumps(r) + "\n" for r in requests))
        subprocess.run([program, "--model", folder, "--requests", asked, "--responses", answered], check=True)
        for line, theirs in zip(answered.read_text().splitlines(), expected):
            ours = json.loads(line)["ids"]
            compared += 1
            if ours != theirs:
                different += 1
                print(f"{folder}: {ours} instead of {theirs}")
print(f"{compared} texts compared, {different} different, {greedy} what greedy choice gives too")
sys.exit(different > 0 or compared == 0 or greedy == compared)
