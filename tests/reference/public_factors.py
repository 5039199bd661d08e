# SPDX-License-Identifier: Apache-2.0
"""What public implementations of federated LoRA make of a round's factors, through their own functions. One function a
project, which takes its checkout; for check_public_aggregation.py.
"""
import inspect
import random
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

import public_forms as forms
from public_forms import a_round, report
from public_loading import load, quiet

A_KEY, B_KEY, W_KEY = "lora_A.default.weight", "lora_B.default.weight", "base_layer.weight"
HUGGING_FACE = ("transformers", "peft", "datasets", "evaluate", "trl")


class Layer(nn.Module):
    """A linear layer [o, i] with LoRA under PEFT's names, B = 0."""
    active_adapters = ["default"]

    def __init__(self, round):
        super().__init__()
        torch.manual_seed(3)
        outputs, inputs = round.W.shape
        self.base_layer = nn.Linear(inputs, outputs, bias=False)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(inputs, round.rank, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(round.rank, outputs, bias=False)})
        self.base_layer.weight = nn.Parameter(tensor(round.W), requires_grad=False)
        nn.init.zeros_(self.lora_B["default"].weight)


def tensor(values):
    return torch.tensor(values, dtype=torch.float32)


def model_of(round, path="layer", layer=Layer):
    model = nn.Module()
    inner = model
    *parents, last = path.split(".")
    for name in parents:
        inner.add_module(name, nn.Module())
        inner = getattr(inner, name)
    inner.add_module(last, layer(round))
    model.device = torch.device("cpu")
    return model


def factors(round, path="layer", a=A_KEY, b=B_KEY):
    return [{f"{path}.{a}": tensor(A), f"{path}.{b}": tensor(B)} for A, B in zip(round.A, round.B)]


def effect(state, round, path="layer"):
    """What a model of this state computes beyond W: change of the frozen matrix, and s B A."""
    W, A, B = (np.asarray(state[f"{path}.{key}"], np.float64) for key in (W_KEY, A_KEY, B_KEY))
    return W - round.W + round.s * B @ A


def scaled(round, state, a=".lora_A.weight", b=".lora_B.weight"):
    """s B A of a saved adapter."""
    A, B = (np.asarray(next(v for k, v in state.items() if k.endswith(key)), np.float64) for key in (a, b))
    return round.s * B @ A


class Turn:
    """A trainer that ends at client k's factors, as far as they are trained; it keeps what it began with."""

    def __init__(self, round, k):
        self.round, self.k, self.begun = round, k, []

    def train(self, model):
        layer = model.layer
        self.begun.append({key: v.clone() for key, v in model.state_dict().items()})
        self.gradient = torch.autograd.grad(
            (self.round.s * layer.lora_B["default"].weight @ layer.lora_A["default"].weight - 1).square().sum(),
            [p for p in layer.parameters() if p.requires_grad])
        with torch.no_grad():
            for part, values in ((layer.lora_A, self.round.A), (layer.lora_B, self.round.B)):
                if part["default"].weight.requires_grad:
                    part["default"].weight.copy_(tensor(values[self.k]) * len(self.begun))


def factory_rounds(repo, round):
    """A function that runs rounds of one of the project's algorithms: the server's state, and each client's Turn."""
    base = load(repo, "alg.ftbase", HUGGING_FACE + tuple(
        f"utils.{name}" for name in ("data_utils", "sys_utils", "train_utils", "eval_utils", "model_utils")))
    base.device_config = lambda args: [1.0] * len(round.rows)
    base.get_peft_model = lambda model, config: model_of(round)

    def run(method, rounds=1):
        module = load(repo, f"alg.{method}")
        args = SimpleNamespace(sr=1.0, lora_rank=round.rank, s=round.s, residual_threshold=1.0)
        clients = []
        for k, rows in enumerate(round.rows):
            client = module.Client.__new__(module.Client)
            client.id, client.args, client.dataset, client.trainer = k, args, {"train": range(rows)}, Turn(round, k)
            clients.append(client)
        random.seed(0)
        torch.manual_seed(0)
        with quiet():
            server = module.Server(args, clients)
            for server.round in range(rounds):
                server.run()
        return server.model.state_dict(), [c.trainer for c in clients]

    return run


