#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes what a release consists of: the sources of a commit, and what tools/bootstrap.sh would fetch, each as an archive.
# Where the three lie beside each other, the sources build without network once the system's packages are there.
# usage: tools/release.sh OUT [COMMIT]      (OUT: a folder; COMMIT: a tag or commit, HEAD)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=${1:?a folder for the archives is needed} commit=$(git rev-parse "${2:-HEAD}^{commit}")
version=$(git show "$commit:CMakeLists.txt" | sed -n 's/^ *project(fsllm VERSION \([0-9.]*\).*/\1/p')
[[ -n $version ]] || { echo "release: $commit has no version in CMakeLists.txt." >&2; exit 2; }
mkdir -p "$out"
out=$(cd "$out" && pwd) name=fsllm_hpc-$version

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git archive --prefix="$name/" "$commit" | tar -x -C "$work"
echo "$commit" >"$work/$name/.commit"
when=$(git show -s --format=%cI "$commit")
tar --sort=name --mtime="$when" --owner=0 --group=0 --numeric-owner -C "$work" -cf - "$name" | gzip -n >"$out/$name.tar.gz"

# The archives of libraries hold folders of .deps, as bootstrap.sh takes them.
for library in libtorch arrow; do
  [[ -d .deps/$library ]] || { echo "release: no .deps/$library (tools/bootstrap.sh fetches it). Run that first." >&2; exit 2; }
  for info in .deps/"$library"/{torch,pyarrow}-*.dist-info; do
    [[ ! -d $info ]] || library_version=${info#*"$library"/*-}
  done
  tar -C .deps -cf "$out/fsllm_hpc-deps-$library-${library_version%.dist-info}-$(uname -m).tar" "$library"
done
(cd "$out" && sha256sum "$name.tar.gz" fsllm_hpc-deps-*.tar >"$name.sha256")
cat "$out/$name.sha256"
