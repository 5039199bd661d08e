# SPDX-License-Identifier: Apache-2.0
"""Closed forms of the rules of docs/ALGORITHMS.md as dense float64 matrices, and what an implementation made of the same
round is against them. For check_public_aggregation.py.
"""
from dataclasses import dataclass

import numpy as np

BOUND = 1e-5  # public code computes in float32


@dataclass
class Round:
    """What the clients of a round send for one matrix W [o, i]: A_k [r_k, i], B_k [o, r_k], their rows n_k; s = alpha / r."""

    A: list
    B: list
    rows: list
    alpha: int
    W: np.ndarray

    @property
    def s(self):
        return self.alpha / self.rank

    @property
    def rank(self):
        return max(len(a) for a in self.A)

    @property
    def p(self):
        return np.array(self.rows) / sum(self.rows)

    @property
    def equal(self):
        return np.full(len(self.rows), 1 / len(self.rows))


def a_round(ranks=(4, 4, 4), outputs=13, inputs=17, rows=(10, 30, 60), alpha=6, seed=1):
    """Factors that all begin near the same ones, as after a turn of training."""
    random = np.random.default_rng(seed)
    top = max(ranks)
    A, B = random.normal(size=(top, inputs)), random.normal(size=(outputs, top))
    return Round([A[:r] + random.normal(size=(r, inputs)) for r in ranks],
                 [B[:, :r] + random.normal(size=(outputs, r)) for r in ranks], list(rows), alpha,
                 random.normal(size=(outputs, inputs)))


def products(round, weights):
    """Σ weight_k B_k A_k"""
    return sum(w * b @ a for w, a, b in zip(weights, round.A, round.B))


def mean_factors(round, weights):
    """Means of the factors, padded with zeros to the largest rank: B̄, Ā"""
    A = sum(w * np.pad(a, ((0, round.rank - len(a)), (0, 0))) for w, a in zip(weights, round.A))
    B = sum(w * np.pad(b, ((0, 0), (0, round.rank - b.shape[1]))) for w, b in zip(weights, round.B))
    return B, A


def mean_product(round, weights):
    B, A = mean_factors(round, weights)
    return B @ A


def best_rank(matrix, rank):
    U, S, V = np.linalg.svd(matrix, full_matrices=False)
    return U[:, :rank] * S[:rank] @ V[:rank]


def least_rank(matrix, energy):
    """The smallest rank that keeps this share of Σσ²."""
    S = np.linalg.svd(matrix, compute_uv=False) ** 2
    return int(np.argmax(np.cumsum(S) / S.sum() >= energy)) + 1


def product_norms(round):
    """HetLoRA's weights: ‖B_k A_k‖_F over their sum."""
    norms = np.array([np.linalg.norm(b @ a) for a, b in zip(round.A, round.B)])
    return norms / norms.sum()


def principal_factors(W, rank, s):
    """FRLoRA's start: the largest singular values of W in equal parts, divided by s."""
    U, S, V = np.linalg.svd(W, full_matrices=False)
    root = np.sqrt(S[:rank] / s)
    return U[:, :rank] * root, root[:, None] * V[:rank]


def adaptive(kind, deltas, beta1=0.9, beta2=0.99, lr=0.1, tau=1e-3, v_of="delta", first=None):
    """The path of w under a server optimiser without correction of bias (Reddi et al. 2021). `first`: the first m is Δ
    itself; v_of = "m": v collects m² in the place of Δ²."""
    w, m, v = np.zeros_like(deltas[0]), np.zeros_like(deltas[0]), np.full_like(deltas[0], tau ** 2)
    for t, delta in enumerate(deltas):
        m = delta if kind == "adagrad" or (first and t == 0) else beta1 * m + (1 - beta1) * delta
        square = (m if v_of == "m" else delta) ** 2
        v = {"adam": beta2 * v + (1 - beta2) * square, "yogi": v - (1 - beta2) * square * np.sign(v - square),
             "adagrad": v + square}[kind]
        w = w + lr * m / (np.sqrt(v) + tau)
    return w


def momentum(deltas, beta=0.9, damping=0.0, first=False):
    """FedAvgM's path of w: v = βv + (1 − damping)Δ."""
    w = v = np.zeros_like(deltas[0])
    for t, delta in enumerate(deltas):
        v = delta if first and t == 0 else beta * v + (1 - damping) * delta
        w = w + v
    return w


def squared_distances(updates):
    return np.array([[np.sum((a - b) ** 2) for b in updates] for a in updates])


def krum_choice(distances, left, faulty):
    """Of the clients `left` the one with the least sum over its nearest len(left) − f − 2 others (Blanchard et al. 2017)."""
    near = max(len(left) - faulty - 2, 1)
    return min(left, key=lambda k: sum(sorted(distances[k][j] for j in left if j != k)[:near]))


def bulyan(updates, faulty):
    """El Mhamdi et al. 2018: K − 2f times Krum among those left, then of each coordinate the mean of the K − 4f values
    nearest to the median."""
    distances, left, chosen = squared_distances(updates), list(range(len(updates))), []
    while len(chosen) < len(updates) - 2 * faulty:
        chosen.append(krum_choice(distances, left, faulty))
        left.remove(chosen[-1])
    values = np.array([updates[k] for k in chosen])
    order = np.argsort(np.abs(values - np.median(values, axis=0)), axis=0, kind="stable")
    return np.take_along_axis(values, order[:len(updates) - 4 * faulty], axis=0).mean(axis=0)


def relative(made, exact):
    made, exact = np.asarray(made, np.float64), np.asarray(exact, np.float64)
    if made.shape != exact.shape:
        return float("inf")
    error, size = np.linalg.norm(made - exact), np.linalg.norm(exact)
    return float(error / size) if size > 0 else float("inf") if error > 0 else 0.0


def judge(made, exact, variants=None):
    """(satisfied, relative error, sentence): the closed form, or the named variant that was made instead."""
    error = relative(made, exact)
    if error <= BOUND:
        return True, error, "satisfies the closed form"
    for name, form in (variants or {}).items():
        if relative(made, form) <= BOUND:
            return False, error, f"differs: {name} ({relative(made, form):.0e})"
    return False, error, "differs"


def report(method, made, exact, variants=None):
    satisfied, error, sentence = judge(made, exact, variants)
    print(f"  {method:34} {error:9.1e}  {sentence}", flush=True)
    return satisfied
