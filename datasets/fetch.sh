#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fetches published data sets under the names that the program looks for. For a machine with internet: the program
# itself never downloads anything.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: datasets/fetch.sh [--to DIR] NAME...
       datasets/fetch.sh list
Fetches data sets by the NAME of data.type (without @llm) into DIR (default: data, as data.root). A file that is
there already stays. Needs curl or Python.
TEXT
}

# name | file under data.root | address | first bytes | SHA-256, where it is known
github=https://raw.githubusercontent.com
code_search_net=https://huggingface.co/datasets/code_search_net/resolve/main/data
table="
alpaca          | alpaca_data.json           | $github/tatsu-lab/stanford_alpaca/761dc5bfbdeeffa89b8bff5d038781a4055f796a/alpaca_data.json | [ |
alpaca_cleaned  | alpaca_data_cleaned.json   | $github/gururise/AlpacaDataCleaned/a7d629079a95c2e4b7ec7dfe55087fbd18d9eba8/alpaca_data_cleaned.json | [ |
dolly-15k       | databricks-dolly-15k.jsonl | $github/databrickslabs/dolly/d000e3030970379aabbf6d291f50ffdd3b715b64/data/databricks-dolly-15k.jsonl | { |
gsm8k           | gsm8k_train.jsonl          | $github/openai/grade-school-math/3101c7d5072418e28b9008a6636bde82a006892c/grade_school_math/data/train.jsonl | { | 17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465
rosetta_alpaca  | rosetta_alpaca.json        | $github/sahil280114/codealpaca/d269da106a579a623a654529b3cb91b5dfa9c72f/data/rosetta_alpaca.json | [ |
code_search_net | python.zip                 | $code_search_net/python.zip     | PK |
code_search_net | javascript.zip             | $code_search_net/javascript.zip | PK |
code_search_net | java.zip                   | $code_search_net/java.zip       | PK |
code_search_net | ruby.zip                   | $code_search_net/ruby.zip       | PK |
code_search_net | php.zip                    | $code_search_net/php.zip        | PK |
code_search_net | go.zip                     | $code_search_net/go.zip         | PK |
"

say() { echo "fetch: $*"; }
die() { echo "fetch: $*" >&2; exit 2; }

rows_of() {  # rows_of NAME ("" for all): name file address first sha256
  local name file address first sha256
  while IFS='|' read -r name file address first sha256; do
    name=${name// /}
    [[ -n $name && (-z $1 || $name == "$1") ]] || continue
    echo "$name ${file// /} ${address// /} ${first// /} ${sha256// /}"
  done <<<"$table"
}

check() {  # check FILE FIRST SHA256: prints what is wrong
  [[ -s $1 ]] || { echo "it is empty"; return; }
  [[ $(head -c "${#2}" "$1") == "$2" ]] || { echo "it does not begin with $2: perhaps a page of errors"; return; }
  [[ -z $3 || $(sha256sum "$1" | cut -d' ' -f1) == "$3" ]] || { echo "its SHA-256 is not $3"; return; }
  [[ $2 != PK ]] || ! command -v unzip >/dev/null || unzip -tqq "$1" >/dev/null 2>&1 || echo "the archive is damaged"
}

# By curl, or by Python, which tools/bootstrap.sh needs too.
download() {  # download ADDRESS FILE
  if command -v curl >/dev/null; then
    curl --fail --location --silent --show-error --retry 3 --output "$2" "$1"
  elif command -v python3 >/dev/null; then
    python3 -c 'import sys, urllib.request; urllib.request.urlretrieve(*sys.argv[1:])' "$1" "$2"
  else
    die "curl is missing. Install it, or fetch the addresses of 'datasets/fetch.sh list' by hand."
  fi
}

fetch() {  # fetch FILE ADDRESS FIRST SHA256
  local path=$to/$1 problem
  if [[ -e $path ]]; then
    say "$path is there already"
    return
  fi
  say "$path from $2"
  download "$2" "$path.part" ||
    die "$2 cannot be fetched. Try again later, or put the file there as $path by hand."
  problem=$(check "$path.part" "$3" "${4:-}")
  [[ -z $problem ]] || die "$path.part: $problem. Remove it and try again."
  mv "$path.part" "$path"
}

to=data names=()
while (($#)); do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --to) to=${2:?--to needs a folder}; shift ;;
    -*) usage >&2; die "unknown option $1" ;;
    *) names+=("${1%@llm}") ;;
  esac
  shift
done
((${#names[@]})) || { usage >&2; exit 2; }

if [[ ${names[0]} == list ]]; then
  rows_of "" | while read -r name file address _; do printf '%-16s %-27s %s\n' "$name" "$file" "$address"; done
  exit 0
fi
for name in "${names[@]}"; do
  [[ -n $(rows_of "$name") ]] ||
    die "no data set '$name'. Known: $(rows_of "" | cut -d' ' -f1 | uniq | paste -sd' ')."
done
mkdir -p "$to"
for name in "${names[@]}"; do
  while read -r _ file address first sha256; do fetch "$file" "$address" "$first" "$sha256"; done < <(rows_of "$name")
done
