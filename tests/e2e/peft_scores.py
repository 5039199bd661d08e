# SPDX-License-Identifier: Apache-2.0
"""Scores id requests with transformers + peft: peft_scores.py REQUESTS.jsonl MODEL_DIR ADAPTER_DIR SCORES.jsonl ...

Any number of the last three; ADAPTER_DIR "-": the model alone."""
import json
import os
import sys

os.environ["CUDA_VISIBLE_DEVICES"] = ""
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

torch.set_num_threads(1)
requests = [json.loads(line) for line in open(sys.argv[1])]
for model_dir, adapter_dir, scores in zip(*[iter(sys.argv[2:])] * 3):
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float64, attn_implementation="eager")
    if adapter_dir != "-":
        model = PeftModel.from_pretrained(model, adapter_dir).double()
    model.eval()
    with open(scores, "w") as out, torch.no_grad():
        for request in requests:
            context, continuation = request["context_ids"], request["continuation_ids"]
            logs = model(torch.tensor([context + continuation])).logits[0].log_softmax(-1)
            total = sum(logs[len(context) - 1 + i, token].item() for i, token in enumerate(continuation))
            print(json.dumps({"id": request["id"], "loglikelihood": total}), file=out)
