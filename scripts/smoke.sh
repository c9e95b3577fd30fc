#!/usr/bin/env bash
# The default pipeline at tiny size, in a clean clone of the last commit: does what is committed run from nothing?
#
#   scripts/smoke.sh      needs .venv (make env)
#
# It proves that the stages fit together. Its figures mean nothing: five steps train no network.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
clone=$(mktemp -d "${TMPDIR:-/tmp}/assay-smoke-XXXXXX")
trap 'rm -rf -- "$clone"' EXIT

if [[ -n $(git -C "$root" status --porcelain) ]]; then
  echo "smoke: there are changes that are not committed; the clone does not have them" >&2
fi
git clone --quiet -- "$root" "$clone"
cd -- "$clone"

# The clone's own code comes before the installed one, and experiments need a git identity that a machine may lack.
export PATH="$root/.venv/bin:$PATH" PYTHONPATH="$clone/src" PYTHONDONTWRITEBYTECODE=1
export GIT_AUTHOR_NAME=assay GIT_AUTHOR_EMAIL=assay@localhost GIT_COMMITTER_NAME=assay GIT_COMMITTER_EMAIL=assay@localhost

tiny=(
  data.phantoms=24 data.validation_phantoms=8 data.image_size=32
  model.hidden_sizes='[8,16]'
  train.steps=5 train.batch_size=4 train.validate_every=5 train.checkpoint_every=5 train.log_every=1
  evaluation.phantoms=2 evaluation.snr='[10]' evaluation.bootstrap=100 evaluation.images=1
  sensitivity.phantoms=2 sensitivity.null_seeds=1
)
dvc exp run --quiet "${tiny[@]/#/--set-param=}"
assay results
