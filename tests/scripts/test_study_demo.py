"""The demo of a study: where it takes place."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
GIT = """#!/bin/sh
case $1 in
  clone) mkdir -p "$5/machines" ;;
  add) echo "$PYTHONPATH" >"$TOLD"; exit 3 ;;
esac
"""
"""Stands in for git: makes the folder, then tells where code is taken from and ends the demo."""


def test_a_relative_folder_is_taken_from_where_the_command_was_given(tmp_path):
    (tmp_path / "bin").mkdir()
    git = tmp_path / "bin/git"
    git.write_text(GIT)
    git.chmod(0o755)
    variables = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "TOLD": str(tmp_path / "told")}
    script = [ROOT / "scripts/study-demo.sh", "a demo"]
    done = subprocess.run(script, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert (tmp_path / "told").read_text() == f"{tmp_path}/a demo/src\n"
