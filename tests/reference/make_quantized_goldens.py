# SPDX-License-Identifier: Apache-2.0
"""Makes tests/model/quantized.safetensors: matrices as bitsandbytes quantises them on the CPU.

    python tests/reference/make_quantized_goldens.py        (bitsandbytes 0.50, torch 2.11)

For each matrix: the fp32 values, NF4 codes with double quantisation (blocks of 64 and 256), the values they stand for, and
the int8 codes and row scales of LLM.int8(). The code books are beside them. bitsandbytes runs without its native library: of two
neighbours that are nearly as far, the library's CPU code takes the farther one for about one block's scale in 250, which
neither its tensor code does nor its CUDA code.
"""
import ctypes
import pathlib

import torch
from safetensors.torch import save_file

load_library = ctypes.cdll.LoadLibrary


def load_others(path):
    if "bitsandbytes" in str(path):
        raise OSError("not wanted")
    return load_library(path)


ctypes.cdll.LoadLibrary = load_others
import bitsandbytes.functional as F  # noqa: E402

OUT = pathlib.Path(__file__).resolve().parent.parent / "model" / "quantized.safetensors"


def matrices():
    torch.manual_seed(7)
    yield "square", torch.randn(8, 64)
    yield "odd", torch.randn(13, 91) * 0.02            # 1183 values: neither whole blocks nor whole bytes
    yield "outliers", torch.randn(12, 128) * torch.where(torch.rand(12, 1) < 0.1, 30.0, 0.3)
    yield "zeros", torch.cat([torch.zeros(4, 64), torch.randn(4, 64)])
    yield "many", torch.randn(258, 64)                 # more than one block of scales


def main():
    out = {"nf4_values": F.get_4bit_type("nf4", device="cpu"), "dynamic_map": F.create_dynamic_map()}
    for name, values in matrices():
        codes, state = F.quantize_4bit(values, blocksize=64, quant_type="nf4", compress_statistics=True)
        out[f"{name}.values"] = values
        out[f"{name}.nf4.codes"] = codes.view(-1)
        out[f"{name}.nf4.absmax"] = state.absmax
        out[f"{name}.nf4.nested"] = state.state2.absmax
        out[f"{name}.nf4.offset"] = state.offset.view(1)
        out[f"{name}.nf4.dequantized"] = F.dequantize_4bit(codes, state).view(values.shape)
        int8, scales, _ = F.int8_vectorwise_quant(values)
        out[f"{name}.int8.codes"] = int8
        out[f"{name}.int8.scales"] = scales / 127
    save_file({k: v.contiguous() for k, v in out.items()}, OUT)


main()
