#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# suite.py measures, writes its results and makes the page of them; what it cannot use it names, with exit code 2.
set -euo pipefail
command -v python3 > /dev/null || { echo "SKIPPED: no python3"; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "FAILED: $*" >&2; tail -n 20 "$dir"/out/log.txt "$dir"/*.log >&2; exit 1; }
suite() { python3 "$FSLLM_SOURCE_DIR/tests/bench/suite.py" "$@" > "$dir/suite.log" 2>&1; }
measure() { suite --bin "$FSLLM_BIN_DIR" --model "$FSLLM_SOURCE_DIR/tests/reference/llama" --out "$dir/out" --quick --repeat 1 "$@"; }
refused() { # WHAT IS SAID, then a command
  local code=0 said=$1
  shift
  "$@" || code=$?
  ((code == 2)) || fail "$*: exit code $code"
  grep -q "$said" "$dir/suite.log" || fail "$*: '$said' is not said"
}

measure --only clients || fail "clients"
measure --only length,strong || fail "length and strong scaling"
suite --page "$dir/out/results.json" "$dir/PERFORMANCE.md" || fail "the page"
for what in "## Against the number of clients" "## Against the length of rows" "## More ranks" "measure nothing"; do
  grep -q "$what" "$dir/PERFORMANCE.md" || fail "the page has no '$what'"
done
grep -o 'img/[a-z_]*\.svg' "$dir/PERFORMANCE.md" > "$dir/images.txt"
(($(wc -l < "$dir/images.txt") == 3)) || fail "the page has other plots"
while read -r image; do
  python3 -c "import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])" "$dir/$image" || fail "$image is no SVG"
done < "$dir/images.txt"
if grep -q "$FSLLM_SOURCE_DIR" "$dir/out/results.json" "$dir/PERFORMANCE.md"; then fail "the results name folders of this machine"; fi

refused "no part 'speed'" measure --only speed
refused "no --data" measure --only step
refused "another machine, model" suite --bin "$FSLLM_BIN_DIR" --model "$FSLLM_SOURCE_DIR/tests/reference/gpt2" --out "$dir/out" --quick --only clients
refused "no config.json" suite --bin "$FSLLM_BIN_DIR" --model "$dir" --out "$dir/out"
refused "cannot be read" suite --page "$dir/none.json" "$dir/PERFORMANCE.md"
echo '{"format": "fsllm_benchmarks", "version": 1}' > "$dir/empty.json"
refused "lacks what the page shows" suite --page "$dir/empty.json" "$dir/PERFORMANCE.md"
