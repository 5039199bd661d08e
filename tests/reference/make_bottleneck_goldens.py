# SPDX-License-Identifier: Apache-2.0
"""What the library adapters computes in float64 with bottlenecks on the tiny models of make_model_goldens.py.

    python tests/reference/make_bottleneck_goldens.py     # needs torch, adapters 1.1, transformers 4.47, peft

Writes the same files as make_adapter_goldens.py, but for the folder CASE/: PEFT has no such adapters.
"""
import json
import os

os.environ["CUDA_VISIBLE_DEVICES"] = ""
import adapters
import torch
from adapters import DoubleSeqBnConfig, SeqBnConfig
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from make_model_goldens import HERE, logits_of, mean_loss, sgd

OUT = HERE / "adapters"
# our two sites of a block and our block, as paths below it: what adapters calls them there
PLACES = {
    "llama": ("model.layers", "self_attn.o_proj", "mlp.down_proj"),
    "gpt2": ("transformer.h", "attn.c_proj", "mlp.c_proj"),
}


def our_name(name, family, architecture):
    blocks, attention, mlp = PLACES[family]
    layer, rest = name.split(blocks + ".", 1)[1].split(".", 1)
    place = attention if "attention_adapters" in rest else mlp
    path = f"{blocks}.{layer}" + (f".{place}" if architecture == "houlsby" else "")
    module = "adapter_down" if "adapter_down" in rest else "adapter_up"
    return f"base_model.model.{path}.{module}.{rest.rsplit('.', 1)[1]}"


def make(family, architecture, seed):
    config = (DoubleSeqBnConfig if architecture == "houlsby" else SeqBnConfig)(reduction_factor=4)
    rows = json.loads((HERE / family / "golden.json").read_text())["rows"]
    model = AutoModelForCausalLM.from_pretrained(HERE / family, torch_dtype=torch.float64, attn_implementation="eager")
    adapters.init(model)
    model.add_adapter("tiny", config=config)
    model.train_adapter("tiny")
    model.double().eval()
    torch.manual_seed(seed)
    trained = {our_name(n, family, architecture): p for n, p in model.named_parameters() if p.requires_grad}
    for p in trained.values():
        p.data = (0.3 * torch.randn(p.shape, dtype=p.dtype)).float().double()
    tensors = {f"state.{n}": p.detach().float().clone() for n, p in trained.items()}
    tensors["logits"] = torch.cat(logits_of(model, rows))
    mean_loss(model, rows).backward()
    tensors.update({f"grad.{n}": p.grad.float() for n, p in trained.items()})
    optimizer, losses = sgd(0.02)(list(trained.values())), []
    for _ in range(10):
        optimizer.zero_grad()
        loss = mean_loss(model, rows)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    name = f"{architecture}_{family}"
    save_file({k: v.contiguous() for k, v in tensors.items()}, OUT / f"{name}.safetensors")
    arguments = dict(adapter_method="bottleneck", architecture=architecture, reduction_factor=4)
    (OUT / f"{name}.json").write_text(json.dumps(dict(model=family, arguments=arguments, losses=losses)) + "\n")
    print(name, len(trained), losses[0], losses[-1])


if __name__ == "__main__":
    torch.set_num_threads(1)
    for index, (f, a) in enumerate((f, a) for f in PLACES for a in ("houlsby", "pfeiffer")):
        make(f, a, 900 + index)
