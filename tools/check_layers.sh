#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Checks what the compiler does not: the module table of docs/ARCHITECTURE.md, where heavy or foreign
# headers may appear, the licence line and the length of files. Prints file:line: message; exit 1 if any.
# usage: tools/check_layers.sh [DIR]   (default: this repository)
set -euo pipefail
cd "${1:-$(dirname "${BASH_SOURCE[0]}")/..}"

# module: what it may include besides itself.
layers='
core: core
comm: core
io: core
jinja: core
text: core io jinja
data: core io text
model: core io
peft: core io model
train: core data model peft
eval: core io text model peft
fed: core comm io text data model peft train eval
align: core comm io text data model peft train eval fed
offsite: core comm io text data model peft train eval fed
serve: core comm io text data model peft train eval
sweep: core io
report: core io
app: core comm io jinja text data model peft train eval fed align offsite serve sweep report
'
# Single headers that a module may include beyond its row.
exceptions='
train fsllm/comm/collective.hpp
'
# Foreign header (regular expression) and the files that may include it (regular expression, ^$ for none).
homes='
mpi\.h                     ^(src|tests)/comm/
nccl\.h                    ^(src|tests)/comm/
hdf5.*\.h                  ^(src|tests)/io/
(arrow|parquet)/.*         ^(src|tests)/io/parquet
yaml-cpp/.*                ^src/(core/config|sweep/spec)
boost/program_options.*    ^(src/app|tools)/
sentencepiece.*            ^src/text/
httplib\.h                 ^(src/serve|tests)/
pcre2\.h                   ^src/(text/|core/python_regex)
torch/(torch|nn|extension)\.h  ^$
torch/(all|optim)\.h       ^src/(train|fed)/
'
# Headers that cost seconds a file, barred from every header of ours.
heavy='torch/(all|nn/module|optim|script|types)\.h|torch/csrc/.*|ATen/(ATen|Functions|Tensor|TensorOperators)\.h'
max_lines=400

files() {
  { git ls-files -co --exclude-standard 2>/dev/null || find * .ci -type f -not -path 'build/*' 2>/dev/null; } |
    grep -E "$1" | while read -r file; do [[ ! -f $file ]] || echo "$file"; done
}
mapfile -t sources < <(files '^(include|src|tests|tools)/.*\.(cpp|hpp)$')
mapfile -t others < <(files '(\.(sh|py|cmake)|^\.ci/run)$')

check_includes() {
  grep -nHE '^[[:space:]]*#[[:space:]]*include' "${sources[@]}" |
    sed -E 's/^([^:]*):([0-9]*):[^<"]*[<"]([^>"]*).*/\1 \2 \3/' |
    LAYERS=$layers EXCEPTIONS=$exceptions HOMES=$homes HEAVY="^($heavy)\$" awk '
      function say(text) { print $1 ":" $2 ": " text }
      function module_of(path,  part) {  # of include/fsllm/M/..., src/M/... and fsllm/M/...
        return split(path, part, "/") > 2 ? part[path ~ /^include/ ? 3 : 2] : ""
      }
      BEGIN {
        n = split(ENVIRON["LAYERS"], row, "\n")
        for (i = 1; i <= n; i++)
          for (j = split(row[i], word, /[: ]+/); j > 0; j--) may[word[1], word[j]] = 1
        n = split(ENVIRON["EXCEPTIONS"], row, "\n")
        for (i = 1; i <= n; i++) if (split(row[i], word, " ")) excepted[word[1], word[2]] = 1
        n = split(ENVIRON["HOMES"], row, "\n")
        for (i = 1; i <= n; i++) if (split(row[i], word, " ")) { foreign[++rules] = "^" word[1] "$"; home[rules] = word[2] }
      }
      $1 ~ /^(include|src)\// {
        module = module_of($1)
        if (!((module, module) in may)) say("module " module " has no row in tools/check_layers.sh")
        if ($3 ~ /^fsllm\//) {
          other = module_of($3)
          if (!((module, other) in may) && !((module, $3) in excepted)) say(module " must not include " other " (" $3 ")")
        }
      }
      $3 ~ /\.\.\// && !($1 ~ /^src\/[^\/]*\/[^\/]*\// && $3 ~ /^\.\.\/[^\/]*$/) { say("include by module path, not through ..: " $3) }
      $1 ~ /\.hpp$/ && $3 ~ ENVIRON["HEAVY"] { say("heavy header in a header: " $3 " (include it in the .cpp)") }
      { for (r = 1; r <= rules; r++) if ($3 ~ foreign[r] && $1 !~ home[r])
          say($3 " has no place here (" (home[r] == "^$" ? "it costs seconds a file" : "only in " home[r]) ")") }'
}

check_files() {
  local file
  for file in "${sources[@]}" "${others[@]}"; do
    head -n 3 "$file" | grep -q 'SPDX-License-Identifier: Apache-2.0' ||
      echo "$file:1: no line 'SPDX-License-Identifier: Apache-2.0'"
    (($(wc -l <"$file") <= max_lines)) || echo "$file:$max_lines: longer than $max_lines lines; split it"
  done
}

problems=$(check_includes; check_files)
[[ -z $problems ]] || { echo "$problems"; exit 1; }
echo "layers: ${#sources[@]} sources and ${#others[@]} scripts keep the rules"
