# SPDX-License-Identifier: Apache-2.0
"""Greedy answers of llama.cpp: llama_texts.py PROMPTS.jsonl MODEL.gguf LORA.gguf TEXTS.jsonl ...

Any number of the last three; LORA.gguf "-": the model alone. By llama-cpp-python, or by the server of xllamacpp, whichever is
installed; exit code 77 where neither is."""
import json
import sys
import urllib.request


class LlamaCppPython:
    def __init__(self, model, lora):
        from llama_cpp import Llama
        self.llama = Llama(model_path=model, lora_path=lora, n_ctx=512, n_threads=1, n_batch=512, flash_attn=False, verbose=False)

    def encode(self, text):
        return self.llama.tokenize(text.encode(), add_bos=True, special=True)

    def answer(self, ids, count):
        answer = []
        for token in self.llama.generate(ids, top_k=1, temp=0.0, repeat_penalty=1.0, reset=True):
            if token == self.llama.token_eos() or len(answer) == count:
                return answer
            answer.append(token)


class Xllamacpp:
    def __init__(self, model, lora):
        import xllamacpp
        params = xllamacpp.CommonParams()
        params.model.path = model
        params.n_ctx, params.n_parallel, params.cpuparams.n_threads, params.warmup = 512, 1, 1, False
        if lora:
            adapter = xllamacpp.CommonAdapterLoraInfo()
            adapter.path, adapter.scale = lora, 1.0
            params.lora_adapters = [adapter]
        self.server = xllamacpp.Server(params)

    def post(self, path, body):
        request = urllib.request.Request(self.server.listening_address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)

    def encode(self, text):
        return self.post("/tokenize", {"content": text, "add_special": True, "parse_special": True})["tokens"]

    def answer(self, ids, count):
        reply = self.post("/completion", {"prompt": ids, "n_predict": count, "temperature": 0, "top_k": 1, "return_tokens": True,
                                          "cache_prompt": False})
        tokens = reply["tokens"]
        return tokens[:-1] if reply["stop_type"] == "eos" and len(tokens) < count else tokens


def backend():
    for module, kind in (("llama_cpp", LlamaCppPython), ("xllamacpp", Xllamacpp)):
        try:
            __import__(module)
            return kind
        except ImportError as problem:
            print(problem)
    sys.exit(77)


def main():
    kind = backend()
    prompts = [json.loads(line) for line in open(sys.argv[1])]
    for model, lora, texts in zip(*[iter(sys.argv[2:])] * 3):
        llama = kind(model, None if lora == "-" else lora)
        with open(texts, "w") as out:
            for prompt in prompts:
                ids = prompt.get("context_ids") or llama.encode(prompt["context"])
                print(json.dumps({"id": prompt["id"], "prompt_ids": ids, "ids": llama.answer(ids, prompt["max_tokens"])}), file=out)


if __name__ == "__main__":
    main()
