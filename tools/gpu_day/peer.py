# SPDX-License-Identifier: Apache-2.0
"""LoRA steps of transformers + peft with liger-kernel's LLaMA, on rows of token ids: prints one JSON line with tokens/s.

    python3 tools/gpu_day/peer.py --model DIR --rows rows.jsonl --batch 2 [--wheels DIR] [--device cuda]

DIR of --wheels holds the wheels of what this Python lacks (liger-kernel, perhaps peft). Without liger-kernel it says so.
"""
import argparse
import json
import pathlib
import sys
import tempfile
import time
import zipfile


def answer(**facts):
    print(json.dumps(facts))
    sys.exit(0)


def batches(path, size, device, torch):
    rows = [json.loads(line)["input_ids"] for line in open(path)]
    for k in range(0, len(rows) - size + 1, size):
        part = rows[k:k + size]
        width = max(map(len, part))
        mask = torch.tensor([[1] * len(x) + [0] * (width - len(x)) for x in part], device=device)
        ids = torch.tensor([x + [0] * (width - len(x)) for x in part], device=device)
        yield {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}, sum(map(len, part))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True)
    p.add_argument("--rows", required=True)
    p.add_argument("--batch", type=int, required=True)
    p.add_argument("--wheels", default="")
    p.add_argument("--device", default="cuda")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as unpacked:
        for wheel in pathlib.Path(a.wheels).glob("*.whl") if a.wheels else ():
            zipfile.ZipFile(wheel).extractall(unpacked)
        sys.path.insert(0, unpacked)
        train(a)


def train(a):
    import torch
    if a.device == "cuda" and not torch.cuda.is_available():
        answer(result="skipped (this Python's torch sees no GPU)")
    try:
        import peft
        import transformers
    except ImportError as e:
        answer(result=f"skipped ({e.name} is not in this Python, nor in FSLLM_WHEELS)")
    liger = "with liger-kernel"
    try:
        from liger_kernel.transformers import apply_liger_kernel_to_llama
        apply_liger_kernel_to_llama()  # RoPE, SwiGLU, RMSNorm, and the head with its loss in one
    except ImportError as e:
        liger = f"without liger-kernel ({e.name} is not there)"
    model = transformers.AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.bfloat16, attn_implementation="sdpa").to(a.device)
    model.config.use_cache = False
    model = peft.get_peft_model(model, peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    model.train()
    trained = [x for x in model.parameters() if x.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    rates, losses = [], []
    for batch, tokens in batches(a.rows, a.batch, a.device, torch):
        begun = time.perf_counter()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())  # waits for the GPU
        rates.append((tokens, time.perf_counter() - begun))
    later = rates[3:] or rates  # the first steps compile kernels
    speed = sum(t for t, _ in later) / sum(s for _, s in later)
    answer(**{"tokens/s": f"{speed:.0f}", "result": f"{liger}, peft {peft.__version__}, loss {losses[0]:.2f} → {losses[-1]:.2f}"})


if __name__ == "__main__":
    main()
