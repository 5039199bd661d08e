# SPDX-License-Identifier: Apache-2.0
"""What public implementations of server optimisers, SCAFFOLD, robust rules and DiLoCo make of a round's updates, through
their own functions. One function a project, which takes its checkout; for check_public_aggregation.py.
"""
import itertools
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

import public_forms as forms
from public_factors import HUGGING_FACE, tensor
from public_forms import report
from public_loading import load, quiet, without_init

ROWS = (10, 30, 60)
SIZE = 12


class Parameters(nn.Module):
    """Parameters of these sizes, all zero."""

    def __init__(self, **sizes):
        super().__init__()
        for name, size in sizes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(size)))


def adamw(gradient, w, steps, rate, after=0.0, inside=0.0):
    """AdamW's path on gradient(w) + inside; `after` is subtracted rate times after each step (Loshchilov & Hutter 2019)."""
    m = v = np.zeros_like(w)
    for t in range(1, steps + 1):
        g = gradient(w) + inside
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g ** 2
        w = w - rate * (m / (1 - 0.9 ** t)) / (np.sqrt(v / (1 - 0.999 ** t)) + 1e-8) - rate * after
    return w


def sgd(gradient, w, steps, rate, after=0.0, inside=0.0):
    for _ in range(steps):
        w = w - rate * (gradient(w) + inside) - rate * after
    return w


def scaffold(begin):
    """begin(w, c, c_k, rate, steps) gives a model, its correction after each step, and what c_k + is at the end."""
    random = np.random.default_rng(5)
    w, c, c_k, target = (random.normal(size=SIZE) for _ in range(4))
    curvature, rate, steps = random.uniform(0.5, 2, size=SIZE), 0.05, 4

    def gradient(y):
        return curvature * (y - target)

    for name, path, kind in (("scaffold, SGD", sgd, torch.optim.SGD), ("scaffold, AdamW", adamw, torch.optim.AdamW)):
        model, correct, new_control = begin(w, c, c_k, rate, steps)
        optimizer = kind(model.parameters(), lr=rate, **({"weight_decay": 0.0} if kind is torch.optim.AdamW else {}))
        for step in range(steps):
            model.w.grad = tensor(gradient(model.w.detach().double().numpy()))
            optimizer.step()
            correct(step)
        y = path(gradient, w, steps, rate, inside=c - c_k)
        after = path(gradient, w, steps, rate, after=c - c_k)
        report(name, model.w.detach(), y, {"c - c_k is added after the optimiser's step": after})
        made = model.w.detach().double().numpy()
        report(name + ": c_k of this path", new_control(), c_k - c + (w - made) / (steps * rate))


def peft_functions(module):
    """PEFT's state of a model with one parameter w."""
    def set_state(model, state):
        with torch.no_grad():
            model.w.copy_(state["w"])

    module.get_peft_model_state_dict = lambda model: {"w": model.w.detach().clone()}
    module.set_peft_model_state_dict = set_state


def openfedllm(repo):
    """rui-ye/OpenFedLLM"""
    module = load(repo, "federated_learning.fed_global", HUGGING_FACE + ("tqdm",))
    random = np.random.default_rng(4)
    updates = random.normal(size=(2, len(ROWS), SIZE))
    p = np.array(ROWS) / sum(ROWS)
    deltas = {True: [p @ u for u in updates], False: [u.mean(axis=0) for u in updates]}

    def run(method):
        args = SimpleNamespace(fed_alg=method, num_clients=len(ROWS), fedopt_beta1=0.9, fedopt_beta2=0.99, fedopt_eta=0.1,
                               fedopt_tau=1e-3)
        state, m, v = ({"w": torch.full((SIZE,), x)} for x in (0.0, 0.0, 1e-6))
        for t, round in enumerate(updates):
            local = [{"w": state["w"] + tensor(u)} for u in round]
            state, _ = module.global_aggregate(args, state, local, ROWS, range(len(ROWS)), t, m, v)
        return state["w"]

    report("fedavg", run("fedavg"), sum(deltas[True]), {"Δ without p_k": sum(deltas[False])})
    report("fedavgm", run("fedavgm"), forms.momentum(deltas[True]),
           {"v = βv + (1 - β)Δ, first v = Δ": forms.momentum(deltas[True], damping=0.9, first=True)})
    for kind in ("adam", "yogi", "adagrad"):
        variants = {}
        for weighted, first, of in itertools.product((True, False), (False, True), ("delta", "m")):
            name = ["Δ without p_k"] * (not weighted) + ["first m = Δ"] * first + ["v of m²"] * (of == "m")
            variants.setdefault(", ".join(name), forms.adaptive(kind, deltas[weighted], first=first, v_of=of))
        report("fed" + kind, run("fed" + kind), forms.adaptive(kind, deltas[True]), variants)

    local = load(repo, "federated_learning.fed_local_sft")
    peft_functions(local)
    try:
        local.get_fed_local_sft_trainer(None, SimpleNamespace(fed_alg="fedadagrad"), *[None] * 9)
        print("  fedadagrad has a local trainer")
    except ValueError as error:
        print(f"  fedadagrad's local trainer: {error}")
    except AttributeError:
        print("  fedadagrad has a local trainer")

    def begin(w, c, c_k, rate, steps):
        model = Parameters(w=SIZE)
        model.w.data = tensor(w)
        trainer = local.SFTTrainerSCAFFOLD(
            model=model, args=SimpleNamespace(learning_rate=rate, max_steps=steps), global_state={"w": tensor(w)},
            local_auxiliary={"w": tensor(c_k)}, global_auxiliary={"w": tensor(c)})
        callback = local.SCAFFOLD_Callback(trainer.correction, model)
        return model, lambda step: callback.on_step_end(trainer.args, None, None), lambda: trainer.get_auxiliary_param()[0]["w"]

    scaffold(begin)


