#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Plays the README's and the tutorial's commands, as they stand there, in a bare Debian that has nothing but its base packages.
# usage: tests/docs/bare_machine.sh DIR [SUITE]      (as root; DIR: where the system is made; SUITE: bookworm, trixie)
# Needs debootstrap, and FSLLM_TEST_DATA for the published GSM8K file and a small model. The machine's own addresses of package
# archives are used. The commit that is checked out is what is built.
# Exit code 77: such a system cannot be made here (why is said); whatever fails in it afterwards is a failure of the page.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

cannot() { echo "bare_machine: no bare system here ($*)" >&2; exit 77; }
if [[ ${1:-} != --inside ]]; then  # mounts of its own, which end with it: DIR may be deleted afterwards
  : "${1:?a folder for the system is needed}" "${FSLLM_TEST_DATA:?FSLLM_TEST_DATA is needed}"
  [[ $(id -u) == 0 ]] || cannot "it needs root"
  command -v debootstrap >/dev/null || cannot "no debootstrap"
  unshare --mount true 2>/dev/null || cannot "mounts are not allowed"
  exec unshare --mount bash tests/docs/bare_machine.sh --inside "$@"
fi

dir=$2 suite=${3:-bookworm} data=$FSLLM_TEST_DATA home=/root/fsllm_hpc
if [[ ! -e $dir/etc/debian_version ]]; then
  mirror=$(sed -n 's/^URIs: *\([^ ]*\).*/\1/p; s/^deb \(\[[^]]*\] \)\?\(http[^ ]*\).*/\2/p' /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | head -1 || true)
  debootstrap --variant=minbase "$suite" "$dir" ${mirror:+"$mirror"} || cannot "debootstrap of $suite failed"
fi
dir=$(cd "$dir" && pwd)
# How this machine reaches archives: addresses, proxies, certificates.
mkdir -p "$dir/usr/local/share/ca-certificates"
for file in /etc/resolv.conf /etc/pip.conf /etc/apt/apt.conf.d/* /usr/local/share/ca-certificates/*; do
  [[ ! -f $file ]] || cp "$file" "$dir$file"
done
reach=()
for name in http_proxy https_proxy no_proxy PIP_INDEX_URL PIP_TRUSTED_HOST; do
  [[ -z ${!name:-} ]] || reach+=("$name=${!name}")
done
for place in proc dev sys; do mount --rbind "/$place" "$dir/$place"; done
chroot "$dir" apt-get update -qq || cannot "its package archives are out of reach"
rm -rf "$dir"/var/lib/apt/lists/*  # a bare system has none: the first command must fetch them

mkdir -p "$dir$home/data" "$dir/root/tutorial"
git archive HEAD | tar -x -C "$dir$home"
git rev-parse HEAD >"$dir$home/.commit"
cp "$data/datasets/gsm8k/train.jsonl" "$dir$home/data/gsm8k_train.jsonl"
cp -rL "$data/models/stories260K" "$dir/root/tutorial/model"
python3 tests/docs/walk.py README.md --script >"$dir/root/readme.sh"
{ echo ". $home/build/env.sh"; python3 tests/docs/walk.py docs/TUTORIAL.md --script; } >"$dir/root/tutorial.sh"

play() { chroot "$dir" env -i ${reach[@]+"${reach[@]}"} HOME=/root TERM=dumb PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin bash -c "cd $1 && bash $2" </dev/null; }
play "$home" /root/readme.sh
echo "bare_machine: the README took $((SECONDS / 60)) min"
play /root/tutorial /root/tutorial.sh
echo "bare_machine: README and tutorial done on Debian $(cat "$dir/etc/debian_version") in $((SECONDS / 60)) min"
