#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tools/bundle.sh's folder in a root that holds the C library, a shell, readlink and a LibTorch, and nothing else: the programs
# start, two ranks run the quickstart's training there, and their adapter has the bits of the programs it was packed from.
# With --full DIR: all rounds of the quickstart; the bundle and both runs stay in DIR. FSLLM_BUNDLE_BUILD: another build to pack.
set -euo pipefail
cd "$FSLLM_SOURCE_DIR"
fail() { echo "FAILED: $*" >&2; exit 1; }
skip() { echo "SKIPPED: $*"; exit 77; }

work=${2:-$(mktemp -d)}
[[ ${1:-} == --full ]] || trap 'rm -rf "$work"' EXIT
mkdir -p "$work"

private=(unshare --mount --propagation private)  # mounts that end with the command
(($(id -u) == 0)) || private=(unshare --map-root-user --mount --propagation private)
"${private[@]}" true 2>"$work/why" || skip "no bare root can be made here ($(tail -n 1 "$work/why"))"
ompi_info --version 2>/dev/null | grep -q 'v4\.' || skip "bundles are made with Open MPI 4 alone"

build=${FSLLM_BUNDLE_BUILD:-${FSLLM_BIN_DIR%/bin}}
bash tools/bundle.sh --programs --build "$build" "$work/bundle"
if bash tools/bundle.sh --build "$build" "$work/bundle" >"$work/out" 2>&1; then fail "a folder with something in it was taken"; fi
grep -q 'bundle exists (it would be mixed up with the bundle)' "$work/out" || fail "$(<"$work/out")"

# The root. What the C library has goes there from this machine: nothing that a bundle should have brought.
root=$work/root
mkdir -p "$root"/{bin,etc,proc,sys,dev,tmp,lib64,opt/bundle,opt/libtorch,data,model,out}
for program in "$(realpath "$(command -v sh)")" "$(command -v readlink)"; do
  cp "$program" "$root/bin/"
  ldd "$program" | grep -o '/[^ ]*' | sort -u | while read -r library; do cp --parents -L "$library" "$root"; done
done
[[ -e $root/bin/sh ]] || ln -s "$(basename "$(realpath "$(command -v sh)")")" "$root/bin/sh"
libc=$(ldd "$(command -v readlink)" | awk '$1 == "libc.so.6" { print $3 }')
for name in libc libm libpthread libdl librt libutil libresolv; do
  for library in "${libc%/*}/$name".so.?; do cp --parents -L "$library" "$root"; done
done
echo 'root:x:0:0:root:/tmp:/bin/sh' >"$root/etc/passwd"
echo '127.0.0.1 localhost' >"$root/etc/hosts"

torch_lib=$(sed -n 's/^LibTorch_CPU_LIBRARY:[A-Z]*=//p' "$build/CMakeCache.txt")
libtorch=$(realpath "$(dirname "$torch_lib")/../..")  # with the wheels of CUDA beside torch/, which it asks for
model=$PWD/.deps/models/SmolLM2-135M-Instruct.Q4_1.gguf
bare() {  # bare COMMAND...: in that root, with the variables that are named here
  "${private[@]}" bash -c '
    root=$1 bundle=$2 libtorch=$3 source=$4 model=$5
    shift 5
    mount --rbind /sys "$root/sys" && mount --rbind /dev "$root/dev" && mount -t proc proc "$root/proc" 2>/dev/null || mount --rbind /proc "$root/proc"
    mount --bind "$bundle" "$root/opt/bundle" && mount --bind "$libtorch" "$root/opt/libtorch"
    mount --bind "$source/datasets/quickstart" "$root/data" && mount --bind "$(dirname "$model")" "$root/model"
    exec env -i PATH=/bin HOME=/tmp OMP_NUM_THREADS=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
      OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1 \
      OMPI_MCA_btl_vader_single_copy_mechanism=none ${Torch_ROOT:+Torch_ROOT="$Torch_ROOT"} "$(command -v chroot)" "$root" "$@"
  ' bare "$root" "$work/bundle" "$libtorch" "$PWD" "$model" "$@"
}
[[ -e $model ]] || model=$PWD/configs/none

# It starts, with the LibTorch beside it and with one that is named, and tells what is wrong with another.
for name in fsllm_hpc fsllm_shard fsllm_eval fsllm_export fsllm_inspect; do
  bare "/opt/bundle/bin/$name" --version | grep '^LibTorch' || fail "$name does not start"
done
[[ -s $work/bundle/share/man/man1/fsllm_hpc.1 && -s $work/bundle/share/bash-completion/completions/fsllm_sweep ]] || fail "no man page or completion"
refused() {  # refused TORCH_ROOT WORDS
  if Torch_ROOT=$1 bare /opt/bundle/bin/fsllm_hpc --version >"$work/out" 2>&1; then fail "Torch_ROOT=$1 was taken"; fi
  grep -qF "$2" "$work/out" || fail "no '$2' in: $(<"$work/out")"
}
Torch_ROOT=/opt/libtorch/torch bare /opt/bundle/bin/fsllm_hpc --version >/dev/null
refused /tmp 'Torch_ROOT = /tmp (it has no lib/libtorch_cpu.so).'
mkdir -p "$root/opt/old/lib"
touch "$root/opt/old/lib/libtorch_cpu.so"
echo "__version__ = '2.5.1+cu124'" >"$root/opt/old/version.py"
refused /opt/old "/opt/old is LibTorch  '2.5.1+cu124' (this bundle was built with 2."

[[ -e $model ]] || skip "no demo model for the training (tools/bootstrap.sh --with-demo-model); the programs started"
keys=(federate.total_round_num 1 train.local_update_steps 1 dataloader.batch_size 2 data.splits '[1.0, 0.0, 0.0]')
if [[ ${1:-} == --full ]]; then keys=(); fi
here=$work/here
mkdir -p "$here"
started=$SECONDS
# In the root, then with the programs it was packed from.
bare /opt/bundle/bin/mpirun -np 2 /opt/bundle/bin/fsllm_hpc --cfg /opt/bundle/share/fsllm/configs/quickstart.yaml \
  model.type "/model/$(basename "$model")" data.root /data outdir /out hpc.stage_dir /out/weights "${keys[@]}"
middle=$SECONDS
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none OMP_NUM_THREADS=1
"$FSLLM_MPIEXEC" -np 2 "$FSLLM_BIN_DIR/fsllm_hpc" --cfg configs/quickstart.yaml model.type "$model" data.root datasets/quickstart \
  outdir "$here" hpc.stage_dir "$root/out/weights" "${keys[@]}"
echo "seconds: $((middle - started)) in the root, $((SECONDS - middle)) outside of it"
sum() { sha256sum "$1/quickstart/adapter/adapter_model.safetensors" | cut -d ' ' -f 1; }
echo "adapter: $(sum "$root/out") in the root, $(sum "$here") outside of it"
[[ $(sum "$root/out") == "$(sum "$here")" ]] || fail "the two adapters differ"