def factory(repo):
    """boyi-liu/FedLLM-Factory"""
    round = a_round()
    run = factory_rounds(repo, round)
    unscaled = forms.products(round, round.p)
    exact, equal = round.s * unscaled, forms.mean_product(round, round.equal)
    report("fedit (fedavg)", effect(run("fedit")[0], round), round.s * forms.mean_product(round, round.p))
    report("flora", effect(run("flora")[0], round), exact, {"ΔW without s": unscaled})
    U, S, V = np.linalg.svd(exact, full_matrices=False)
    report("flexlora", effect(run("flexlora")[0], round), forms.best_rank(exact, round.rank),
           {"square roots of the singular values in B alone": U[:, :round.rank] * np.sqrt(S[:round.rank]) @ V[:round.rank]})
    report("fedex", effect(run("fedexlora")[0], round), exact,
           {"Σ p_k B_k A_k beside means without p_k, residual without s": unscaled + (round.s - 1) * equal})
    rest = unscaled - forms.best_rank(unscaled, round.rank)
    report("fedmomentum", effect(run("fedmomentum")[0], round), exact, {"residual without s": exact + (1 - round.s) * rest})
    factory_frozen(round, run)


def factory_frozen(round, run):
    """The methods that train or send one of the factors."""
    mean = round.s * forms.mean_factors(round, round.p)[0]
    for name in ("ffalora", "fedsvd"):
        state, turns = run(name)
        report(name, effect(state, round), mean @ np.asarray(turns[0].begun[0][f"layer.{A_KEY}"], np.float64))
    A = np.asarray(state[f"layer.{A_KEY}"], np.float64)
    report("fedsvd: A A^T", A @ A.T, np.eye(round.rank))

    b = f"layer.{B_KEY}"
    _, turns = run("fedsalora", rounds=2)
    report("fedsa: client 1's B, round 2", turns[1].begun[1][b], round.B[1],
           {"the B that client 0 ended with": 2 * round.B[0]})
    _, turns = run("rolora", rounds=4)
    report("rolora: client 1's B, round 4", turns[1].begun[3][b], turns[0].begun[3][b],
           {"the B that client 0 ended with": 4 * round.B[0]})
    _, turns = run("rolora")
    gradient = turns[0].gradient[0]
    print(f"  {'rolora: first gradient':34} {float(gradient.norm()):9.1e}  "
          + ("of A, while B = 0" if gradient.shape == round.A[0].shape else "of B"))


def from_files(repo, round, **options):
    """What FedAvg(...) of Shepherd and of the programs made from it returns or saves for clients' files; nothing where it has
    none of the options."""
    module = load(repo, "fed_utils.model_aggregation", HUGGING_FACE + tuple(f"fed_utils.{name}" for name in (
        "client", "client_participation_scheduling", "evaluation", "other", "model_aggregation2")))
    names = inspect.signature(module.FedAvg).parameters
    if options and not names.keys() & options.keys():
        return []
    kept = []
    module.set_peft_model_state_dict = lambda model, state, name: kept.append(state)
    with tempfile.TemporaryDirectory() as folder, quiet():
        for k, state in enumerate(factors(round, a="lora_A.weight", b="lora_B.weight")):
            target = Path(folder, "0", f"local_output_{k}")
            target.mkdir(parents=True)
            torch.save(state, target / "pytorch_model.bin")
        ranks = [len(a) for a in round.A]
        values = dict(model=nn.Linear(1, 1), selected_clients_set=list(range(len(ranks))), output_dir=folder, epoch=0,
                      threshold=0.9, local_dataset_len_dict=dict(enumerate(round.rows)), lora_r=round.rank,
                      heter=len(set(ranks)) > 1, local_ranks=ranks, **options)
        module.FedAvg(**{name: values.get(name, False) for name in names})
        saved = [torch.load(f) for f in sorted(Path(folder, "0").rglob("adapter_model.bin")) if f.parent.name != "global"]
    return kept or saved


