# Verbs of the project. `make` alone lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run results tensorboard study-demo env test torture studies backends smoke docs lint format bench docker apptainer wheelhouse lock clean

export PATH := $(CURDIR)/.venv/bin:$(PATH)

##@ Use
## list the verbs
help:
	@awk '/^##@ / {printf "\n%s\n", substr($$0, 5); next} \
	      /^## / {text = substr($$0, 4); next} \
	      text && /^[a-z-]+:/ {printf "  make %-11s %s\n", substr($$1, 1, index($$1, ":") - 1), text; text = ""}' Makefile
	@printf '\nTORCH=cpu or TORCH=cuda chooses the torch to install; PYTHON=python3.12 the interpreter.\n'

## install, run the default study at laptop scale, show what it found
run: env
	dvc repro
	assay results

## show what the stages found
results: env
	assay results

## show the training curves of all runs of all studies; STUDY=NAME for one, and what runs now beside them
tensorboard: env
	logs=; for runs in runs studies/*/runs; do [ ! -d $$runs ] || logs+=$${runs%/runs}:$$runs/$(STUDY),; done; \
	tensorboard --logdir_spec=$${logs}running:.assay/clones

## run a small real study end to end: plan, submit, kill a run, submit again, report; about 10 minutes
study-demo: env
	scripts/study-demo.sh

## install the locked environment into .venv
env: .venv/.installed

.venv/.installed: scripts/install.sh requirements/cpu.txt requirements/cuda.txt requirements/no-deps.txt
	PATH="$${PATH#"$(CURDIR)/.venv/bin:"}" scripts/install.sh .venv

##@ Images
## build the image of the last commit with Docker; TORCH=cuda, BASE_IMAGE=NAME
docker: env
	assay image build --docker $(if $(TORCH),--torch $(TORCH)) $(if $(BASE_IMAGE),--base-image "$(BASE_IMAGE)")

## make the same as a SIF for Apptainer, from Docker's image or from nothing, whichever works here
apptainer:
	scripts/apptainer.sh

## fetch every package of the lock into .wheelhouse; images are then built without a network
wheelhouse: env
	scripts/wheelhouse.sh

##@ Check
## run the tests
test: env
	OMP_NUM_THREADS=1 pytest -n 2 --dist worksteal -q

## kill, cut off, starve and hang real runs; TORTURE_KILLS and TORTURE_DEADLINES say how often
torture: env
	TORTURE_KILLS=$${TORTURE_KILLS:-100} TORTURE_DEADLINES=$${TORTURE_DEADLINES:-50} OMP_NUM_THREADS=1 \
		pytest -q -m "torture or not torture" tests/torture

## run whole pipelines of the other studies through DVC, at tiny size
studies: env
	OMP_NUM_THREADS=1 pytest -n 2 --dist worksteal -q -m pipeline tests/studies

## run through a real Slurm, Docker and Apptainer, started by the tests, and a stand-in of vast.ai; needs root
backends: env
	OMP_NUM_THREADS=1 pytest -n 2 -q -m vast tests/contracts tests/schedulers
	OMP_NUM_THREADS=1 pytest -q -s -m "slurm or docker or apptainer" tests/backends

## run the pipeline at tiny size from a clean clone
smoke: env
	scripts/smoke.sh

## check style and types
lint: env
	ruff check
	ruff format --check
	mypy

## build the documentation into site/; a broken link is an error
docs: env
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

## measure: against straightforward code, and what supervision, Slurm and forecasts cost; as root, for it starts a Slurm
bench: env
	for file in benchmarks/*.py; do echo "== $$file" && python "$$file" || exit 1; done

##@ Change
## put the code into house style
format: env
	ruff check --fix
	ruff format

## resolve pyproject.toml anew into requirements/; UPGRADE=1 takes the newest versions
lock: .venv/tools/bin/uv
	PATH="$(CURDIR)/.venv/tools/bin:$$PATH" scripts/lock.sh $(if $(UPGRADE),--upgrade)

.venv/tools/bin/uv: requirements/uv.txt | env
	python -m venv .venv/tools
	.venv/tools/bin/python -m pip install --quiet --require-hashes --requirement requirements/uv.txt
	touch $@

## remove what tools left behind; keeps .venv, data and results
clean:
	rm -rf site dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
