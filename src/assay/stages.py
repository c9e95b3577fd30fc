"""The verbs that run a stage of a study, here or in processes of their own; open it to change what a stage is given."""

import argparse
import dataclasses
import importlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from assay import progress
from assay.errors import ConfigError
from assay.runs.nodes import launch
from assay.runs.ranks import PROCESSES, RANK, processes_wanted
from assay.studies import study_config, study_params

TRAINED = "trained.json"
"""Beside the file that `--stack` names: the runs among them that are trained."""


def stage(parsed: argparse.Namespace, rest: list[str]) -> int:
    """Run one stage; the stage's module is the one of its name in the study's package."""
    config = study_config(parsed.study)
    if parsed.stage not in config.STAGES:
        allowed = ", ".join(config.STAGES)
        raise ConfigError(f"stage: got {parsed.stage}; allowed for study {parsed.study}: {allowed}")
    if parsed.keys:
        return _print_keys(config, config.STAGES[parsed.stage])
    from assay.engine.memory import keep_freed_memory

    keep_freed_memory()
    if parsed.stack:
        return _train_stack(parsed, rest)
    processes = processes_wanted(parsed.processes, os.environ) if _trains(config, parsed.stage) else 1
    if processes > 1:
        return _run_together(parsed, rest, processes)
    from assay.config import resolved

    progress.announce(parsed.study, parsed.stage)
    params = study_params(parsed.study, parsed.params, _overrides(rest))
    progress.announce(parsed.study, parsed.stage, params=resolved(params))
    with progress.phase("import", 1, unit="modules"):
        module = importlib.import_module(f"assay.studies.{parsed.study}.{parsed.stage}")
    module.run(params)
    if os.environ.get(RANK, "0") == "0":
        _record(params, Path("results") / parsed.stage / "params.json")
    return 0


def _run_together(parsed: argparse.Namespace, rest: list[str], processes: int) -> int:
    """The same stage in several processes. What is wrong with its parameters is said here, once."""
    try:
        _refuse_together(parsed, rest, processes)
    except ConfigError:
        progress.announce(parsed.study, parsed.stage)  # so that the record has who refused, and why
        raise
    stage = [parsed.study, parsed.stage, "--params", str(parsed.params), *rest]
    return launch([sys.executable, "-m", "assay", "stage", *stage], parsed.processes, os.environ)


def _refuse_together(parsed: argparse.Namespace, rest: list[str], processes: int) -> None:
    """Raise ConfigError for parameters that are wrong, or wrong for so many processes."""
    from assay.engine.config import TrainConfig, part_of

    if parsed.stage not in getattr(study_config(parsed.study), "SHARED_STAGES", ()):
        where = f"{parsed.study} {parsed.stage}: got {processes} processes"
        remedy = "give no --processes" if parsed.processes else f"set resources.processes, or {PROCESSES}, to 1"
        raise ConfigError(f"{where}; allowed: 1, as it does not share out its batches; {remedy}")
    params = study_params(parsed.study, parsed.params, _overrides(rest))
    for section in vars(params).values():
        if isinstance(section, TrainConfig):
            part_of(section.batch_size, processes)


def _train_stack(parsed: argparse.Namespace, rest: list[str]) -> int:
    """The training of several runs at once; what becomes of each are checkpoints, from which its own stage goes on."""
    config = study_config(parsed.study)
    if not _trains(config, parsed.stage):
        trains = ", ".join(name for name in config.STAGES if _trains(config, name))
        raise ConfigError(f"stage: got {parsed.stage} with --stack; allowed for study {parsed.study}: {trains}")
    if rest:
        raise ConfigError(f"{rest[0]}: got a key with --stack; allowed: none, the file has the parameters of each run")
    from assay.config.load import read
    from assay.files import write_bytes

    plan = read(parsed.stack, "`assay submit --stack` writes it")
    progress.announce(parsed.study, parsed.stage)
    with progress.phase("import", 1, unit="modules"):
        from assay.engine.stack import train_alike

        module = importlib.import_module(f"assay.studies.{parsed.study}.{parsed.stage}")
    runs = {name: (told["params"], told["checkpoints"]) for name, told in plan.items()}

    def begin(names: list[str]) -> None:
        write_bytes(parsed.stack.with_name(TRAINED), json.dumps(names).encode())

    train_alike(runs, config.Params, module.run, begin)
    return 0


def verify(parsed: argparse.Namespace, rest: list[str]) -> int:
    """Compare runs of a stage that trains; returns 1 if they differ."""
    config = study_config(parsed.study)
    stages = [name for name in config.STAGES if _trains(config, name)]
    if parsed.stage not in stages:
        raise ConfigError(f"stage: got {parsed.stage}; allowed to verify of {parsed.study}: {', '.join(stages)}")
    study_params(parsed.study, parsed.params, _overrides(rest))
    from assay.engine.verify import verify_command

    stage = [parsed.study, parsed.stage, "--params", str(parsed.params), *rest]
    command = [sys.executable, "-m", "assay", "stage", *stage]
    report = verify_command(command, parsed.steps, parsed.seed_of_interruption)
    found = {"identical": report.identical, **dataclasses.asdict(report)}
    print(json.dumps(found, indent=2) if parsed.json else report)
    return 0 if report.identical else 1


def _trains(config: ModuleType, stage: str) -> bool:
    """Whether a stage of a study reads a training budget."""
    from assay.engine.config import training_sections

    budgets = training_sections(config.Params)
    return any(f"{budget}.".startswith(f"{key}.") for budget in budgets for key in config.STAGES[stage])


def _overrides(rest: list[str]) -> list[str]:
    """`--a.b value` and `--a.b=value` as `a.b=value`."""
    overrides: list[str] = []
    items = iter(rest)
    for item in items:
        if not item.startswith("--"):
            raise ConfigError(f"{item}: got a word where a --key was expected; allowed: --dotted.key value")
        key, sign, value = item[2:].partition("=")
        overrides.append(f"{key}={value}" if sign else f"{key}={_next(items, key)}")
    return overrides


def _next(items: Any, key: str) -> str:
    try:
        return str(next(items))
    except StopIteration:
        raise ConfigError(f"--{key}: got no value; allowed: --{key} VALUE") from None


def _print_keys(config: ModuleType, keys: tuple[str, ...]) -> int:
    from assay.config.schema import key_help

    for key, allowed, text in key_help(config.Params):
        if any(f"{key}.".startswith(f"{wanted}.") for wanted in keys):
            print(f"{key}\n    {allowed}\n    {text}")
    return 0


def _record(params: Any, path: Path) -> None:
    from assay.config import resolved
    from assay.files import write_bytes

    write_bytes(path, (json.dumps(resolved(params), indent=2) + "\n").encode())
