# SPDX-License-Identifier: Apache-2.0
"""Greedy answers of llama.cpp (llama-cpp-python): llama_texts.py PROMPTS.jsonl MODEL.gguf LORA.gguf TEXTS.jsonl ...

Any number of the last three; LORA.gguf "-": the model alone. Exit code 77 where the package is not installed."""
import json
import sys

try:
    from llama_cpp import Llama
except ImportError as problem:
    print(problem)
    sys.exit(77)

prompts = [json.loads(line) for line in open(sys.argv[1])]
for model, lora, texts in zip(*[iter(sys.argv[2:])] * 3):
    llama = Llama(model_path=model, lora_path=None if lora == "-" else lora, n_ctx=512, n_threads=1, n_batch=512,
                  flash_attn=False, verbose=False)
    with open(texts, "w") as out:
        for prompt in prompts:
            ids = prompt.get("context_ids") or llama.tokenize(prompt["context"].encode(), add_bos=True, special=True)
            answer = []
            for token in llama.generate(ids, top_k=1, temp=0.0, repeat_penalty=1.0, reset=True):
                if token == llama.token_eos() or len(answer) == prompt["max_tokens"]:
                    break
                answer.append(token)
            print(json.dumps({"id": prompt["id"], "prompt_ids": ids, "ids": answer}), file=out)