def shepherd(repo):
    """JayZhang42/FederatedGPT-Shepherd"""
    round = a_round()
    exact = round.s * forms.mean_product(round, round.p)
    report("fedit (fedavg)", scaled(round, from_files(repo, round)[0]), exact,
           {"means without p_k": round.s * forms.mean_product(round, round.equal)})


def flora(repo):
    """ATP-1010/FederatedLLM"""
    round, unequal = a_round(), a_round(ranks=(3, 5, 2))
    first = round.p[0] ** 2 * round.s * round.B[0] @ round.A[0]
    report("fedit (fedavg)", scaled(round, from_files(repo, round)[0]), round.s * forms.mean_product(round, round.p),
           {"client 0 alone, each factor times p_0": first})
    for name, r in (("flora", round), ("flora, unequal ranks", unequal)):
        report(name, scaled(r, from_files(repo, r, stacking=True)[0]), r.s * forms.products(r, r.p))
    report("hetlora", scaled(unequal, from_files(repo, unequal, zero_padding=True)[0]),
           unequal.s * forms.mean_product(unequal, forms.product_norms(unequal)),
           {"padded means weighted by p_k": unequal.s * forms.mean_product(unequal, unequal.p)})


def florist(repo):
    """Anonymous-user-00/FLoRIST, hari1016/FLoRIST, INFO-698-InfoSci-Capstone/federated-llm-optimization"""
    for name, round in (("", a_round()), (", unequal ranks", a_round(ranks=(3, 5, 2)))):
        exact = round.s * forms.products(round, round.p)
        twice = round.p * np.where(np.arange(len(round.rows)) == 0, 1 + round.p[0], 1)
        wrong = round.s * forms.products(round, twice)
        cut = lambda m: forms.best_rank(m, forms.least_rank(m, 0.9))
        made = scaled(round, from_files(repo, round, florist=True)[0])
        report("florist" + name, made, cut(exact), {"client 0 weighs p_0 (1 + p_0)": cut(wrong)})
        report("flora" + name, scaled(round, from_files(repo, round, flora=True, stacking=True)[0]), exact)
        for k, adapter in enumerate(from_files(repo, round, flex=True)):
            report(f"flexlora{name}, client {k}", scaled(round, adapter), forms.best_rank(exact, len(round.A[k])),
                   {"cut to the last client's rank": forms.best_rank(exact, len(round.A[-1]))})


def fedex_model(round, conv1d):
    """As fedex: the weight of GPT-2's Conv1D is stored [i, o]."""
    model = model_of(round)
    if conv1d:
        model.layer.base_layer.weight = nn.Parameter(tensor(round.W.T.copy()), requires_grad=False)
    return model


def aggregated_state(aggregate, model, states, *args):
    """The state of `model` after aggregate(model, clients' states), W as [o, i]."""
    with quiet():
        state = aggregate(model, [dict(model.state_dict(), **s) for s in states], *args).state_dict()
    return {key: value.numpy() for key, value in state.items()}


def fedex_lora(repo):
    """RaghavSinghal10/fedex-lora, CERT-Lab/fedex-lora"""
    module = load(repo, "fed_agg", HUGGING_FACE + ("tqdm", "sklearn", "data_utils", "models"))
    fedex_family(module.aggregate_models_normal, module.aggregate_models_ffa, module.aggregate_models_ours, a_round(inputs=13))


