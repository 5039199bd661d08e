# SPDX-License-Identifier: Apache-2.0
"""An adapter folder with tokens of its own, read, scored and written again with transformers + peft.

    added_tokens.py BASE_DIR ADAPTER_DIR REQUESTS.jsonl AGAIN_DIR > SCORES.jsonl

The tokenizer comes from ADAPTER_DIR, and the base model's embeddings are resized to it. A request has "id", "context"
and "continuation"; a score "id", "ids" (of both) and "loglikelihood". AGAIN_DIR gets what peft and transformers save.
"""
import json
import os
import sys

os.environ["CUDA_VISIBLE_DEVICES"] = ""
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base_dir, adapter_dir, requests, again_dir = sys.argv[1:5]
torch.set_num_threads(1)
tokenizer = AutoTokenizer.from_pretrained(adapter_dir)
base = AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.float32, attn_implementation="eager")
base.resize_token_embeddings(len(tokenizer))
model = PeftModel.from_pretrained(base, adapter_dir)
# peft asks the hub for the vocabulary of base_model_name_or_path, and leaves the embeddings out where it cannot.
model.save_pretrained(again_dir, save_embedding_layers=True)
tokenizer.save_pretrained(again_dir)
model = model.double().eval()
for line in open(requests):
    request = json.loads(line)
    ids = tokenizer(request["context"] + request["continuation"]).input_ids
    start = len(tokenizer(request["context"]).input_ids)
    with torch.no_grad():
        logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    total = sum(logs[i - 1, ids[i]].item() for i in range(start, len(ids)))
    print(json.dumps({"id": request["id"], "ids": ids, "loglikelihood": total}))
