# SPDX-License-Identifier: Apache-2.0
"""Greedy answers of transformers (+ peft): greedy_texts.py PROMPTS.jsonl MODEL_DIR ADAPTER_DIR TEXTS.jsonl ...

Any number of the last three; ADAPTER_DIR "-": the model alone. A prompt is a line {"id", "context", "max_tokens"}.
The tokenizer is that of the adapter's folder, or of the model's."""
import json
import os
import sys

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

torch.set_num_threads(1)
prompts = [json.loads(line) for line in open(sys.argv[1])]
for model_dir, adapter_dir, texts in zip(*[iter(sys.argv[2:])] * 3):
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(model_dir if adapter_dir == "-" else adapter_dir)
    if adapter_dir != "-":
        model = PeftModel.from_pretrained(model, adapter_dir)
    model.eval()
    bos = model.config.bos_token_id
    with open(texts, "w") as out, torch.no_grad():
        for prompt in prompts:
            ids = tokenizer(prompt["context"], add_special_tokens=False)["input_ids"]
            x = torch.tensor([[bos, *ids]])
            answer = model.generate(input_ids=x, attention_mask=torch.ones_like(x), do_sample=False,
                                    max_new_tokens=prompt["max_tokens"], pad_token_id=0)[0, x.shape[1]:]
            print(json.dumps({"id": prompt["id"], "ids": answer.tolist()}), file=out)
