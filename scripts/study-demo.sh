#!/usr/bin/env bash
# A small real study end to end on the CPU: plan, submit, one run killed in the middle, submit again, report.
#
#   scripts/study-demo.sh [FOLDER]      needs .venv (make env); default: a new folder below /tmp, which is kept
#
# Five arms of the asl study at tiny size, three seeds. One arm is inert: it sets a key that its own `legacy` switch keeps
# from having any effect. One crashes: its learning rate ends in NaN. The figures mean nothing: 120 steps train no network.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
demo=$(realpath -m -- "${1:-$(mktemp -d "${TMPDIR:-/tmp}/assay-study-XXXXXX")}")
export PATH="$root/.venv/bin:$PATH" PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
export GIT_AUTHOR_NAME=assay GIT_AUTHOR_EMAIL=assay@localhost GIT_COMMITTER_NAME=assay GIT_COMMITTER_EMAIL=assay@localhost

step() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }

git clone --quiet -- "$root" "$demo"
cd -- "$demo"
export PYTHONPATH="$demo/src"

cat > study.yaml <<'STUDY'
name: demo
question: Which of these changes to a tiny network matters within 120 steps?
study: asl
pipeline: dvc.yaml
baseline: baseline
seeds: [0, 1, 2]
machine: machines/demo.yaml
base:
  data.phantoms: 48
  data.validation_phantoms: 8
  data.image_size: 32
  model.hidden_sizes: [8, 16]
  train.steps: 120
  train.batch_size: 4
  train.validate_every: 20
  train.checkpoint_every: 10
  train.log_every: 1
  evaluation.phantoms: 2
  evaluation.snr: [10]
  evaluation.bootstrap: 100
  evaluation.images: 1
  sensitivity.phantoms: 2
  sensitivity.null_seeds: 1
arms:
  baseline:
    reason: What the others are compared with.
  plain:
    reason: Without the least-squares estimate as an input.
    set: {model.least_squares_features: false}
  wide:
    reason: Twice the channels.
    set: {model.hidden_sizes: [16, 32]}
  inert:
    reason: Changes a key that nothing acts on, to show that this is found.
    set: {physics.randomise: baseline, legacy.inactive_randomisation: true}
  crashes:
    reason: A learning rate that ends in NaN, to show that failed seeds stay in the denominator.
    set: {train.optimizer.lr: 1.0e+30, train.clip_norm: null}
metrics:
  validate/cbf_mae: {direction: min, unit: ml/100 g/min}
hypotheses:
  H1:
    claim: The network needs the least-squares estimate.
    metric: validate/cbf_mae
    arm: baseline
    versus: plain
    test: superior
    margin: 0.05
STUDY
cat > machines/demo.yaml <<'MACHINE'
name: this computer
jobs: 2
MACHINE
git add study.yaml machines/demo.yaml
git commit --quiet --message "The demo study"

step "assay plan"
assay plan study.yaml
step "assay submit"
assay submit study.yaml

step "one run is killed in the middle, with the pool that started it"
# The record names the supervisor; the guardian is its parent. The pool is whatever holds its lock.
run=runs/demo/baseline/0
until compgen -G "$run/checkpoints/*/step-*.safetensors" > /dev/null; do sleep 0.1; done
python - "$run" <<'KILL'
import json, os, signal, sys
from pathlib import Path

from assay.schedulers.local import read_state

def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().partition("PPid:")[2].split()[0])

run = Path(sys.argv[1])
supervisor = json.loads((run / "attempts/0001.json").read_text())["holder"]["pid"]
job = json.loads((run / "submission.json").read_text())["job"]
pool = parent(read_state(Path(".assay/pool"), job).pid)
for pid in (pool, parent(supervisor), supervisor):
    os.kill(pid, signal.SIGKILL)
KILL
while assay status study.yaml | grep " running " > /dev/null; do sleep 1; done  # the other run is told to save and stop
assay status study.yaml

step "assay submit, again"
assay submit study.yaml
assay status study.yaml --watch > status.log
tail -n 40 status.log

step "assay submit, a third time: nothing is missing"
assay submit study.yaml
dvc exp show --csv --only-changed | cut -c 1-150

step "assay report"
assay report study.yaml
step "done: $demo"
