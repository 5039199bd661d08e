#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# datasets/fetch.sh with a curl that copies a file: what it lists, refuses, checks and leaves behind.
set -euo pipefail
script=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/datasets/fetch.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin"
cat >"$work/bin/curl" <<'CURL'
#!/usr/bin/env bash
while (($#)); do
  if [[ $1 == --output ]]; then out=$2; fi
  shift
done
cp "$FETCHED" "$out"
CURL
chmod +x "$work/bin/curl"
export PATH=$work/bin:$PATH FETCHED=$work/fetched

fail() { echo "FAILED: $*" >&2; exit 1; }
expect() {  # expect CODE WORDS ARGUMENTS...
  local code=0 words=$2 wanted=$1 out
  shift 2
  out=$(bash "$script" "$@" 2>&1) || code=$?
  [[ $code == "$wanted" ]] || fail "fetch.sh $*: exit $code, not $wanted: $out"
  [[ $out == *"$words"* ]] || fail "fetch.sh $*: no '$words' in: $out"
}

expect 0 'usage: datasets/fetch.sh' --help
expect 2 'usage: datasets/fetch.sh'
expect 2 'unknown option --from' --from x
expect 2 "no data set 'dolly'. Known: alpaca alpaca_cleaned dolly-15k gsm8k rosetta_alpaca code_search_net." dolly
for name in alpaca_data.json alpaca_data_cleaned.json databricks-dolly-15k.jsonl gsm8k_train.jsonl rosetta_alpaca.json \
  python.zip javascript.zip java.zip ruby.zip php.zip go.zip; do
  expect 0 "$name" list
done

echo '{"instruction": "i"}' >"$FETCHED"
expect 0 'databricks-dolly-15k.jsonl from https://raw.githubusercontent.com/databrickslabs/' --to "$work/data" dolly-15k@llm
cmp "$FETCHED" "$work/data/databricks-dolly-15k.jsonl"
expect 0 'is there already' --to "$work/data" dolly-15k
expect 2 'its SHA-256 is not' --to "$work/data" gsm8k
echo '<html>' >"$FETCHED"
expect 2 'it does not begin with [: perhaps a page of errors' --to "$work/data" alpaca
: >"$FETCHED"
expect 2 'it is empty' --to "$work/data" rosetta_alpaca
[[ ! -e $work/data/alpaca_data.json && ! -e $work/data/rosetta_alpaca.json ]] || fail "a bad file was left under its name"
