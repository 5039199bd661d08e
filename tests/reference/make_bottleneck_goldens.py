# SPDX-License-Identifier: Apache-2.0
"""What the library adapters computes in float64 on the tiny models of make_model_goldens.py: bottlenecks, mixtures.

    python tests/reference/make_bottleneck_goldens.py [CASE...]   # needs torch, adapters 1.1, transformers 4.47, peft

Writes the same files as make_adapter_goldens.py, but for the folder CASE/: PEFT has no such adapters.
"""
import json
import os
import sys

os.environ["CUDA_VISIBLE_DEVICES"] = ""
import adapters
import torch
from adapters import (BnConfig, CompacterConfig, ConfigUnion, DoubleSeqBnConfig, MAMConfig, ParBnConfig, PrefixTuningConfig,
                      SeqBnConfig, SeqBnInvConfig)
from safetensors.torch import save_file
from torch.nn.utils import parametrize
from transformers import AutoModelForCausalLM

from make_model_goldens import HERE, logits_of, mean_loss, sgd

OUT = HERE / "adapters"
# our two sites of a block and our block, as paths below it: what adapters calls them there
PLACES = {
    "llama": ("model.layers", "self_attn.o_proj", "mlp.down_proj"),
    "gpt2": ("transformer.h", "attn.c_proj", "mlp.c_proj"),
}
TOKENS = 4  # of prefixes
RELU = dict(non_linearity="relu")
SMALL = dict(reduction_factor=4)
# kind: (YAML arguments, the library's configuration)
KINDS = {
    "houlsby": (dict(adapter_method="bottleneck", architecture="houlsby", **SMALL), DoubleSeqBnConfig(**SMALL)),
    "pfeiffer": (dict(adapter_method="bottleneck", architecture="pfeiffer", **SMALL), SeqBnConfig(**SMALL)),
    "parallel": (dict(adapter_method="bottleneck", architecture="parallel", **SMALL), ParBnConfig(**SMALL)),
    "union": (dict(adapter_method="bottleneck", reduction_factor=8, mlp_reduction_factor=2, **RELU),
              ConfigUnion(BnConfig(mh_adapter=True, output_adapter=False, reduction_factor=8, **RELU),
                          BnConfig(mh_adapter=False, output_adapter=True, reduction_factor=2, **RELU))),
    "lang": (dict(adapter_method="bottleneck", architecture="pfeiffer", inv_adapter="nice", **SMALL), SeqBnInvConfig(**SMALL)),
    "compacter": (dict(adapter_method="compacter", **SMALL), CompacterConfig(**SMALL)),
    "mam": (dict(adapter_method="mam", num_virtual_tokens=TOKENS, encoder_hidden_size=6, prefix_projection=True, **SMALL),
            MAMConfig(PrefixTuningConfig(prefix_length=TOKENS, bottleneck_size=6), ParBnConfig(**SMALL))),
    "mam_flat": (dict(adapter_method="mam", num_virtual_tokens=TOKENS, prefix_projection=False, **SMALL),
                 MAMConfig(PrefixTuningConfig(prefix_length=TOKENS, flat=True), ParBnConfig(**SMALL))),
}


def our_name(name, family, kind):
    blocks, attention, mlp = PLACES[family]
    name = name.replace("parametrizations.", "").replace(".original", "")
    if "prefix_tuning" in name:
        if kind == "mam_flat":
            return "prompt_embeddings"
        return "prompt_encoder." + name.split("self_prefix.")[1].replace("wte", "embedding").replace("control_trans", "transform")
    if "phm_rule" in name:
        return "base_model.model.phm_rule"
    if "invertible_adapters" in name:  # F and G: linear, activation, linear
        net, layer, part = name.split(".")[-3:]
        return f"base_model.model.inv_adapter.{net}.{'adapter_down' if layer == '0' else 'adapter_up'}.{part}"
    layer, rest = name.split(blocks + ".", 1)[1].split(".", 1)
    place = attention if "attention_adapters" in rest else mlp
    path = f"{blocks}.{layer}" + (f".{place}" if kind in ("houlsby", "union", "compacter") else "")
    module = "adapter_down" if "adapter_down" in rest else "adapter_up"
    part = rest.rsplit(".", 1)[1]
    return f"base_model.model.{path}.{module}.{'bias' if part == 'b' else part}"