def fedex_family(normal, ffa, fedex, round):
    args = SimpleNamespace(lora_alpha=round.alpha, lora_r=round.rank, rslora=False)
    states = factors(round)
    equal, exact = (round.s * forms.products(round, w) for w in (round.equal, round.p))
    made = effect(aggregated_state(normal, model_of(round), states), round)
    report("fedit (fedavg)", made, round.s * forms.mean_product(round, round.p),
           {"means without p_k": round.s * forms.mean_product(round, round.equal)})
    model = model_of(round)
    A = model.state_dict()[f"layer.{A_KEY}"].double().numpy()
    B = {weights: forms.mean_factors(round, w)[0] for weights, w in (("p", round.p), ("equal", round.equal))}
    report("ffa", effect(aggregated_state(ffa, model, states), round), round.s * B["p"] @ A,
           {"mean without p_k": round.s * B["equal"] @ A})
    rest = equal - round.s * forms.mean_product(round, round.equal)
    for name, conv1d in (("fedex on Conv1D [i, o]", True), ("fedex on nn.Linear [o, i]", False)):
        state = aggregated_state(fedex, fedex_model(round, conv1d), states, args)
        if conv1d:
            state[f"layer.{W_KEY}"] = state[f"layer.{W_KEY}"].T
        report(name, effect(state, round), exact,
               {"means without p_k": equal, "means without p_k, residual transposed": equal - rest + rest.T})


def fed_sb(repo):
    """putssander/fed-sb, a fork of CERT-Lab/fed-sb"""
    module = load(repo, "fed_sb.fed.fed_agg", HUGGING_FACE + ("tqdm", "sklearn", "fed_sb.models"))
    fedex_family(module.aggregate_models_fed_it, module.aggregate_models_ffa, module.aggregate_models_fedex, a_round(inputs=13))
    round = a_round(outputs=4, inputs=4)
    key, model = "default_lora_latent_mapping.weight", nn.Module()
    model.default_lora_latent_mapping = nn.Linear(4, 4, bias=False)
    made = aggregated_state(module.aggregate_models_fed_sb, model, [{key: tensor(a)} for a in round.A])[key]
    report("fedsb: R", made, forms.mean_factors(round, round.p)[1],
           {"mean without p_k": forms.mean_factors(round, round.equal)[1]})


def frlora(repo):
    """IAMJackYan/FRLoRA"""
    module, round = load(repo, "fed_global"), a_round()
    args = SimpleNamespace(alg="ours", peft_lora_r=round.rank, peft_lora_alpha=round.alpha)
    model = nn.Module()
    model.layer = nn.Linear(*round.W.T.shape, bias=False)
    model.layer.weight = nn.Parameter(tensor(round.W), requires_grad=False)
    start = dict.fromkeys(("layer.lora_A.weight", "layer.lora_B.weight"))
    start, model = module.ours_init(args, start, model)
    B, A = forms.principal_factors(round.W, round.rank, round.s)
    report("frlora: s B_0 A_0", scaled(round, start), round.s * B @ A)
    report("frlora: W - s B_0 A_0", model.layer.weight, round.W - round.s * B @ A)
    states = factors(round, a="lora_A.weight", b="lora_B.weight")
    made, _ = module.global_aggregate(args, dict(start), dict(enumerate(states)), round.rows, len(states))
    report("frlora: s(B A - B_0 A_0)", scaled(round, made) - scaled(round, start),
           round.s * (forms.mean_product(round, round.p) - B @ A),
           {"means without p_k": round.s * (forms.mean_product(round, round.equal) - B @ A)})


def fedask(repo):
    """FLEECERmw/PrivacyFedLLM"""
    round = a_round()
    policy = load(repo, "policy", HUGGING_FACE)
    rows, states = dict(enumerate(round.rows)), dict(enumerate(factors(round, a="lora_A.weight", b="lora_B.weight")))
    with quiet():
        torch.manual_seed(0)
        plain = policy.FedAvgPolicy(rows, target_device=torch.device("cpu")).global_aggregate(states, list(rows))
        sketch = len(rows) * round.rank
        made = policy.FedASKPolicy(states[0], sketch, rows, round.rank).global_aggregate(states, list(rows))
    report("fedavg", scaled(round, plain), round.s * forms.mean_product(round, round.p))
    exact = round.s * forms.products(round, round.p)
    report("fedask, sketch of R columns", scaled(round, made), forms.best_rank(exact, round.rank))


