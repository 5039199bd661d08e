# SPDX-License-Identifier: Apache-2.0
"""compat.fsllm: the rows that fsllm_shard puts into train, val and test against numpy's permutation.

    python tests/reference/check_fs_llm_split.py BIN_DIR      (numpy, h5py)

Rows are numbered by their token, so that a shard tells which row stands where. FederatedScope calls
numpy.random.seed(12345) and permutation(n) and cuts at int(share * n); the server's file holds val and test as they are
cut, a single client the training rows, in an order that its splitter shuffles once more.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import h5py
import numpy as np

CASES = [(7473, (0.998, 0.001, 0.001)), (15011, (0.9, 0.05, 0.05)), (52002, (0.8, 0.1, 0.1)), (20022, (0.98, 0.01, 0.01)),
         (23, (0.5, 0.25, 0.25)), (100, (1.0, 0.0, 0.0)), (97, (0.7, 0.3, 0.0))]


def rows_of(path, split):
    with h5py.File(path) as f:
        return f[split]["tokens"][:][1::2].astype(np.int64) if split in f else np.array([], np.int64)


def check(program, n, shares):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "model").mkdir()
        (folder / "model/config.json").write_text(json.dumps(dict(
            model_type="llama", architectures=["LlamaForCausalLM"], vocab_size=60000, hidden_size=8, intermediate_size=8,
            num_hidden_layers=1, num_attention_heads=1)))
        with open(folder / "rows.jsonl", "w") as out:
            for i in range(n):
                out.write(json.dumps({"input_ids": [0, i], "labels": [-100, i]}) + "\n")
        (folder / "run.yaml").write_text(json.dumps({
            "outdir": name, "model": {"type": str(folder / "model")}, "compat": {"fsllm": True}, "seed": 7,
            "data": {"root": name, "type": "rows.jsonl", "splitter": "iid", "splits": list(shares)},
            "federate": {"client_num": 1}}))
        subprocess.run([program, "--cfg", folder / "run.yaml", "--out", folder / "shards"], check=True,
                       stdout=subprocess.DEVNULL)
        np.random.seed(12345)
        order = np.random.permutation(n)
        train, val = int(shares[0] * n), int(shares[1] * n)
        server = folder / "shards/server.h5"
        assert np.array_equal(rows_of(server, "val"), order[train:train + val]), (n, shares, "val")
        assert np.array_equal(rows_of(server, "test"), order[train + val:]), (n, shares, "test")
        mine = rows_of(folder / "shards/client_00001.h5", "train")
        assert np.array_equal(np.sort(mine), np.sort(order[:train])), (n, shares, "train")


for n, shares in CASES:
    check(f"{sys.argv[1]}/fsllm_shard", n, shares)
print(f"{len(CASES)} splits equal numpy {np.__version__}'s, {sum(n for n, _ in CASES)} rows")