class PerGroup(torch.nn.Module):
    """Rows (…, heads, head_dim) of which the heads that share a key head are the same."""

    def __init__(self, config):
        super().__init__()
        self.kv_heads, self.dim = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
        self.shared = config.num_attention_heads // self.kv_heads

    def forward(self, rows):
        return rows.unflatten(0, (-1, self.kv_heads, self.dim)).repeat_interleave(self.shared, 1).flatten(0, 2)

    def right_inverse(self, rows):
        return rows.unflatten(0, (-1, self.kv_heads * self.shared, self.dim))[:, ::self.shared].flatten(0, 2).clone()


def prefix_as_peft(model):
    """The library's prefix has keys for every query head, PEFT's (and ours) for every key head, and is that wide."""
    config = model.config
    prefix = model.base_model.prefix_tuning.prefix_tunings["tiny"]["self_prefix"]
    if getattr(config, "num_key_value_heads", config.num_attention_heads) == config.num_attention_heads:
        return
    if hasattr(prefix, "wte"):
        width = config.num_key_value_heads * config.hidden_size // config.num_attention_heads
        prefix.wte = torch.nn.Embedding(TOKENS, width)
        prefix.control_trans[0] = torch.nn.Linear(width, prefix.control_trans[0].out_features)
        parametrize.register_parametrization(prefix.control_trans[2], "weight", PerGroup(config), unsafe=True)
        parametrize.register_parametrization(prefix.control_trans[2], "bias", PerGroup(config), unsafe=True)
    else:
        parametrize.register_parametrization(prefix, "control_trans", PerGroup(config), unsafe=True)


class BehindPrefix:
    """The model with its positions behind the prefix, as PEFT counts them."""

    def __init__(self, model):
        self.model = model

    def __call__(self, ids):
        return self.model(ids, position_ids=torch.arange(TOKENS, TOKENS + ids.shape[1])[None])


def adapted(family, kind):
    model = AutoModelForCausalLM.from_pretrained(HERE / family, torch_dtype=torch.float64, attn_implementation="eager")
    adapters.init(model)
    model.add_adapter("tiny", config=KINDS[kind][1])
    model.train_adapter("tiny")
    if kind == "lang":  # what the library's own language-model heads do (heads/language_modeling.py)
        coupling = model.base_model.get_invertible_adapter()
        model.lm_head.register_forward_pre_hook(lambda _, inputs: coupling(inputs[0], rev=True))
    if kind.startswith("mam"):
        prefix_as_peft(model)
    return model.double().eval()


def make(family, kind, seed):
    rows = json.loads((HERE / family / "golden.json").read_text())["rows"]
    model = adapted(family, kind)
    torch.manual_seed(seed)
    trained = {our_name(n, family, kind): p for n, p in model.named_parameters() if p.requires_grad}
    for p in trained.values():
        p.data = (0.3 * torch.randn(p.shape, dtype=p.dtype)).float().double()
    run = BehindPrefix(model) if kind.startswith("mam") else model
    shapes = {n: (TOKENS, -1) if n == "prompt_embeddings" else p.shape for n, p in trained.items()}
    tensors = {f"state.{n}": p.detach().float().reshape(shapes[n]).clone() for n, p in trained.items()}
    tensors["logits"] = torch.cat(logits_of(run, rows))
    mean_loss(run, rows).backward()
    tensors.update({f"grad.{n}": p.grad.float().reshape(shapes[n]) for n, p in trained.items()})
    optimizer, losses = sgd(0.02)(list(trained.values())), []
    for _ in range(10):
        optimizer.zero_grad()
        loss = mean_loss(run, rows)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    name = f"{kind}_{family}"
    save_file({k: v.contiguous() for k, v in tensors.items()}, OUT / f"{name}.safetensors")
    (OUT / f"{name}.json").write_text(json.dumps(dict(model=family, arguments=KINDS[kind][0], losses=losses)) + "\n")
    print(name, len(trained), losses[0], losses[-1])


if __name__ == "__main__":
    torch.set_num_threads(1)
    pairs = [(f, k) for f in PLACES for k in ("houlsby", "pfeiffer")]
    pairs += [(f, k) for f in PLACES for k in KINDS if (f, k) not in pairs]
    for index, (f, k) in enumerate(pairs):
        if len(sys.argv) == 1 or f"{k}_{f}" in sys.argv[1:]:
            make(f, k, 900 + index)
