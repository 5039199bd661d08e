# SPDX-License-Identifier: Apache-2.0
"""Makes tiny random models of every family and what transformers + peft compute with them in float64.

    python tests/reference/make_model_goldens.py [NAME...]   # needs torch, transformers, peft, safetensors

Each folder tests/reference/NAME/ gets config.json, model.safetensors (fp32), adapter/ (a PEFT LoRA with non-zero B),
golden.safetensors (row<i>.logits, row<i>.lora_logits, grad.<PEFT name>) and golden.json (rows, targets, greedy
continuations, ten losses of SGD and AdamW on the adapter and of SGD on all parameters).
"""
import copy
import json
import os
import pathlib
import sys

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent
COMMON = dict(vocab_size=96, bos_token_id=1, eos_token_id=2, max_position_embeddings=64)
LLAMA = dict(COMMON, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, hidden_act="silu", rms_norm_eps=1e-5)
LLAMA3_SCALING = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                      original_max_position_embeddings=16)
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
OPT = dict(COMMON, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, dropout=0.0, pad_token_id=None,
           activation_function="relu")
NEOX = dict(COMMON, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
FALCON = dict(COMMON, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, attention_dropout=0.0, hidden_dropout=0.0)
# name: (model_type, config, LoRA arguments, write config.json as before transformers 5)
FAMILIES = {
    "llama": ("llama", dict(LLAMA, rope_theta=10000.0, tie_word_embeddings=False),
              dict(target_modules=["q_proj", "v_proj"], lora_alpha=8), False),
    "llama3": ("llama", dict(LLAMA, rope_theta=500.0, rope_scaling=LLAMA3_SCALING, tie_word_embeddings=True,
                             head_dim=12, attention_bias=True, mlp_bias=True),
               dict(target_modules=["q_proj", "v_proj"], lora_alpha=8), True),
    "mistral": ("mistral", dict(LLAMA, rope_theta=10000.0, sliding_window=6, tie_word_embeddings=False),
                dict(target_modules=["q_proj", "v_proj", "o_proj"], lora_alpha=4), True),
    "qwen2": ("qwen2", dict(LLAMA, rope_theta=1000000.0, use_sliding_window=True, sliding_window=5,
                            max_window_layers=1, tie_word_embeddings=True),
              dict(target_modules=ALL_LINEAR, lora_alpha=6, use_rslora=True), False),
    "gpt2": ("gpt2", dict(vocab_size=96, n_positions=40, n_embd=32, n_layer=2, n_head=4, n_inner=None,
                          activation_function="gelu_new", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
                          bos_token_id=1, eos_token_id=2),
             dict(target_modules=["c_attn", "c_proj"], lora_alpha=8, fan_in_fan_out=True), False),
    # From here on peft chooses target_modules where they are not given.
    "qwen3": ("qwen3", dict(LLAMA, rope_theta=1000000.0, head_dim=12, tie_word_embeddings=False),
              dict(lora_alpha=8), False),
    "qwen3_tied": ("qwen3", dict(LLAMA, rope_theta=10000.0, head_dim=6, tie_word_embeddings=True, attention_bias=True,
                                 use_sliding_window=True, sliding_window=5, max_window_layers=1),
                   dict(target_modules=ALL_LINEAR, lora_alpha=4), True),
    "opt": ("opt", dict(OPT, word_embed_proj_dim=32), dict(lora_alpha=8), False),
    "opt_350m": ("opt", dict(OPT, word_embed_proj_dim=20, do_layer_norm_before=False, num_hidden_layers=3),
                 dict(target_modules=["q_proj", "out_proj", "fc1", "fc2", "project_in", "project_out"], lora_alpha=4), True),
    "gpt_neox": ("gpt_neox", dict(NEOX, rotary_pct=0.5, rotary_emb_base=10000, hidden_act="gelu"),
                 dict(lora_alpha=8), True),
    "gpt_neox_sequential": ("gpt_neox", dict(NEOX, use_parallel_residual=False, attention_bias=False, hidden_act="gelu_fast",
                                             rope_parameters=dict(rope_type="default", rope_theta=500.0,
                                                                  partial_rotary_factor=1.0), tie_word_embeddings=True),
                            dict(target_modules=["query_key_value", "dense", "dense_h_to_4h"], lora_alpha=4), False),
    "bloom": ("bloom", dict(vocab_size=96, bos_token_id=1, eos_token_id=2, hidden_size=32, n_layer=2, n_head=4,
                            hidden_dropout=0.0, attention_dropout=0.0), dict(lora_alpha=8), False),
    "bloom_6_heads": ("bloom", dict(vocab_size=96, bos_token_id=1, eos_token_id=2, hidden_size=36, n_layer=1, n_head=6,
                                    hidden_dropout=0.0, attention_dropout=0.0),
                      dict(target_modules=["query_key_value", "dense"], lora_alpha=4), False),
    "gpt_neo": ("gpt_neo", dict(COMMON, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, window_size=5,
                                attention_types=[[["global", "local"], 1]], resid_dropout=0.0, embed_dropout=0.0,
                                attention_dropout=0.0), dict(lora_alpha=8), False),
    "gptj": ("gptj", dict(vocab_size=96, bos_token_id=1, eos_token_id=2, n_positions=64, n_embd=32, n_layer=2, n_head=4,
                          rotary_dim=4, n_inner=None, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
             dict(lora_alpha=8), False),
    "phi3": ("phi3", dict(LLAMA, pad_token_id=0, rope_theta=10000.0, sliding_window=6, tie_word_embeddings=False,
                          original_max_position_embeddings=64),
             dict(target_modules=["qkv_proj", "o_proj", "gate_up_proj", "down_proj"], lora_alpha=8), False),
    "gemma2": ("gemma2", dict(LLAMA, rope_theta=10000.0, head_dim=12, query_pre_attn_scalar=10, sliding_window=5,
                              attn_logit_softcapping=5.0, final_logit_softcapping=3.0, pad_token_id=0),
               dict(lora_alpha=8), False),
    "gemma": ("gemma", dict(LLAMA, rope_theta=10000.0, head_dim=12, hidden_act="gelu", num_key_value_heads=1, pad_token_id=0),
              dict(lora_alpha=8), True),
    "falcon": ("falcon", dict(FALCON, multi_query=True), dict(lora_alpha=8), True),
    "falcon_11b": ("falcon", dict(FALCON, new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1, bias=True,
                                  ffn_hidden_size=48), dict(target_modules=["query_key_value", "dense"], lora_alpha=4), False),
    "falcon_sequential": ("falcon", dict(FALCON, multi_query=False, parallel_attn=False, num_hidden_layers=1, bias=True),
                          dict(target_modules=["query_key_value", "dense_4h_to_h"], lora_alpha=4), False),
}


def randomize(model, generator):
    """Weights large enough that attention is far from uniform and every bias and norm matters."""
    middle = 0 if model.config.model_type == "gemma" else 1  # Gemma adds 1 itself
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        is_norm = p.dim() == 1 and name.endswith("weight")
        p.data = (middle + 0.2 * noise) if is_norm else 0.25 * noise


def write_model(folder, model, config, old_style):
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if old_style:
        text = dict(config, architectures=[type(model).__name__], model_type=model.config.model_type,
                    torch_dtype="float32")
        (folder / "config.json").write_text(json.dumps(text, indent=1) + "\n")


def make_rows(generator):
    rows = []
    for length, prompt in ((17, 6), (5, 2), (11, 0)):
        ids = torch.randint(3, COMMON["vocab_size"], (length,), generator=generator).tolist()
        rows.append(dict(ids=ids, targets=[int(i >= max(prompt, 1)) for i in range(length)]))
    return rows


def mean_loss(model, rows):
    """Mean over all target tokens of all rows; rows run alone, so no padding is involved."""
    total, count = 0, 0
    for row in rows:
        ids = torch.tensor(row["ids"])
        logits = model(ids[None]).logits[0, :-1]
        scored = torch.tensor(row["targets"][1:], dtype=torch.bool)
        total = total + torch.nn.functional.cross_entropy(logits[scored], ids[1:][scored], reduction="sum")
        count += int(scored.sum())
    return total / count


def ten_losses(model, rows, make_optimizer):
    optimizer = make_optimizer([p for p in model.parameters() if p.requires_grad])
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = mean_loss(model, rows)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def logits_of(model, rows):
    with torch.no_grad():
        return [model(torch.tensor(r["ids"])[None]).logits[0].float().contiguous() for r in rows]


def greedy(model, ids, count=12):
    ids = list(ids)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(torch.tensor(ids)[None]).logits[0, -1].argmax()))
    return ids[-count:]


