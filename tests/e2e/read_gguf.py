# SPDX-License-Identifier: Apache-2.0
"""Reads GGUF files with llama.cpp's own package: read_gguf.py FILE.gguf FACTS.json

The facts: keys (lists as their length), and of each tensor its type, shape in the file's order, and the sum and
largest size of its values. Exit code 77 where the package is not installed."""
import json
import sys

try:
    import gguf
except ImportError as problem:
    print(problem)
    sys.exit(77)

reader = gguf.GGUFReader(sys.argv[1])
keys = {}
for name, field in reader.fields.items():
    value = field.contents()
    keys[name] = len(value) if isinstance(value, list) else value
tensors = {}
for tensor in reader.tensors:
    values = gguf.dequantize(tensor.data, tensor.tensor_type)
    tensors[tensor.name] = {"type": tensor.tensor_type.name, "shape": [int(n) for n in tensor.shape],
                            "sum": float(values.sum(dtype="float64")), "largest": float(abs(values).max())}
json.dump({"keys": keys, "tensors": tensors}, open(sys.argv[2], "w"))
