"""The how-to page is run as it stands: its files are taken from the page, then its commands are given in order."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/how-to/your-own-study.md").read_text()
FILES = dict(re.findall(r'```\w+ title="([^"]+)"\n(.*?)```', PAGE, re.DOTALL))
COMMANDS = [line[2:] for line in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)[-1].splitlines()]


def test_the_page_has_the_files_it_promises():
    promised = ["__init__.py", "config.py", "task.py", "train.py", "params.yaml", "dvc.yaml"]
    assert [Path(name).name for name in FILES] == promised


@pytest.mark.slow
def test_the_commands_of_the_page_work_in_order(make_project):
    project = make_project()
    for name, text in FILES.items():
        project.write(name, text)
    project.commit()
    assert COMMANDS[0] == "cd studies/curve"
    said = {command: project.give(command, "studies/curve") for command in COMMANDS[1:]}
    assert "valid; 16 units, 300 steps, seed 0" in said["assay check curve params.yaml"]
    table = said["assay results"]
    assert all(name in table for name in ("network", "untrained", "constant", "cubic"))
    shown = said["dvc exp show --only-changed"]
    assert "hidden_size" in shown and "mae" in shown