def load(folder, adapter=False):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
    if adapter:
        model = PeftModel.from_pretrained(model, folder / "adapter", is_trainable=True).double()
    return model


def make_adapter(folder, lora, generator):
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
                           LoraConfig(r=4, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM", **lora))
    for name, p in model.named_parameters():
        if "lora_" in name:
            p.data = 0.1 * torch.randn(p.shape, generator=generator)
    model.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    path = folder / "adapter" / "adapter_config.json"
    text = json.loads(path.read_text())
    text["base_model_name_or_path"] = folder.name
    path.write_text(json.dumps(dict(text, target_modules=sorted(text["target_modules"])), indent=1, sort_keys=True) + "\n")


def sgd(lr):  # at 0.5 these models turn chaotic: torch in fp32 leaves its own fp64 by more than 1e-4
    return lambda params: torch.optim.SGD(params, lr=lr)


def adamw(params):
    return torch.optim.AdamW(params, lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)


def make(index, name):
    model_type, config, lora, old_style = FAMILIES[name]
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(1000 + index)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **copy.deepcopy(config)), dtype=torch.float32)
    randomize(model, generator)
    write_model(folder, model, config, old_style)
    make_adapter(folder, lora, generator)
    rows = make_rows(generator)

    tensors, facts = {}, dict(rows=rows)
    base = load(folder).eval()
    facts["parameters"] = sum(p.numel() for p in base.parameters())
    facts["greedy"] = [greedy(base, r["ids"]) for r in rows]
    for i, logits in enumerate(logits_of(base, rows)):
        tensors[f"row{i}.logits"] = logits

    adapted = load(folder, adapter=True)
    for i, logits in enumerate(logits_of(adapted, rows)):
        tensors[f"row{i}.lora_logits"] = logits
    mean_loss(adapted, rows).backward()
    for key, p in adapted.named_parameters():
        if p.requires_grad:
            tensors["grad." + key.replace(".default", "")] = p.grad.float().contiguous()
    facts["losses_sgd"] = ten_losses(load(folder, adapter=True), rows, sgd(0.1))
    facts["losses_adamw"] = ten_losses(load(folder, adapter=True), rows, adamw)
    facts["losses_full_sgd"] = ten_losses(load(folder), rows, sgd(0.05))
    save_file(tensors, folder / "golden.safetensors")
    (folder / "golden.json").write_text(json.dumps(facts) + "\n")
    print(name, facts["parameters"], facts["losses_sgd"][0], facts["losses_sgd"][-1], facts["losses_adamw"][-1],
          facts["losses_full_sgd"][-1], facts["greedy"][0])


if __name__ == "__main__":
    torch.set_num_threads(1)
    for i, n in enumerate(FAMILIES):
        if len(sys.argv) == 1 or n in sys.argv[1:]:
            make(i, n)
