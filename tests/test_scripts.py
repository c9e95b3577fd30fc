"""The installer's refusals and the gate's honesty, with stand-ins for what they would call."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SYSTEM = "/usr/bin:/bin"


def stub(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def install(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {"PATH": SYSTEM, "HOME": os.environ["HOME"], "TORCH": "cpu", **environment}
    command = [ROOT / "scripts/install.sh", folder]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


def refusal(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    return line


def test_an_unknown_torch_is_refused(tmp_path):
    line = refusal(install(tmp_path / "env", TORCH="gpu"))
    assert line == "install: TORCH: got gpu; allowed: auto, cpu, cuda"


def test_a_folder_that_is_no_environment_is_left_alone(tmp_path):
    precious = tmp_path / "thesis.tex"
    precious.write_text("years of work")
    assert "exists and is no virtual environment" in refusal(install(tmp_path))
    assert precious.read_text() == "years of work"


def test_an_old_python_is_refused_with_its_version(tmp_path):
    old = stub(tmp_path / "python3.9", '[ "$1" = --version ] && echo Python 3.9.2 && exit; exit 1')
    line = refusal(install(tmp_path / "env", PYTHON=str(old)))
    assert line.endswith("got Python 3.9.2; allowed: Python 3.11 to 3.13; do: PYTHON=/path/to/python")


def test_a_missing_python_is_refused(tmp_path):
    line = refusal(install(tmp_path / "env", PYTHON="python-of-nowhere"))
    assert "python-of-nowhere: got nothing; allowed: Python 3.11 to 3.13" in line


def test_python_without_venv_gets_the_command_that_helps(tmp_path):
    bare = stub(tmp_path / "python3", 'case "$2" in *ensurepip*) exit 1 ;; *) exit 0 ;; esac')
    line = refusal(install(tmp_path / "env", PYTHON=str(bare)))
    assert line.endswith("cannot make virtual environments; do: apt install python3-venv (or install uv)")


@pytest.mark.parametrize("broken", ["env", "lint", "test", "docs", "smoke"])
def test_the_gate_fails_with_the_step_that_fails_and_goes_no_further(broken, tmp_path):
    stub(tmp_path / "make", f'echo "ran $1"; [ "$1" != {broken} ] || exit 3')
    variables = {**os.environ, "PATH": f"{tmp_path}:{SYSTEM}"}
    gate = subprocess.run([ROOT / ".ci/run"], env=variables, capture_output=True, text=True, check=False)
    ran = [line.split()[1] for line in gate.stdout.splitlines() if line.startswith("ran ")]
    assert gate.returncode == 3
    assert ran[-1] == broken and "all passed" not in gate.stdout


def test_the_gate_passes_when_every_step_does(tmp_path):
    stub(tmp_path / "make", "exit 0")
    variables = {**os.environ, "PATH": f"{tmp_path}:{SYSTEM}"}
    gate = subprocess.run([ROOT / ".ci/run"], env=variables, capture_output=True, text=True, check=False)
    assert gate.returncode == 0 and "all passed" in gate.stdout
