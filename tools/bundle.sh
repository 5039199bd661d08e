#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Packs the programs, the GPU tests and the benches with every library they need, MPI included, into a folder that runs
# wherever a LibTorch of the same version lies: below 60 MiB, to take to machines without network or packages.
# usage: tools/bundle.sh [--cuda] [--with-parquet] [--programs] [--build DIR] OUT [CMAKE_ARGUMENTS]
#   --cuda           with CUDA and NCCL, whose libraries come with that LibTorch or lie on the machine
#   --with-parquet   with Apache Arrow, which alone is 47 MiB
#   --programs       without GPU tests and benches
#   --build DIR      packs what is built in that build folder as it is, and builds nothing
# Left out: LibTorch, CUDA, the C library. INSTALL tells how such a folder is used.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() { echo "bundle: $*" >&2; exit 2; }
flavour=bundle preset=release parquet=OFF build= benches=(comm_bench gemm_bench tokenizer_bench batch_bench dropout_bench aggregation_bench)
tests=(e2e_test nccl_test)
while (($#)); do
  case $1 in
    --cuda) flavour=bundle-cuda preset=cuda ;;
    --with-parquet) parquet=ON ;;
    --programs) tests=() benches=() ;;
    --build) build=${2:?--build needs a folder}; shift ;;
    -h | --help) sed -n '3,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) die "unknown option $1 (known: --cuda --with-parquet --programs --build). See --help." ;;
    *) break ;;
  esac
  shift
