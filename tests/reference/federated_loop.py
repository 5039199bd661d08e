# SPDX-License-Identifier: Apache-2.0
"""The federated loop of the golden runs, with plain transformers + peft in float64: clients of unequal size, FedAvg by rows,
which are taken in file order, going on from round to round."""
import pathlib

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent
SIZES = {"north": 7, "south": 4, "west": 2}
ROUNDS = 3


def load(name):
    """The fixture with its adapter/, which is trained."""
    base = AutoModelForCausalLM.from_pretrained(HERE / name, dtype=torch.float64, attn_implementation="eager")
    return PeftModel.from_pretrained(base, HERE / name / "adapter", is_trainable=True).double()


def adapter_of(model):
    return {k: v.detach().clone() for k, v in get_peft_model_state_dict(model).items()}


def train_client(model, rows, case, round_index, step_loss):
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = (torch.optim.SGD(params, lr=case["lr"]) if case["optimizer"] == "SGD" else
                 torch.optim.AdamW(params, lr=case["lr"], weight_decay=0.01))
    batches, loss_sum, terms = case["steps"] * case["accumulation"], 0.0, 0
    size = min(case["batch"], len(rows))
    for step in range(case["steps"]):
        taken = []
        for part in range(case["accumulation"]):
            at = (round_index * batches + step * case["accumulation"] + part) * size
            taken += [rows[(at + k) % len(rows)] for k in range(size)]
        total, count = step_loss(model, taken, case)
        optimizer.zero_grad()
        (total / count).backward()
        if case["clip"] > 0:
            torch.nn.utils.clip_grad_norm_(params, case["clip"])
        optimizer.step()
        loss_sum += total.item()
        terms += count
    return loss_sum, terms


def train(model, rows, case, step_loss):
    """The averaged adapter after the last round, which the model then has, and the mean loss of each round. `step_loss`
    (model, rows, case) gives a step's summed loss and the number of its terms."""
    clients = [[row for row in rows if row["client"] == client] for client in SIZES]
    server, losses = adapter_of(model), []
    for round_index in range(ROUNDS):
        mean, loss_sum, terms = {k: torch.zeros_like(v) for k, v in server.items()}, 0.0, 0
        for own in clients:
            set_peft_model_state_dict(model, server)
            client_loss, client_terms = train_client(model, own, case, round_index, step_loss)
            loss_sum, terms = loss_sum + client_loss, terms + client_terms
            for key, value in adapter_of(model).items():
                mean[key] += len(own) / len(rows) * value
        server = mean
        losses.append(loss_sum / terms)
    set_peft_model_state_dict(model, server)
    return server, losses
