#!/usr/bin/env bash
# Fills a folder with every package of the lock, so that an image, or an environment, is made without a network.
#
#   scripts/wheelhouse.sh [FOLDER]     default .wheelhouse
#   TORCH=cpu|cuda                     which torch; default cpu
#   PYTHON=python3.11                  the same minor version as the base image's; default .venv's
#
# Hashes are checked when they are fetched and again when they are installed. torch's CPU wheel is pinned by version.
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
folder=${1:-.wheelhouse}
torch=${TORCH:-cpu}
python=${PYTHON:-.venv/bin/python}
version=$(sed -n 's/.*"torch==\([^"]*\)".*/\1/p' pyproject.toml)

refuse() { printf 'wheelhouse: %s\n' "$*" >&2 && exit 2; }
fetch() { "$python" -m pip download -qq --no-input --disable-pip-version-check --no-deps --dest "$folder" "$@"; }

# uv knows where PyTorch keeps its CPU wheels and says so; pip fetches from there.
fetch_cpu_torch() {
  fetch "torch==$version+cpu" 2>/dev/null && return
  local uv where
  uv=$(command -v uv) || uv=.venv/tools/bin/uv
  where=$("$uv" pip compile --quiet --no-deps --torch-backend cpu --emit-index-annotation - <<<"torch==$version" |
    sed -n 's/^ *# from //p')
  [[ -n $where ]] || refuse "torch: uv does not say where its CPU wheels are; put torch-$version+cpu into $folder"
  PIP_EXTRA_INDEX_URL=$where fetch "torch==$version+cpu"
}

# A marker may tell micro versions of Python apart, and the base image's is not known here. Both sides are fetched, as far
# as this interpreter takes them.
fetch_both_sides() {
  local entry
  awk '/^[^ #]/ {keep = / ; python_full_version/; if (keep) printf "\n"}
       keep && !/^ *#/ {sub(/ ; [^\\]*/, " "); sub(/\\$/, ""); printf "%s", $0}
       END {printf "\n"}' "$1" |
    while read -r entry; do
      [[ -z $entry ]] || fetch --require-hashes -r /dev/stdin <<<"$entry" 2>/dev/null || true
    done
}

mkdir -p -- "$folder"
case $torch in
  cpu)
    fetch_cpu_torch
    fetch --require-hashes -r requirements/cpu.txt
    fetch_both_sides requirements/cpu.txt
    ;;
  cuda)
    fetch --require-hashes -r requirements/cuda.txt
    fetch_both_sides requirements/cuda.txt
    ;;
  *) refuse "TORCH: got $torch; allowed: cpu, cuda" ;;
esac
fetch --require-hashes -r requirements/no-deps.txt
printf '%s: %s files, %s, for %s and torch for %s\n' "$folder" "$(find "$folder" -type f | wc -l)" \
  "$(du -sh -- "$folder" | cut -f 1)" "$("$python" --version)" "$torch"