def fedsvd(repo):
    """sw-programmer/FedSVD"""
    round, path = a_round(), "encoder.layer.0"
    module = load(repo, "fedmm.fedavg.server", HUGGING_FACE + ("wandb", "rich", "tqdm", "dataset", "modules.logger"))
    module.tqdm = lambda values, **_: values
    tools = load(repo, "misc.utils")
    tools.LoraLayer = Layer

    def run(model, reset=False, **options):
        server = module.Server.__new__(module.Server)
        server.model, server.gpu_id, server.scaling_factor = model_of(round, path), "cpu", round.s
        server.logger = SimpleNamespace(print=lambda text: None)
        flags = dict.fromkeys(("agg_flora", "agg_flora_svd", "agg_fedex"), False)
        server.args = SimpleNamespace(model=model, **{**flags, **options})
        begun = {key: v.clone().numpy() for key, v in server.model.state_dict().items()}
        updates = {k: {key: np.asarray(state.get(key, begun[key])) - begun[key] for key in begun}
                   for k, state in enumerate(factors(round, path))}
        with quiet():
            merged = server.aggregate(updates, round.p.tolist())
            server.model.load_state_dict({key: torch.as_tensor(np.asarray(v)) for key, v in merged.items()})
            if reset:
                tools.reinit_lora(server.model)
        return server.model.state_dict(), begun

    exact = round.s * forms.products(round, round.p)
    report("fedavg", effect(run("fedavg")[0], round, path), round.s * forms.mean_product(round, round.p))
    report("flora", effect(run("fedavg", agg_flora=True)[0], round, path), exact)
    report("fedex", effect(run("fedavg", agg_fedex=True)[0], round, path), exact)
    for name, reset in (("ffa", False), ("fedsvd", True)):
        state, begun = run("ffa", reset)
        A = np.asarray(begun[f"{path}.{A_KEY}"], np.float64)
        report(name, effect(state, round, path), round.s * forms.mean_factors(round, round.p)[0] @ A)
    A = np.asarray(state[f"{path}.{A_KEY}"], np.float64)
    report("fedsvd: A A^T", A @ A.T, np.eye(round.rank))


def nvflare(repo):
    """NVIDIA/NVFlare, examples/advanced/medgemma"""
    module = load(repo, "custom_aggregators", ("nvflare",), below="examples/advanced/medgemma")
    round = a_round(ranks=(3, 5, 2))
    exact = round.s * forms.products(round, round.p)
    for name, kind, form in (
            ("fedavg, padded", module.NaiveMaxRankAggregator, round.s * forms.mean_product(round, round.p)),
            ("hlora (flexlora)", module.HLoRAMaxRankAggregator, forms.best_rank(exact, round.rank))):
        aggregator = kind(global_lora_rank=round.rank)
        aggregator.info = lambda text: None
        for rows, state in zip(round.rows, factors(round, a="lora_A.weight", b="lora_B.weight")):
            aggregator.accept_model(module.FLModel(params=state, params_type=module.ParamsType.FULL, metrics=None,
                                                   meta={"num_examples": rows}))
        report(name, scaled(round, aggregator.aggregate_model().params), form)


def appfl(repo):
    """APPFL/APPFL, its LoRA aggregator by SVD"""
    round = a_round(inputs=13)
    module = load(repo, "federated_lora_svd_aggregator", ("appfl", "omegaconf"), below="src/appfl/algorithm/aggregator")
    exact = round.s * forms.products(round, round.p)
    cut, equal = forms.best_rank(exact, round.rank), forms.best_rank(round.s * forms.products(round, round.equal), round.rank)
    states = dict(enumerate(factors(round, a="w_lora_A", b="w_lora_B")))
    for mode, form in (("equal", equal), ("sample_size", cut)):
        aggregator = module.FederatedLoRASVDAggregator(aggregator_configs=dict(lora_rank=round.rank, client_weights_mode=mode))
        aggregator.sample_sizes = dict(enumerate(round.rows))
        made = scaled(round, aggregator.aggregate(states), ".w_lora_A", ".w_lora_B")
        report(f"flexlora, weights {mode}", made, form, {"transposed": form.T})
