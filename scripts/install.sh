#!/usr/bin/env bash
# Makes the environment from the lock files: on a laptop, in a container image, on a cluster. Nothing else installs.
#
#   scripts/install.sh [FOLDER]     default .venv; what was in it is replaced
#   TORCH=auto|cpu|cuda             which torch: auto is cuda where nvidia-smi finds a GPU, else cpu
#   PYTHON=python3.12               the interpreter, 3.11 to 3.13; default python3
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
folder=${1:-.venv}
torch=${TORCH:-auto}
python=${PYTHON:-python3}
version=$(sed -n 's/.*"torch==\([^"]*\)".*/\1/p' pyproject.toml)
begun=$SECONDS

say() { printf '[%3d s] %s\n' "$((SECONDS - begun))" "$*"; }
refuse() { printf 'install: %s\n' "$*" >&2 && exit 2; }
install() { "$folder/bin/python" -m pip install -qq --no-input --disable-pip-version-check "$@"; }

choose_torch() {
  case $torch in
    auto) if nvidia-smi -L >/dev/null 2>&1; then torch=cuda; else torch=cpu; fi ;;
    cpu | cuda) ;;
    *) refuse "TORCH: got $torch; allowed: auto, cpu, cuda" ;;
  esac
}

supported() { "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; }

make_venv() {
  if [[ -e $folder && ! -f $folder/pyvenv.cfg ]]; then
    refuse "$folder: exists and is no virtual environment; give another folder or remove it"
  elif supported && "$python" -c 'import ensurepip' 2>/dev/null; then
    "$python" -m venv --clear "$folder"
  elif command -v uv >/dev/null && { supported || [[ -z ${PYTHON:-} ]]; }; then
    uv venv --quiet --seed --clear --python "${PYTHON:->=3.11,<3.14}" "$folder"
  elif supported; then
    refuse "$python cannot make virtual environments; do: apt install python3-venv (or install uv)"
  else
    refuse "$python: got $("$python" --version 2>/dev/null || echo nothing); allowed: Python 3.11 to 3.13; do: PYTHON=/path/to/python"
  fi
}

# The label +cpu exists only on CPU wheels, so a wheel in a local folder (PIP_FIND_LINKS) is taken and no CUDA one
# ever matches. Without such a folder uv fetches it, for it knows where PyTorch keeps its CPU wheels.
install_cpu_torch() {
  if ! install --no-deps "torch==$version+cpu" 2>/dev/null; then
    install --require-hashes -r requirements/uv.txt
    "$folder/bin/uv" pip install --quiet --python "$folder/bin/python" --no-deps --torch-backend cpu "torch==$version"
  fi
}

choose_torch
make_venv
say "$("$folder/bin/python" --version) in $folder; torch $version for $torch"
if [[ $torch == cpu && $(uname -s) == Linux ]]; then
  install_cpu_torch
  say "torch is in; next the other packages"
  install --no-deps --require-hashes -r requirements/cpu.txt
else
  install --no-deps --require-hashes -r requirements/cuda.txt
fi
install --no-deps --require-hashes -r requirements/no-deps.txt
install --no-deps --no-build-isolation --editable .
touch "$folder/.installed"
say "done"