def privacy_scaffold(repo):
    """FLEECERmw/PrivacyFedLLM, its SCAFFOLD"""
    module = load(repo, "policy.policy_scaffold", HUGGING_FACE)
    peft_functions(module)

    def begin(w, c, c_k, rate, steps):
        model = Parameters(w=SIZE)
        model.w.data = tensor(w)
        policy = module.ScaffoldPolicy({0: 1}, {"w": tensor(w)}, target_device=torch.device("cpu"))
        policy.global_c, policy.local_c = {"w": tensor(c)}, {0: {"w": tensor(c_k)}}
        return (model, lambda step: policy.local_callback(model, 0, [rate], step, steps),
                lambda: policy.local_c[0]["w"])

    scaffold(begin)


def federatedscope(repo):
    """alibaba/FederatedScope, Pengxin-Guo/FedSA-LoRA (built on it)"""
    without_init(repo, "federatedscope", "federatedscope.core", "federatedscope.core.auxiliaries")
    module = load(repo, "federatedscope.core.aggregators", ("federatedscope.core.auxiliaries.optimizer_builder", "tensorflow"))
    clients, faulty, sizes = 8, 1, dict(a=4, b=30, c=9)
    rows = [10 * (k + 1) for k in range(clients)]
    p = np.array(rows) / sum(rows)
    robust = SimpleNamespace(byzantine_node_num=faulty, BFT_args=SimpleNamespace(
        krum_agg_num=1, trimmedmean_excluded_ratio=0.2, normbounding_norm_bound=5.0))
    config = SimpleNamespace(aggregator=robust, asyn=SimpleNamespace(staleness_discount_factor=0.5), federate=SimpleNamespace(
        client_num=clients, sample_client_rate=1.0, ignore_weight=False, use_ss=False))

    def updates_of(seed):
        """Updates whose tensors differ in size from client to client."""
        random = np.random.default_rng(seed)
        return np.concatenate([random.normal(size=(clients, n)) * random.uniform(0.2, 2, size=(clients, 1))
                               for n in sizes.values()], axis=1)

    def run(kind, updates, **more):
        cuts = np.cumsum(list(sizes.values()))[:-1]
        feedback = [(n, dict(zip(sizes, map(tensor, np.split(u, cuts))))) for n, u in zip(rows, updates)]
        with quiet():
            made = getattr(module, kind)(model=Parameters(**sizes), config=config).aggregate(
                {"client_feedback": feedback, **more})
        return np.concatenate([made[name].double().numpy() for name in sizes])

    u = updates_of(0)
    inner = np.sort(u, axis=0)
    report("fedavg", run("ClientsAvgAggregator", u), p @ u)
    stale = [k % 3 for k in range(clients)]
    report("asyn", run("AsynClientsAvgAggregator", u, staleness=list(enumerate(stale))),
           (p / np.sqrt(1 + np.array(stale))) @ u)
    report("median", run("MedianAggregator", u), np.median(u, axis=0))
    report("trimmedmean", run("TrimmedmeanAggregator", u), inner[1:-1].mean(axis=0))
    bound = np.minimum(1, 5.0 / np.linalg.norm(u, axis=1))
    report("normbounding", run("NormboundingAggregator", u), (p * bound) @ u)
    everyone = list(range(clients))

    def ranking(u):
        """Clients by the sum over their nearest others of Σ over tensors of unsquared distances."""
        parts = np.split(u, np.cumsum(list(sizes.values()))[:-1], axis=1)
        distances = sum(np.sqrt(forms.squared_distances(part)) for part in parts)
        near = [np.sort(np.delete(row, k))[:clients - faulty - 2].sum() for k, row in enumerate(distances)]
        return np.argsort(near)

    rounds = [updates_of(seed) for seed in range(200)]
    counted("krum", [run("KrumAggregator", u) for u in rounds],
            [u[forms.krum_choice(forms.squared_distances(u), everyone, faulty)] for u in rounds],
            "ranked by unsquared distances, summed over tensors", [u[ranking(u)[0]] for u in rounds])
    counted("bulyan", [run("BulyanAggregator", u) for u in rounds], [forms.bulyan(u, faulty) for u in rounds],
            "ranked once by unsquared distances, then trimmed means",
            [np.sort(u[ranking(u)[:-2 * faulty]], axis=0)[faulty:-faulty].mean(axis=0) for u in rounds])


