# SPDX-License-Identifier: Apache-2.0
"""What peft computes in float64 with every kind of adapter on the tiny models of make_model_goldens.py.

    python tests/reference/make_adapter_goldens.py          # needs torch, transformers, peft, safetensors

tests/reference/adapters/CASE.safetensors holds state.<name> (the trained tensors at the start, under the names of
Peft::state()), logits (of all rows, end to end), grad.<name>; CASE.json the YAML arguments, the model and ten losses
of SGD; CASE/ is what save_pretrained writes. default_targets.json: PEFT's tables for the fixtures' model types.
"""
import json
import os
import sys

os.environ["CUDA_VISIBLE_DEVICES"] = ""
import torch
from peft import IA3Config, LoraConfig, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from peft.utils import constants
from safetensors.torch import save_file

from make_model_goldens import HERE, load, logits_of, mean_loss, sgd

OUT = HERE / "adapters"
# case: (model, YAML arguments, PEFT's config)
CASES = {}


def case(name, model, method, config_class, **arguments):
    CASES[name] = (model, dict(adapter_method=method, **arguments), config_class)


for family in ("llama", "gpt2", "mistral"):
    case(f"prompt_{family}", family, "prompt", PromptTuningConfig, num_virtual_tokens=5)
    case(f"prefix_{family}", family, "prefix", PrefixTuningConfig, num_virtual_tokens=5)
for family in ("llama", "gpt2"):
    case(f"prefix_projection_{family}", family, "prefix", PrefixTuningConfig, num_virtual_tokens=4,
         prefix_projection=True, encoder_hidden_size=6)
    case(f"p_tuning_mlp_{family}", family, "p-tuning", PromptEncoderConfig, num_virtual_tokens=4,
         encoder_reparameterization_type="MLP", encoder_hidden_size=6)
    case(f"p_tuning_lstm_{family}", family, "p-tuning", PromptEncoderConfig, num_virtual_tokens=4,
         encoder_reparameterization_type="LSTM", encoder_hidden_size=6, encoder_num_layers=2)
    case(f"dora_{family}", family, "lora", LoraConfig, r=4, lora_alpha=6, use_dora=True)
case("patterns_llama", "llama", "lora", LoraConfig, r=4, lora_alpha=6, target_modules="all-linear",
     rank_pattern={"layers.0.self_attn.q_proj": 2, "v_proj": 6}, alpha_pattern={"down_proj": 3.0})
case("layer_llama", "llama", "lora", LoraConfig, r=4, lora_alpha=6, layers_to_transform=[1], use_dora=True)
case("bias_all_gpt2", "gpt2", "lora", LoraConfig, r=4, lora_alpha=6, bias="all")
case("bias_lora_only_gpt2", "gpt2", "lora", LoraConfig, r=4, lora_alpha=6, bias="lora_only")


for family in ("llama", "gpt2"):
    case(f"ia3_{family}", family, "ia3", IA3Config)
case("ia3_chosen_llama", "llama", "ia3", IA3Config, target_modules=["q_proj", "o_proj", "gate_proj", "up_proj"],
     feedforward_modules=["o_proj", "up_proj"])
for family in ("gpt2", "qwen2"):
    case(f"bitfit_{family}", family, "bitfit", None)
# The head and the embedding: of their own, tied, scaled (gemma) or projected (opt_350m).
RANKS = dict(r=4, lora_alpha=6)
case("head_llama", "llama", "lora", LoraConfig, target_modules=["q_proj", "lm_head"], rank_pattern={"lm_head": 3}, **RANKS)
case("head_dora_qwen3", "qwen3", "lora", LoraConfig, target_modules=["lm_head", "v_proj"], use_dora=True, **RANKS)
case("head_alone_tied_llama3", "llama3", "lora", LoraConfig, target_modules=["lm_head"], **RANKS)
case("head_layer_gptj", "gptj", "lora", LoraConfig, target_modules=["lm_head", "wte", "q_proj"], layers_to_transform=[1],
     layers_pattern=["h"], bias="all", **RANKS)
