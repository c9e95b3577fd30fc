"""What gets into an image: the last commit, the wheels, and nothing else of the working tree."""

import os
import subprocess
from pathlib import Path

import pytest

from assay.errors import ConfigError, UserError
from assay.images.source import FILES, Source

GIT = ("git", "-c", "user.name=nobody", "-c", "user.email=nobody@localhost")


@pytest.fixture
def repository(tmp_path) -> Path:
    folder = tmp_path / "repo"
    for name in FILES:
        path = folder / name / "file" if name in ("requirements", "scripts", "src") else folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("ARG BASE_IMAGE=some/base:1\n")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    subprocess.run([*GIT, "add", "--all"], cwd=folder, check=True)
    subprocess.run([*GIT, "commit", "--quiet", "--message", "change"], cwd=folder, check=True)


def source(folder: Path, base: str | None = None, wheelhouse: Path | None = None) -> Source:
    return Source.of(folder, "cpu", base, wheelhouse)


def test_the_build_sees_the_commit_and_the_wheels_and_nothing_else(repository):
    (repository / "src/secret.txt").write_text("not committed")
    (repository / "src/file").write_text("changed")
    (repository / ".wheelhouse").mkdir()
    (repository / ".wheelhouse/a.whl").write_text("wheel")
    with source(repository).context() as context:
        found = {str(path.relative_to(context)) for path in context.rglob("*") if path.is_file()}
        assert (context / "src/file").read_text() == "ARG BASE_IMAGE=some/base:1\n"
    whole = {name for name in FILES if name not in ("requirements", "scripts", "src")}
    assert found == whole | {"requirements/file", "scripts/file", "src/file", ".wheelhouse/a.whl"}
    assert not context.exists()


def test_changes_that_the_image_will_not_have_are_named(repository):
    assert source(repository).uncommitted() == []
    (repository / "src/file").write_text("changed")
    assert source(repository).uncommitted() == ["src/file"]


def test_the_base_is_the_dockerfiles_unless_another_is_given(repository):
    assert source(repository).base == "some/base:1"
    assert source(repository, base="other:2").base == "other:2"


def test_a_dockerfile_without_a_base_of_that_name_needs_one_given(repository):
    (repository / "Dockerfile").write_text("FROM some/base:1\n")
    commit(repository)
    with pytest.raises(
        ConfigError, match=r"Dockerfile: got no line ARG BASE_IMAGE=NAME; allowed: .*; give --base-image"
    ):
        source(repository)
    assert source(repository, base="other:2").base == "other:2"


def test_the_first_base_of_several_counts(repository):
    (repository / "Dockerfile").write_text("ARG BASE_IMAGE=some/base:1\nARG BASE_IMAGE=other:2\n")
    commit(repository)
    assert source(repository).base == "some/base:1"


@pytest.mark.parametrize("gits", ["0002", "user"])
def test_everybody_may_read_it_whatever_the_umask(repository, gits):
    (repository / "scripts/run.sh").write_text("#!/bin/sh\n")
    (repository / "scripts/run.sh").chmod(0o755)
    commit(repository)
    subprocess.run(["git", "config", "tar.umask", gits], cwd=repository, check=True)
    before = os.umask(0o077)
    try:
        with source(repository).context() as context:
            modes = {str(path.relative_to(context)): path.stat().st_mode & 0o777 for path in context.rglob("*")}
    finally:
        os.umask(before)
    assert {modes.pop(name) for name in ("src", "requirements", "scripts", "scripts/run.sh")} == {0o755}
    assert set(modes.values()) == {0o644}


def test_another_lock_has_another_digest(repository):
    before = source(repository).lock
    assert before == source(repository).lock
    (repository / "requirements/file").write_text("another version")
    assert source(repository).lock == before
    commit(repository)
    assert source(repository).lock != before


def test_a_repository_without_a_dockerfile_is_refused(repository):
    (repository / "Dockerfile").unlink()
    commit(repository)
    with pytest.raises(ConfigError, match="got no Dockerfile; allowed: a repository whose last commit has one"):
        source(repository)


def test_what_is_no_repository_is_refused(tmp_path):
    with pytest.raises(UserError, match="got no commit of a git repository"):
        source(tmp_path)


def test_a_wheelhouse_that_is_no_folder_is_refused(repository):
    with pytest.raises(ConfigError, match=r"--wheelhouse: got .*/none; allowed: a folder; do: make wheelhouse"):
        source(repository, wheelhouse=repository / "none")