def counted(method, made, exact, variant, of_variant):
    """As report, of many rounds: the mean relative error, and how many rounds are those of the closed form and the variant."""
    errors = np.array([forms.relative(m, e) for m, e in zip(made, exact)])
    same = sum(forms.relative(m, v) <= forms.BOUND for m, v in zip(made, of_variant))
    print(f"  {method:34} {errors.mean():9.1e}  the closed form in {sum(errors <= forms.BOUND)} of {len(made)} rounds; "
          f"{variant} in {same}")


def torchft(repo):
    """pytorch/torchft, its DiLoCo"""
    without_init(repo, "torchft")
    module = load(repo, "torchft.local_sgd", ("torchft.manager",))
    random = np.random.default_rng(6)

    class Work:
        def wait(self):
            return True

        def get_future(self):
            future = torch.futures.Future()
            future.set_result([])
            return future

    class TwoReplicas:
        """The other one's pseudogradient is always three times this one's: the mean is twice this one's."""

        def allreduce(self, values, should_quantize=False):
            values.mul_(2)
            return Work()

        def should_commit(self):
            return True

    def run(sizes, words):
        sizes = {f"p{j}": n for j, n in enumerate(sizes)}
        model = Parameters(**sizes)
        outer = torch.optim.SGD(model.parameters(), lr=0.7, momentum=0.9, nesterov=True)
        fragment = module._StreamingDiLoCoFragment(
            TwoReplicas(), model, 0, 0, None, outer, 2, use_bucketization=words > 0, bucket_cap_mb=words * 4 / 2 ** 20)
        fragment.save_parameters()
        update = {name: random.normal(size=n) for name, n in sizes.items()}
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(tensor(update[name]))
        fragment.prepare_sync()
        fragment.perform_sync()
        made = np.concatenate([parameter.detach().double().numpy() for parameter in model.parameters()])
        mean = np.concatenate([2 * u for u in update.values()])
        return made, 0.7 * 1.9 * mean, update

    for name, sizes, words, skipped in (
            ("diloco, tensor by tensor", (5, 4, 3), 0, ()), ("diloco, buckets that tensors fill", (5, 3, 4), 8, ()),
            ("diloco, a tensor does not fit", (5, 4, 3), 8, (2,)), ("diloco, larger than a bucket", (5, 20, 3), 16, (1, 2))):
        made, exact, update = run(sizes, words)
        own = np.concatenate([0.7 * 1.9 * u * (1 if j in skipped else 2) for j, u in enumerate(update.values())])
        report(name, made, exact, {f"this replica's own update alone for {len(skipped)} of {len(sizes)} tensors": own})


def acfa(repo):
    """mgillr/acfa-rs, its reference in Python (it leaves rows out by design)"""
    module = load(repo, "acfa", ("cryptography",), below="reference")
    random, clients, unit = np.random.default_rng(7), 10, 2.0 ** -16
    rows = np.arange(1, clients + 1)

    def mean(updates):
        fixed = module.mean_of([tuple(module.fp_encode(float(x)) for x in u) for u in updates])
        return np.array([module.fp_decode(v) for v in fixed])

    def floored(updates):
        nearest = np.sign(updates) * np.floor(np.abs(updates) / unit + 0.5)
        return np.floor(nearest.sum(axis=0) / clients) * unit

    u = random.normal(size=(clients, 50)) * 0.01
    report("fedavg", mean(u), rows / rows.sum() @ u, {"mean without p_k, rounded down to 2^-16": floored(u)})
    small = random.normal(size=(clients, 50)) * 1e-7
    report("fedavg, updates of 1e-7", mean(small), small.mean(axis=0), {"zero": 0 * small[0]})
    drift = np.mean([np.mean(mean(u) - u.mean(axis=0)) for u in random.normal(size=(1000, clients, 5)) * 0.01]) / unit
    print(f"  {'drift of a mean, in units of 2^-16':34} {drift:9.2f}  over 1000 rounds of {clients} clients")
