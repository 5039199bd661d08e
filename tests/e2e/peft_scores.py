# SPDX-License-Identifier: Apache-2.0
"""Scores id requests with transformers + peft: peft_scores.py MODEL_DIR ADAPTER_DIR REQUESTS.jsonl > SCORES.jsonl"""
import json
import os
import sys

os.environ["CUDA_VISIBLE_DEVICES"] = ""
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

model_dir, adapter_dir, requests = sys.argv[1:4]
torch.set_num_threads(1)
base = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float64, attn_implementation="eager")
model = PeftModel.from_pretrained(base, adapter_dir).double().eval()
for line in open(requests):
    request = json.loads(line)
    context, continuation = request["context_ids"], request["continuation_ids"]
    ids = torch.tensor([context + continuation])
    with torch.no_grad():
        logs = model(ids).logits[0].log_softmax(-1)
    total = sum(logs[len(context) - 1 + i, token].item() for i, token in enumerate(continuation))
    print(json.dumps({"id": request["id"], "loglikelihood": total}))