done
(($#)) || die "no folder to write to. See --help."
out=$(realpath -m "$1")
shift
[[ ! -e $out || -d $out && -z $(ls -A "$out") ]] || die "$out exists (it would be mixed up with the bundle). Remove it, or name another."

if [[ -z $build ]]; then
  build=build/$flavour
  # As the release build, if there is one: what it compiled comes out of ccache.
  mapfile -t same < <(grep -hE '^FSLLM_(UNITY|WERROR):' build/release/CMakeCache.txt 2>/dev/null | sed 's/^/-D/')
  ((${#same[@]})) || same=(-DFSLLM_UNITY=ON)
  cmake --preset "$preset" -B "$build" "${same[@]}" -DFSLLM_SHARED=ON -DFSLLM_PARQUET=$parquet -DFSLLM_BENCH=ON "$@"
  cmake --build "$build" -j "${FSLLM_BUILD_JOBS:-$(nproc)}" --target programs "${tests[@]}" "${benches[@]}"
fi
cached() { sed -n "s/^$1:[A-Z]*=//p" "$build/CMakeCache.txt" | head -n 1; }
[[ -e $build/CMakeCache.txt ]] || die "$build is no build folder (it has no CMakeCache.txt). Leave --build out."
torch_lib=$(dirname "$(realpath "$(cached LibTorch_CPU_LIBRARY)")")
mpirun=$(realpath "$(cached MPIEXEC_EXECUTABLE)")
[[ ${mpirun##*/} == orterun ]] || die "MPI is not Open MPI 4 ($mpirun; only that one is known to work from a moved folder). \
Build with it, or bring the MPI of the other machine and build there."
mpi_path() { "$(dirname "$mpirun")/ompi_info" --path "$1" --parsable | sed 's/^[^/]*//'; }

mkdir -p "$out"/{bin,libexec,lib/gcc,lib/openmpi,lib/pmix,etc,share/fsllm,licenses}
programs=(fsllm_hpc fsllm_shard fsllm_eval fsllm_export fsllm_inspect fsllm_serve fsllm_chat fsllm_sweep)
for name in "${programs[@]}" "${tests[@]}" "${benches[@]}"; do
  if [[ -e $build/bin/$name ]]; then cp "$build/bin/$name" "$out/libexec/$name"; fi
done
for name in "${programs[@]}"; do [[ -e $out/libexec/$name ]] || die "$build/bin has no $name. Build the target programs first."; done
cp "$mpirun" "$out/libexec/mpirun"
cp "$(dirname "$mpirun")/orted" "$out/libexec/orted"

# Plugins of Open MPI. Left out: fabrics that need drivers of their own (ranks talk by shared memory and TCP), files, OpenSHMEM.
for plugin in "$(mpi_path pkglibdir)"/mca_*.so; do
  case ${plugin##*/mca_} in
    *_ofi.so | *_ucx.so | *_psm*.so | *_openib.so | io_* | fs_* | fcoll_* | fbtl_* | sharedfp_*) ;;
    scoll_* | spml_* | memheap_* | sshmem_* | atomic_* | *_monitoring.so | vprotocol_* | *_flux.so) ;;
    *) cp "$plugin" "$out/lib/openmpi/" ;;
  esac
done
cp -r "$(mpi_path pkgdatadir)" "$out/share/openmpi"
printf '%s\n' 'pml = ob1' 'btl = self,vader,tcp' 'osc = ^pt2pt' >"$out/etc/openmpi-mca-params.conf"

# Every library they name, and those these name, but for LibTorch's, CUDA's and the C library's.
left_out='^(ld-linux.*|lib(c|m|pthread|dl|rt|util|resolv|anl|mvec)|lib(torch|c10|cu[^r]|curand|nv|nccl|gomp|caffe2).*)\.so'
declare -A origin=() kept=()
objects=("$out"/libexec/* "$out"/lib/openmpi/*.so)
resolve() {  # where the loader finds what an object needs, this build's LibTorch included
  local name path
  while read -r name path; do origin[$name]=$path; done < <(
    LD_LIBRARY_PATH=$torch_lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} ldd "$1" | awk '$2 == "=>" && $3 ~ /^\// { print $1, $3 }')
}
keep_needed() {  # keep_needed OBJECT: its libraries, and theirs
  local name
  for name in $(readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
    if [[ -n ${kept[$name]:-} || $name =~ $left_out ]]; then continue; fi
    [[ -n ${origin[$name]:-} ]] || die "$1 needs $name, which is not on this machine. Build anew."
    kept[$name]=$(realpath "${origin[$name]}")
    keep_needed "${kept[$name]}"
  done
}
for object in "${objects[@]}"; do resolve "$object"; keep_needed "$object"; done
if [[ -n ${kept[libpmix.so.2]:-} ]]; then
  pmix=$(dirname "${kept[libpmix.so.2]}")
  for plugin in "$pmix"/pmix/*.so; do cp "$plugin" "$out/lib/pmix/"; resolve "$plugin"; keep_needed "$plugin"; done
  cp -r "$pmix/../share/pmix" "$out/share/pmix"
fi
for name in "${!kept[@]}"; do
  case $name in
    libstdc++.so.6 | libgcc_s.so.1)
      real=$(basename "${kept[$name]}")  # its number tells the launcher which is newer
      cp "${kept[$name]}" "$out/lib/gcc/$real"
      [[ $real == "$name" ]] || ln -s "$real" "$out/lib/gcc/$name" ;;
    *) cp "${kept[$name]}" "$out/lib/$name" ;;
  esac
done
chmod -R u+w "$out"
find "$out"/{libexec,lib} -type f -exec strip --strip-unneeded {} +

# Words, data and scripts.
version=$("$build/bin/fsllm_hpc" --version)
torch_version=$(sed -n 's/^LibTorch: \([0-9]*\.[0-9]*\).*/\1/p' <<<"$version")
sed "s/@TORCH_VERSION@/$torch_version/" tools/bundle/launch >"$out/libexec/launch"
chmod +x "$out/libexec/launch"
for file in "$out"/libexec/*; do
  name=$(basename "$file")
  [[ $name == launch ]] || ln -s ../libexec/launch "$out/bin/$name"
done
mkdir -p "$out"/share/man/man1 "$out"/share/bash-completion/completions
for name in "${programs[@]}"; do
  "$build/bin/$name" --print-man >"$out/share/man/man1/$name.1"
  "$build/bin/$name" --print-completion >"$out/share/bash-completion/completions/$name"
done
# tests/text/golden: e2e_test reads it whenever it starts.
for part in configs datasets/quickstart tests/reference/llama tests/reference/federated tests/text/golden tests/bench tools/gpu_day tools/gpu_day.sh; do
  if [[ -e $part ]]; then
    mkdir -p "$out/share/fsllm/$(dirname "$part")"
    cp -r "$part" "$out/share/fsllm/$part"
  fi
done
find "$out/share/fsllm" -name __pycache__ -prune -exec rm -r {} +

# Whose the libraries are.
cp LICENSE "$out/LICENSE"
packages=(nlohmann-json3-dev libgtest-dev libspdlog-dev)  # compiled in
{
  echo "fsllm_hpc is under the Apache License 2.0 (LICENSE). The libraries beside it have the licences in licenses/:"
  for name in $(printf '%s\n' "${!kept[@]}" | grep -v '^libfsllm_' | sort); do
    package=$(dpkg -S "${kept[$name]}" 2>/dev/null || dpkg -S "${kept[$name]#/usr}" 2>/dev/null || true)
    package=${package%%:*}
    echo "$name from ${package:-${kept[$name]}}"
    packages+=(${package:+"$package"})
  done
  echo "mpirun, orted and lib/openmpi from openmpi-bin, libopenmpi3"
} >"$out/NOTICE"
for package in $(printf '%s\n' "${packages[@]}" openmpi-bin | sort -u); do
  if [[ -e /usr/share/doc/$package/copyright ]]; then gzip -9n </usr/share/doc/"$package"/copyright >"$out/licenses/$package.gz"; fi
done
for arrow in .deps/arrow/pyarrow-*/licenses; do
  if [[ -n ${kept[libarrow.so.2600]:-} && -d $arrow ]]; then cp -r "$arrow" "$out/licenses/arrow"; fi
done
glibc=$(find "$out"/{libexec,lib} -type f -print0 | { xargs -0 readelf -V 2>/dev/null || true; } | grep -o 'GLIBC_2\.[0-9.]*' | sort -uV | tail -n 1)
cat >"$out/README" <<TEXT
fsllm_hpc and what it needs, but LibTorch and CUDA. Put it anywhere.

$version

    export Torch_ROOT=DIR       # the folder of a LibTorch $torch_version with lib/ in it (or leave that beside this folder as libtorch/)
    bin/mpirun -np 2 bin/fsllm_hpc --cfg run.yaml

It needs a Linux of this processor family ($(uname -m)) with glibc ${glibc#GLIBC_} or newer. The GPU tests and benches of a
machine with a GPU:  bash share/fsllm/tools/gpu_day.sh
TEXT

bytes=$(find "$out" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum }')
arrow=$(find "$out/lib" \( -name 'libarrow.*' -o -name 'libparquet.*' \) -printf '%s\n' | awk '{ sum += $1 } END { print sum + 0 }')
echo "bundle: $out, $(((bytes + 1048575) / 1048576)) MiB, of which Apache Arrow $((arrow / 1048576)); needs glibc ${glibc#GLIBC_}, LibTorch $torch_version"
# A build whose programs hold a copy of the modules each (--build) may be larger.
if [[ $(cached FSLLM_SHARED) == ON ]] && ((bytes - arrow >= 60 * 1048576)); then
  die "more than 60 MiB without Arrow. Look for what grew: du -a $out | sort -n | tail"
fi