case("embedding_alone_llama", "llama", "lora", LoraConfig, target_modules=["embed_tokens"], use_rslora=True, **RANKS)
case("embedding_tied_gemma", "gemma", "lora", LoraConfig, target_modules="model.embed_tokens|.*down_proj", **RANKS)
case("both_tied_gpt2", "gpt2", "lora", LoraConfig, target_modules=["wte", "lm_head", "c_attn"], **RANKS)
case("both_projected_opt_350m", "opt_350m", "lora", LoraConfig, target_modules=["embed_tokens", "lm_head", "fc1"], **RANKS)
case("gaussian_llama", "llama", "lora", LoraConfig, target_modules=["q_proj"], init_lora_weights="gaussian", **RANKS)


class RealTokens:
    """The model without the logits of learned embeddings."""

    def __init__(self, model):
        self.model = model

    def __call__(self, ids):
        out = self.model(ids)
        out.logits = out.logits[:, -ids.shape[1]:]
        return out


def our_name(name, arguments):
    name = name.replace(".default", "").replace("lora_magnitude_vector.weight", "lora_magnitude_vector")
    flat = arguments["adapter_method"] == "prompt" or (
        arguments["adapter_method"] == "prefix" and not arguments.get("prefix_projection"))
    return "prompt_embeddings" if flat else name


def adapted(model_name, arguments, config_class, seed):
    base = load(HERE / model_name)
    known = {k: v for k, v in arguments.items() if k != "adapter_method"}
    if arguments["adapter_method"] == "bitfit":  # PEFT has biases only beside LoRA: one update, which stays zero
        module = "model.layers.0.self_attn.q_proj" if model_name == "qwen2" else "transformer.h.0.attn.c_attn"
        config_class, known = LoraConfig, dict(r=1, lora_alpha=1, target_modules=[module], bias="all")
    torch.manual_seed(seed)
    model = get_peft_model(base, config_class(task_type="CAUSAL_LM", **known))
    if arguments["adapter_method"] == "bitfit":
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.data.zero_()
                p.requires_grad_(False)
    model.double()
    for name, p in model.named_parameters():
        if p.requires_grad:  # away from zeros, and small: learned tokens of size 1 would drown the text
            near = any(word in name for word in ("bias", "magnitude", "ia3_l"))
            p.data = (p.data + 0.1 * torch.randn(p.shape)) if near else 0.3 * torch.randn(p.shape, dtype=p.dtype)
            p.data = p.data.float().double()
    return model


def make(index, name):
    model_name, arguments, config_class = CASES[name]
    rows = json.loads((HERE / model_name / "golden.json").read_text())["rows"]
    model = adapted(model_name, arguments, config_class, 500 + index)
    trained = {our_name(n, arguments): p for n, p in model.named_parameters() if p.requires_grad}
    tensors = {f"state.{n}": p.detach().float().clone() for n, p in trained.items()}
    tensors["logits"] = torch.cat(logits_of(RealTokens(model), rows))
    mean_loss(RealTokens(model), rows).backward()
    tensors.update({f"grad.{n}": p.grad.float() for n, p in trained.items()})
    folder = OUT / name
    model.float().save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    for key in ("target_modules", "feedforward_modules"):
        if isinstance(config.get(key), list):
            config[key].sort()
    config["base_model_name_or_path"] = model_name
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    model.double()
    optimizer, losses = sgd(0.02)(list(trained.values())), []
    for _ in range(10):
        optimizer.zero_grad()
        loss = mean_loss(RealTokens(model), rows)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    save_file({k: v.contiguous() for k, v in tensors.items()}, OUT / f"{name}.safetensors")
    facts = dict(model=model_name, arguments=arguments, losses=losses)
    (OUT / f"{name}.json").write_text(json.dumps(facts) + "\n")
    print(name, losses[0], losses[-1])


def default_targets():
    """PEFT's tables for the model types of the fixtures; a type that they lack has empty lists."""
    types = {json.loads(p.read_text())["model_type"] for p in HERE.glob("*/config.json")}
    tables = dict(lora=constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
                  ia3=constants.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING,
                  ia3_feedforward=constants.TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING)
    return {t: {name: sorted(table.get(t, [])) for name, table in tables.items()} for t in sorted(types)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    OUT.mkdir(exist_ok=True)
    (HERE / "default_targets.json").write_text(json.dumps(default_targets(), indent=1) + "\n")
    for i, n in enumerate(CASES):
        if len(sys.argv) == 1 or n in sys.argv[1:]:
            make(i, n)
