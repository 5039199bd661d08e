# SPDX-License-Identifier: Apache-2.0
"""The GPU parts of tools/gpu_day.sh on the CPU, with tiny models in the place of large ones: no such row may end in an error of
the scripts when a GPU is there for half an hour. Judges no number.

    python3 tests/bundle/gpu_day_rehearsal.py SOURCE BIN FOLDER
"""
import os
import pathlib
import sys

source, programs, folder = (pathlib.Path(x).resolve() for x in sys.argv[1:])
sys.path.insert(0, str(source / "tools/gpu_day"))
import main  # noqa: E402
import parts  # noqa: E402
import shapes  # noqa: E402


def script(name, text):
    path = folder / "bin" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/usr/bin/env bash\n" + text)
    path.chmod(0o755)


script("nvidia-smi", 'case $* in *name*) echo "NVIDIA H200, 580.1" ;; *) echo 1024; sleep 30 ;; esac\n')
script("fsllm_hpc", f"""args=()
for a; do [[ $a == use_gpu=True ]] && a=use_gpu=False; [[ $a == train.compute_dtype=fp16 ]] && a=train.compute_dtype=bf16; args+=("$a"); done
if [[ ${{1:-}} == --version ]]; then {programs}/fsllm_hpc --version | sed 's/CUDA: OFF/CUDA: ON/'; else exec {programs}/fsllm_hpc "${{args[@]}}"; fi
""")
gtest = "echo '[  PASSED  ] 3 tests.'\n"
script("nccl_test", gtest)
script("e2e_test", gtest)
os.environ["PATH"] = f"{folder}/bin:{os.environ['PATH']}"
for shape in ("1B", "8B"):
    shapes.SHAPES[shape] = shapes.SHAPES["tiny"]
shapes.DOLLY[:] = range(5, 37)
lengths = shapes.lengths
shapes.lengths = lambda rows, seq: lengths(rows, 32 if seq == 4096 else seq)
parts.STORAGES[:] = ["nf4"]
parts.CASES[:] = [("1B", "lora", 4096, 2, 1), ("8B", "full", "dolly", 2, 1)]
sys.argv = ["gpu_day", "--root", str(source), "--bin", str(folder / "bin"), "--out", str(folder / "out"), "--work", str(folder / "work")]
main.main()
