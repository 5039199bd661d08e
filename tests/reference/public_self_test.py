# SPDX-License-Identifier: Apache-2.0
"""The self-test of check_public_aggregation.py: its closed forms against loops over single values, and stand-in projects, of
which those that aggregate wrongly must be reported so.
"""
import contextlib
import io
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import public_forms as forms

# A project's FedAvg(...) that reads clients' files and a package that is not there; WEIGHT is to be filled in.
STAND_IN = '''
import torch
from peft import set_peft_model_state_dict
import transformers.models.absent as absent


def FedAvg(model, selected_clients_set, output_dir, local_dataset_len_dict, epoch):
    total = sum(local_dataset_len_dict.values())
    files = [torch.load(f"{output_dir}/{epoch}/local_output_{k}/pytorch_model.bin") for k in selected_clients_set]
    shares = [WEIGHT for k in selected_clients_set]
    set_peft_model_state_dict(model, {key: sum(p * f[key] for p, f in zip(shares, files)) for key in files[0]}, "default")
'''


def by_values(round, weights):
    """Σ_k weight_k Σ_j B_k[a, j] A_k[j, b], value by value."""
    outputs, inputs = round.W.shape
    return np.array([[sum(w * b[row, j] * a[j, column] for w, a, b in zip(weights, round.A, round.B) for j in range(len(a)))
                      for column in range(inputs)] for row in range(outputs)])


def check_forms():
    for ranks in ((4, 4, 4), (3, 5, 2)):
        round = forms.a_round(ranks)
        exact = by_values(round, round.p)
        assert abs(sum(round.p) - 1) < 1e-15 and round.s != 1 and len(set(round.p)) == 3
        assert forms.relative(forms.products(round, round.p), exact) < 1e-14
        stacked = np.concatenate(round.B, axis=1) @ np.concatenate([p * a for p, a in zip(round.p, round.A)])
        assert forms.relative(stacked, exact) < 1e-14
        pairs = [(p * q, a, b) for p, b in zip(round.p, round.B) for q, a in zip(round.p, round.A)]
        mixed = sum(w * b[:, :min(len(a), b.shape[1])] @ a[:min(len(a), b.shape[1])] for w, a, b in pairs)
        assert forms.relative(forms.mean_product(round, round.p), mixed) < 1e-14
        assert forms.relative(mixed, exact) > 0.01

        values, vectors = np.linalg.eigh(exact.T @ exact)
        kept = vectors[:, -round.rank:]
        assert forms.relative(forms.best_rank(exact, round.rank), exact @ kept @ kept.T) < 1e-12
        rank = forms.least_rank(exact, 0.9)
        share = np.cumsum(values[::-1]) / values.sum()
        assert share[rank - 1] >= 0.9 and (rank == 1 or share[rank - 2] < 0.9)
        B, A = forms.principal_factors(round.W, round.rank, round.s)
        assert forms.relative(round.s * B @ A, forms.best_rank(round.W, round.rank)) < 1e-12
        assert np.allclose(np.linalg.norm(B, axis=0), np.linalg.norm(A, axis=1))
        assert np.allclose(forms.product_norms(round) * sum(np.sqrt(np.sum((b @ a) ** 2)) for a, b in zip(round.A, round.B)),
                           [np.linalg.norm(b @ a) for a, b in zip(round.A, round.B)])


def check_server_forms():
    deltas = [np.array([0.5, -2.0]), np.array([1.0, 0.25])]
    m = 0.9 * 0.1 * deltas[0] + 0.1 * deltas[1]
    v1 = 0.99e-6 + 0.01 * deltas[0] ** 2
    w = 0.1 * 0.1 * deltas[0] / (np.sqrt(v1) + 1e-3) + 0.1 * m / (np.sqrt(0.99 * v1 + 0.01 * deltas[1] ** 2) + 1e-3)
    assert forms.relative(forms.adaptive("adam", deltas), w) < 1e-14
    assert forms.relative(forms.momentum(deltas), 1.9 * deltas[0] + deltas[1]) < 1e-14
    updates = np.array([[0.0], [1.0], [1.5], [2.6], [3.0], [9.0], [-7.0]])
    assert forms.krum_choice(forms.squared_distances(updates), list(range(7)), 1) == 2
    assert abs(forms.bulyan(updates, 1)[0] - 5.1 / 3) < 1e-15  # of 0, 1, 1.5, 2.6, 3 those nearest to 1.5: 1, 1.5, 2.6


def check_judgement():
    round = forms.a_round()
    exact = round.s * forms.products(round, round.p)
    variants = {"without s": exact / round.s, "means of factors": round.s * forms.mean_product(round, round.p)}
    assert forms.judge(exact * (1 + 1e-7), exact, variants)[0]
    for name, wrong in variants.items():
        satisfied, error, sentence = forms.judge(wrong, exact, variants)
        assert not satisfied and error > 0.01 and name in sentence, sentence
    assert forms.judge(exact + 1e-3, exact, variants)[2] == "differs"
    assert not forms.judge(exact[:-1], exact)[0]
    assert not forms.judge(exact * np.nan, exact)[0]
    assert not forms.judge(exact, 0 * exact)[0] and forms.judge(0 * exact, 0 * exact)[0]


def check_program():
    """The whole program on stand-in projects."""
    for weight, expected in (("local_dataset_len_dict[k] / total", "satisfies the closed form"),
                             ("1 / len(files)", "differs: means without p_k"), ("0.1", "differs\n")):
        with tempfile.TemporaryDirectory() as folder:
            package = Path(folder, "fed_utils")
            package.mkdir()
            (package / "model_aggregation.py").write_text(STAND_IN.replace("WEIGHT", weight))
            program = Path(__file__).with_name("check_public_aggregation.py")
            shown = subprocess.run([sys.executable, program, "FederatedGPT-Shepherd", "--repo", folder], check=True,
                                   capture_output=True, text=True).stdout
            assert expected in shown, (weight, shown)


def run():
    with contextlib.redirect_stdout(io.StringIO()):
        for check in (check_forms, check_server_forms, check_judgement, check_program):
            check()
    print("closed forms equal sums over single values; wrong aggregations are reported as wrong")
    return 0
