"""The repository itself: locks, licence, README, Makefile, shape of the code; a rule that nothing checks is a wish."""

import ast
import hashlib
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
MODULES = sorted((ROOT / "src").rglob("*.py"))
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))
SCRIPTS = [*sorted((ROOT / "scripts").glob("*.sh")), ROOT / ".ci/run"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LONG = {"train": 80}  # the training loop stays in one piece
APACHE = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def lock_entries(path: Path) -> dict[str, str]:
    """Requirement line of each locked package to its hashes and markers as written."""
    blocks = re.split(r"\n(?=[^\s#])", "\n" + path.read_text())[1:]
    return {block.split("==")[0]: block for block in blocks}


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", LOCKS, ids=names(LOCKS))
def test_every_locked_package_has_one_version_and_hashes(path):
    entries = lock_entries(path)
    assert entries
    for name, block in entries.items():
        assert re.match(rf"{re.escape(name)}==[\w.+!]+ ?(;|\\)", block), block.splitlines()[0]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", block), name


def test_nothing_that_installs_names_a_host():
    """Which registry serves a package is the machine's business."""
    for path in [*LOCKS, *SCRIPTS, ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / ".pre-commit-config.yaml"]:
        assert not re.search(r"://|index-url|find-links|trusted-host", path.read_text()), path


def test_cpu_lock_is_the_cuda_lock_without_what_only_cuda_needs():
    cuda, cpu = (lock_entries(ROOT / f"requirements/{name}.txt") for name in ("cuda", "cpu"))
    assert cpu == {name: cuda[name] for name in cpu}
    left_out = cuda.keys() - cpu.keys()
    assert {"torch", "triton", "xformers"} <= left_out
    assert all(re.match(r"(torch|triton|xformers)$|cuda-|nvidia-", name) for name in left_out)


def test_lock_has_every_dependency_in_its_range():
    entries = lock_entries(ROOT / "requirements/cuda.txt")
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = [Requirement(text) for group in [PROJECT["project"]["dependencies"], *extras] for text in group]
    for requirement in wanted:
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        version = re.match(r"[^=]+==([^\s;\\]+)", entries[name])
        assert version and requirement.specifier.contains(version[1]), f"{requirement}: run make lock"


def test_torch_is_pinned_in_one_place():
    (pinned,) = [text for text in PROJECT["project"]["dependencies"] if text.startswith("torch==")]
    assert f"\n{pinned} \\" in (ROOT / "requirements/cuda.txt").read_text()
    places = [ROOT / "Makefile", ROOT / "README.md", *SCRIPTS, *(ROOT / "docs").rglob("*.md")]
    assert not [path for path in places if re.search(r"torch==\d", path.read_text())]


def test_licence_is_apache_2_to_the_letter():
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE
    assert PROJECT["project"]["license"] == "Apache-2.0"


def test_make_alone_lists_every_target():
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert re.findall(r"^  make ([a-z-]+) +\S", shown, re.MULTILINE) == re.findall(
        rf"^({phony.replace(' ', '|')}):", (ROOT / "Makefile").read_text(), re.MULTILINE
    )


def test_readme_names_what_exists():
    text = (ROOT / "README.md").read_text()
    (tree,) = re.findall(r"## What is where\n\n```\n(.*?)```", text, re.DOTALL)
    folder = ""
    for line in tree.splitlines():
        name = line.split()[0]
        inside = line.startswith("  ")
        folder = folder if inside else name
        assert (ROOT / (f"{folder}{name}" if inside else name)).exists(), line
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / link).exists(), link
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)`", text, re.MULTILINE)) <= {
        pair for target in targets for pair in ((target, ""), ("", target))
    }


def test_hooks_fetch_nothing():
    hooks = YAML(typ="safe").load(ROOT / ".pre-commit-config.yaml")
    assert [entry["repo"] for entry in hooks["repos"]] == ["local"]
    assert {hook["language"] for hook in hooks["repos"][0]["hooks"]} == {"system"}


def test_every_module_says_what_it_is():
    assert not [path for path in MODULES if not ast.get_docstring(ast.parse(path.read_text()))]


def test_functions_and_files_are_short():
    lengths = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in MODULES
        for node in functions(path)
    }
    long = [place for place, length in lengths.items() if length > LONG.get(place.split()[-1], 60)]
    big = [path.relative_to(ROOT) for path in MODULES if path.read_text().count("\n") > 300]
    assert (long, big) == ([], [])


def test_files_are_named_by_what_they_hold():
    vague = {"utils", "util", "common", "misc", "helpers", "helper", "tools"}
    assert not [path for path in MODULES if vague & {path.stem, path.parent.name}]


def test_studies_are_imported_by_nobody_but_themselves():
    """The command line finds them by name."""
    packages = {path.parent.name for path in (ROOT / "src/assay/studies").glob("*/__init__.py")}
    for path in MODULES:
        parts = path.relative_to(ROOT / "src/assay").parts
        own = f"assay.studies.{parts[1]}." if parts[0] == "studies" and len(parts) > 2 else None
        for name in imports(path):
            if name.startswith("assay.studies.") and name.split(".")[2] in packages:
                assert own and f"{name}.".startswith(own), f"{path} imports {name}"


@pytest.mark.parametrize(
    "module", ["assay.cli", "assay.config", "assay.studies.asl.config", "assay.studies.latents.config"]
)
def test_parameters_are_checked_without_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("path", SCRIPTS, ids=names(SCRIPTS))
def test_scripts_are_executable_and_stop_at_the_first_error(path):
    assert os.access(path, os.X_OK)
    assert path.read_text().startswith("#!/usr/bin/env bash\n") and "\nset -euo pipefail\n" in path.read_text()
    subprocess.run(["bash", "-n", path], check=True)


@pytest.mark.parametrize("path", BENCHMARKS, ids=names(BENCHMARKS))
def test_what_a_benchmark_imports_exists(path):
    """Nobody runs them here, and what they measure moves."""
    for name in imports(path):
        if name.startswith(("assay.", "tests.")):
            pkgutil.resolve_name(name)
