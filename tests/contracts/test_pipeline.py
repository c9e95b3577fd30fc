"""What the pipeline of every study must list: the keys that a stage reads, and the code of the study that it needs."""

import ast
from pathlib import Path

import pytest
import yaml
from tests.conftest import ROOT

from assay.studies import study_config, study_names

PACKAGE = "assay.studies"


def pipeline(study: str) -> Path:
    """The default study's is at the top."""
    own = ROOT / "studies" / study / "dvc.yaml"
    return own if own.exists() else ROOT / "dvc.yaml"


def stages(study: str) -> dict[str, dict]:
    return yaml.safe_load(pipeline(study).read_text())["stages"]


def imports(path: Path, study: str) -> set[str]:
    """Modules of the study that a file imports, and names in them that may be modules."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    prefix = f"{PACKAGE}.{study}."
    return {name.removeprefix(prefix) for name in found if name.startswith(prefix)}


def needed(study: str, stage: str) -> set[str]:
    """Files of the study that a stage's module needs, itself included; `model` for all of a folder.

    Without those that declare parameters, which DVC compares by value.
    """
    source, known, new = ROOT / "src/assay/studies" / study, set[str](), {stage}
    while new:
        name = new.pop()
        path = source.joinpath(*name.split("."))
        file = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
        if file.exists() and name not in known:
            known.add(name)
            new |= imports(file, study)
    parts = {name.split(".")[0] for name in known if not declares(name)}
    return {part if (source / part).is_dir() else f"{part}.py" for part in parts}


def declares(module: str) -> bool:
    return module == "config" or module.endswith(("section", "sections"))


def every_stage() -> list[tuple[str, str]]:
    return [(study, stage) for study in study_names() for stage in stages(study)]


@pytest.mark.parametrize(("study", "stage"), every_stage())
def test_a_stage_calls_the_verb_and_lists_the_keys_that_it_reads(study, stage):
    """A key that is read and not listed would not run the stage again when it changes."""
    told = stages(study)[stage]
    assert tuple(told["params"]) == study_config(study).STAGES[stage]
    assert told["cmd"] == f"assay stage {study} {stage} --params params.yaml"


@pytest.mark.parametrize(("study", "stage"), every_stage())
def test_a_stage_lists_all_code_of_the_study_that_it_needs_and_no_other(study, stage):
    """What is not listed could change and leave stale results."""
    listed = stages(study)[stage]["deps"]
    own = {dep.rpartition(f"/studies/{study}/")[2] for dep in listed if f"src/assay/studies/{study}/" in dep}
    assert own == needed(study, stage)
    assert not [dep for dep in listed if "src/" in dep and not (pipeline(study).parent / dep).exists()]
