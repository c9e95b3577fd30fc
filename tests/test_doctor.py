"""`assay doctor` says of each machine file what can be used from here and why not, and submits nothing."""

import json
import os
from pathlib import Path

import pytest

from assay.__main__ import main

STUBS = Path(__file__).parent / "stubs"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with machine files, in which a stand-in for Slurm is on PATH."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{STUBS}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STUB_CLUSTER", str(tmp_path / "cluster"))
    (tmp_path / "machines").mkdir()
    files = {
        "local": "name: here",
        "slurm": "scheduler: slurm",
        "large": "scheduler: slurm\nresources: {memory: 900}",
        "wrong": "wall_limit: soon",
        "sif": "container: {kind: apptainer, image: no-such.sif}",
    }
    for name, text in files.items():
        (tmp_path / f"machines/{name}.yaml").write_text(text)
    return tmp_path


def test_every_file_of_the_folder_is_examined(folder, capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["machines"]
    reasons = {Path(each["machine"]).stem: each["reasons"] for each in found}
    assert reasons["local"] == reasons["slurm"] == []
    assert "no node has that much; correct resources" in reasons["large"][0]
    assert "wall_limit: got 'soon'" in reasons["wrong"][0]
    assert "no-such.sif" in "".join(reasons["sif"])
    assert not (folder / "cluster/jobs.json").exists()


def test_it_is_said_in_words_and_a_named_file_decides_the_exit_code(folder, capsys):
    assert main(["doctor", "machines/slurm.yaml"]) == 0
    assert capsys.readouterr().out == "machines/slurm.yaml: usable, slurm\n"
    assert main(["doctor", "machines/large.yaml"]) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first == "machines/large.yaml: not usable here"
    assert second.startswith("    sbatch: failed (")


def test_programs_that_every_run_needs_are_named(folder, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(folder))
    assert main(["doctor", "machines/slurm.yaml"]) == 1
    said = capsys.readouterr().out
    assert "git: not on PATH; every run is a clone; install it" in said
    assert "sbatch: not on PATH" in said


def test_a_folder_without_machine_files_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 0
    assert "no machine file: got nothing in machines/" in capsys.readouterr().out
