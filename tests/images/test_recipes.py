"""One environment, one list of packages, one name of the base: what recipes may say, and which way is taken."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("Dockerfile", "apptainer.def", "pyproject.toml", "requirements", "scripts")
RECIPES = [ROOT / name for name in ("Dockerfile", "apptainer.def", ".dockerignore")]
SYSTEM = "/usr/bin:/bin"
TOOLS = ("bash", "cat", "cp", "cut", "dirname", "env", "git", "grep", "realpath", "sed", "sha256sum", "tar")
BASE = re.findall(r"^ARG BASE_IMAGE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)


def stub(path: Path, body: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


@pytest.fixture
def repository(tmp_path) -> Path:
    """A commit with what an image is made from."""
    folder = tmp_path / "a repository"
    folder.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    (folder / "src/assay").mkdir(parents=True)
    (folder / "src/assay/__init__.py").write_text('__version__ = "0"\n')
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", "start"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


@pytest.fixture
def prepare(repository, tmp_path) -> Callable[..., tuple[list[str], str, Path]]:
    """Options of `apptainer build`, what was said, and the folder of files."""

    def prepared(code: int = 0, umask: int = -1, **variables: str) -> tuple[list[str], str, Path]:
        context = tmp_path / "context"
        context.mkdir()
        done = subprocess.run(
            [repository / "scripts/apptainer.sh", "--prepare", context],
            env={"PATH": f"{tmp_path / 'bin'}:{SYSTEM}", "HOME": os.environ["HOME"], **variables},
            capture_output=True,
            text=True,
            check=False,
            umask=umask,
        )
        assert done.returncode == code, done.stderr
        return done.stdout.splitlines(), done.stderr, context

    return prepared


def commit_of(repository: Path) -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_bases_name_stands_in_the_dockerfile_and_nowhere_else():
    (base,) = BASE
    name = base.rsplit("/", 1)[-1]
    places = [*RECIPES[1:], *(ROOT / "scripts").glob("*.sh"), ROOT / "Makefile", *(ROOT / "src").rglob("*.py")]
    assert not [path for path in places if name in path.read_text()]


@pytest.mark.parametrize("path", RECIPES[:2], ids=lambda path: path.name)
def test_a_recipe_lists_no_package_and_installs_by_the_one_script(path):
    commands = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    assert not [line for line in commands if re.search(r"\b(pip|apt|apt-get|conda|uv|curl|wget)\b", line)]
    assert any("scripts/image.sh install" in line for line in commands)
    assert "scripts/install.sh" in (ROOT / "scripts/image.sh").read_text()


def test_the_def_file_starts_from_the_image_that_the_dockerfile_makes():
    from assay.images import docker

    text = (ROOT / "apptainer.def").read_text()
    assert re.search(r"^    FROM=assay:cpu$", text, re.MULTILINE)
    assert 'f"assay:{source.torch}"' in Path(docker.__file__).read_text()


def test_an_image_runs_as_nobody_special():
    assert re.findall(r"^USER (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE) == ["65534:65534"]


def test_without_docker_the_sif_is_made_from_the_base(prepare, repository, tmp_path):
    (tmp_path / "tools").mkdir()
    for tool in TOOLS:
        (tmp_path / "tools" / tool).symlink_to(str(shutil.which(tool, path=SYSTEM)))
    options, said, context = prepare(PATH=str(tmp_path / "tools"))
    assert "no Docker here" in said and "by scripts/install.sh and the lock, from the network" in said
    assert {"BOOTSTRAP=docker", f"FROM={BASE[0]}", "TORCH=cpu", f"COMMIT={commit_of(repository)}"} <= set(options)
    assert (context / "apptainer.def").exists() and (context / "src/assay/__init__.py").exists()


def test_what_is_prepared_for_spython_has_all_that_the_script_gives_itself(prepare, repository, tmp_path):
    stub(tmp_path / "bin/docker", "exit 1")
    stub(tmp_path / "bin/apptainer", 'printf "%s\\n" "$@"; shift $(($# - 2)); touch "$1"')
    options, _, _ = prepare()
    environment = {"PATH": f"{tmp_path / 'bin'}:{SYSTEM}", "HOME": os.environ["HOME"]}
    done = subprocess.run([repository / "scripts/apptainer.sh"], env=environment, capture_output=True, check=True)
    sif = [str(repository / "assay.new.sif"), "apptainer.def"]
    assert done.stdout.decode().splitlines() == ["build", "--force", *options, *sif]


def test_dockers_image_of_this_commit_is_taken_with_its_digest(prepare, repository, tmp_path):
    stub(tmp_path / "bin/docker", f"echo sha256:abc {commit_of(repository)}")
    options, said, _ = prepare()
    assert "from the finished image docker-daemon:assay:cpu" in said
    assert {"BOOTSTRAP=docker-daemon", "FROM=assay:cpu", "DIGEST=sha256:abc"} <= set(options)


def test_dockers_image_of_another_commit_is_left(prepare, tmp_path):
    stub(tmp_path / "bin/docker", "echo sha256:abc 0123456789")
    options, said, _ = prepare()
    assert "is of commit 0123456789, not of" in said
    assert "BOOTSTRAP=docker" in options


def test_a_daemon_that_is_down_is_no_reason_to_stop(prepare, tmp_path):
    stub(tmp_path / "bin/docker", "exit 1")
    options, said, _ = prepare()
    assert "or does not answer" in said
    assert "BOOTSTRAP=docker" in options


def test_wheels_are_taken_if_they_are_there(prepare, repository):
    (repository / ".wheelhouse").mkdir()
    (repository / ".wheelhouse/some.whl").write_text("wheel")
    options, said, context = prepare()
    assert "out of .wheelhouse, without a network" in said
    assert "WHEELHOUSE=.wheelhouse" in options
    assert (context / ".wheelhouse/some.whl").read_text() == "wheel"


@pytest.mark.parametrize("umask", [0o077, 0o000])
@pytest.mark.parametrize("gits", ["0002", "user"])
def test_everybody_may_read_the_files_whatever_the_umask(prepare, repository, umask, gits):
    subprocess.run(["git", "config", "tar.umask", gits], cwd=repository, check=True)
    _, _, context = prepare(umask=umask)
    modes = {str(path.relative_to(context)): path.stat().st_mode & 0o777 for path in context.rglob("*")}
    assert {modes[name] for name in ("src", "src/assay", "scripts", "scripts/install.sh")} == {0o755}
    assert {modes[name] for name in ("pyproject.toml", "src/assay/__init__.py")} == {0o644}
    assert set(modes.values()) == {0o755, 0o644}


def test_a_dockerfile_without_a_base_needs_one_given(prepare, repository):
    (repository / "Dockerfile").write_text("FROM some/base:1\n")
    assert "Dockerfile: got no line ARG BASE_IMAGE=NAME; allowed: one, or BASE_IMAGE=NAME" in prepare(2)[1]


def test_an_archive_brings_its_own_digest(prepare, tmp_path):
    digest = "0123456789abcdef" * 4
    (tmp_path / "manifest.json").write_text(f'[{{"Config":"{digest}.json","Layers":[]}}]')
    subprocess.run(["tar", "-cf", "an image.tar", "manifest.json"], cwd=tmp_path, check=True)
    options, _, _ = prepare(IMAGE=f"docker-archive:{tmp_path}/an image.tar")
    assert {"BOOTSTRAP=docker-archive", f"FROM={tmp_path}/an image.tar", f"DIGEST=sha256:{digest}"} <= set(options)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"TORCH": "gpu"}, "TORCH: got gpu; allowed: cpu, cuda"),
        ({"IMAGE": "assay:cpu"}, "IMAGE: got assay:cpu; allowed: KIND:NAME"),
        ({"WHEELHOUSE": "/nowhere"}, "WHEELHOUSE: got /nowhere, which is no folder; do: make wheelhouse"),
    ],
)
def test_a_wrong_choice_is_refused(prepare, variables, message):
    assert message in prepare(2, **variables)[1]


def test_a_build_that_fails_leaves_the_sif_that_jobs_may_be_using(repository, tmp_path):
    used = repository / "assay.sif"
    used.write_text("in use")
    build = '[ "$2" = --help ] && exit; while [ $# -gt 2 ]; do shift; done; echo half >"$1"; exit 255'
    stub(tmp_path / "bin/apptainer", build)
    variables = {"PATH": f"{tmp_path / 'bin'}:{SYSTEM}", "HOME": os.environ["HOME"]}
    done = subprocess.run([repository / "scripts/apptainer.sh"], env=variables, capture_output=True, check=False)
    assert done.returncode == 255, done.stderr
    assert used.read_text() == "in use" and list(repository.glob("*.sif*")) == [used]
