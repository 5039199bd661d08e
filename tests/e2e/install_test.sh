#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# An installation that nobody may write to any more, found by `module load` from another folder: two ranks train, and every
# program has a man page without complaints and completes its options in a real bash.
set -euo pipefail
fail() { echo "FAILED: $*" >&2; exit 1; }
skip() { echo "SKIPPED: $*"; exit 77; }
build=${FSLLM_BIN_DIR%/bin}
work=$(mktemp -d)
cleanup() { chmod -R u+w "$work" && rm -rf "$work"; }
trap cleanup EXIT
prefix=$work/prefix
cmake --install "$build" --prefix "$prefix" > "$work/install.log"
if grep -i warning "$work/install.log"; then fail "the installation warns"; fi
version=$("$prefix/bin/fsllm_hpc" --version | awk 'NR == 1 { print $2 }')
programs=(hpc shard eval export inspect serve chat sweep requeue)

echo "== man pages"
for name in "${programs[@]}"; do
  page=$prefix/share/man/man1/fsllm_$name.1
  [[ -s $page ]] || fail "fsllm_$name has no man page"
  [[ $name == requeue ]] || diff <(grep -o '^\\fB\\-\\-[^ ]*' "$page" | tr -d '\\' | sed 's/fB//; s/fR.*//' | sort) \
    <("$prefix/bin/fsllm_$name" --help | grep -oE '^  (--|-h \[ )[a-z_-]*' | sed 's/^ *//' | sort -u) || fail "the page of fsllm_$name has other options than --help"
done
if command -v mandoc > /dev/null; then
  mandoc -Tlint -Wwarning "$prefix"/share/man/man1/*.1 > "$work/lint" || { cat "$work/lint"; fail "mandoc complains"; }
fi
if command -v man > /dev/null && command -v groff > /dev/null; then
  for name in "${programs[@]}"; do
    MANWIDTH=80 man --warnings --local-file "$prefix/share/man/man1/fsllm_$name.1" > "$work/page" 2> "$work/warnings" || fail "man fails"
    [[ ! -s $work/warnings ]] || { cat "$work/warnings"; fail "man complains of fsllm_$name"; }
    grep -qE "fsllm_$name +- " "$work/page" || fail "man shows no page of fsllm_$name"
  done
fi

echo "== completion"
complete_words() { # WORD...: what bash offers for the last one
  env -i PATH="$prefix/bin:$PATH" bash --norc -c '
    source "$1/share/bash-completion/completions/$2"
    shift
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
    $(complete -p "$1" | sed "s/.*-F \([^ ]*\) .*/\1/") "$1" "${COMP_WORDS[COMP_CWORD]}"
    printf "%s\n" "${COMPREPLY[@]}"' complete "$prefix" "$@" 2> "$work/warnings"
}
offers() { # EXPECTED WORD...
  local expected=$1
  shift
  complete_words "$@" | grep -qx -- "$expected" || { complete_words "$@"; cat "$work/warnings"; fail "'$*' does not offer $expected"; }
  [[ ! -s $work/warnings ]] || { cat "$work/warnings"; fail "completion complains"; }
}
for name in "${programs[@]}"; do
  [[ -s $prefix/share/bash-completion/completions/fsllm_$name ]] || fail "fsllm_$name has no completion"
  [[ $name == requeue ]] || offers --version "fsllm_$name" --ver
done
offers --print-config fsllm_hpc --cfg run.yaml --print-c
offers federate.total_round_num fsllm_hpc --cfg run.yaml federate.total
offers federate.method fsllm_hpc --describe federate.met
offers hpc.threads fsllm_shard --cfg run.yaml hpc.thr
mkdir "$work/here" && touch "$work/here/run.yaml"
(cd "$work/here" && offers run.yaml fsllm_hpc --cfg ru)

echo "== a module, read-only"
if [[ $(id -u) -eq 0 ]] && unshare --mount true 2> /dev/null; then
  read_only=(unshare --mount bash -c 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && if touch "$1/x" 2> /dev/null; then exit 9; fi && shift && exec "$@"' ro "$prefix")
else
  chmod -R a-w "$prefix"
  read_only=()
fi
cat > "$work/here/run.yaml" << YAML
outdir: exp
expname: run
seed: 1
use_gpu: False
model: {type: $FSLLM_SOURCE_DIR/tests/reference/llama}
data: {root: $FSLLM_SOURCE_DIR/tests/reference/federated, type: rows.jsonl, splitter: natural, splitter_args: [{field: client}], splits: [1.0, 0.0, 0.0]}
federate: {method: FedAvg, client_num: 3, total_round_num: 1}
train: {local_update_steps: 1}
llm: {tok_len: 64, adapter: {use: True, args: [{adapter_method: lora, r: 2, target_modules: [q_proj]}]}}
YAML
loaded=0
for init in /usr/share/modules/init/bash /usr/share/lmod/lmod/init/bash ${FSLLM_TEST_MODULES_INIT:-}; do # DIR/init/bash of another one
  [[ -e $init ]] || continue
  rm -rf "$work/here/exp"
  (cd "$work/here" && "${read_only[@]}" bash -c '
    set -e
    . "$1"
    module use "$2/share/modulefiles"
    module load "fsllm_hpc/$3"
    [[ $(command -v fsllm_hpc) == "$2/bin/fsllm_hpc" && $FSLLM_HPC_ROOT == "$2" ]]
    [[ $(man --where fsllm_hpc 2> /dev/null || echo "$2/share/man/man1/fsllm_hpc.1") == "$2/share/man/man1/fsllm_hpc.1" ]]
    case :$XDG_DATA_DIRS: in *:/usr/share:*) ;; *) exit 8 ;; esac
    "$FSLLM_MPIEXEC" -np 2 fsllm_hpc --cfg run.yaml
    module unload fsllm_hpc
    if command -v fsllm_hpc; then exit 7; fi' module "$init" "$prefix" "$version") > "$work/out" 2>&1 || { cat "$work/out"; fail "$init"; }
  [[ -e $work/here/exp/run/adapter/adapter_model.safetensors ]] || fail "$init: no result"
  loaded=1
  echo "loaded with $init"
done
((loaded)) || skip "neither Environment Modules nor Lmod is here; the rest passed"
