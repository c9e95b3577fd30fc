#!/usr/bin/env bash
# Resolves pyproject.toml into the lock files of requirements/: every version, every file's hash, Python 3.11 to 3.13.
#
#   scripts/lock.sh [--upgrade]     without --upgrade, versions that still fit stay
#
#   cuda.txt      everything, with torch for CUDA (on macOS: for its own GPUs)
#   cpu.txt       the same without torch and what only its CUDA build needs
#   no-deps.txt   packages whose own requirements contradict ours, or bring what nothing uses
#   uv.txt        the resolver itself
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
export UV_CUSTOM_COMPILE_COMMAND="make lock"
lock() { uv pip compile --quiet --universal --python-version 3.11 --generate-hashes "$@"; }

lock "$@" pyproject.toml --all-extras --output-file requirements/cuda.txt
lock "$@" --output-file requirements/uv.txt - <<<"uv"
lock --no-deps --output-file requirements/no-deps.txt - <<<$'asldro==2.2.0\nneuraloperator==2.0.0'

awk '/^[^ #]/ {keep = !/^(torch|triton|xformers)==|^(cuda|nvidia)-/ || /^nvidia-ml-py==/} keep || /^#/' \
  requirements/cuda.txt >requirements/cpu.txt
