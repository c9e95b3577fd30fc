"""What every container has to do for a job; a new kind is added to `CONTAINERS` and passes all of this."""

import builtins
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from assay.containers import Bind, Container, container_of, parse_bind
from assay.containers.config import ContainerConfig
from assay.errors import ConfigError

FOLDER = Path("/home/a user/repo")
HOSTILE = [
    "a b",
    "it's",
    'say "no"',
    "line\nline",
    ";rm -rf /",
    "$(touch pwned)",
    "`id`",
    "--",
    "-v",
    "--bind",
    "*",
    "\\",
    "",
    "é",
]
CONTAINERS: dict[str, Callable[[], Container]] = {
    "none": lambda: container_of(ContainerConfig()),
    "docker": lambda: container_of(ContainerConfig(kind="docker", image="assay:cpu", binds=("/data:/data",))),
    "apptainer": lambda: container_of(ContainerConfig(kind="apptainer", image="/i/assay.sif", binds=("/data:/data",))),
}


@pytest.fixture(params=CONTAINERS)
def container(request) -> Container:
    return CONTAINERS[request.param]()


def test_every_kind_of_a_machine_file_is_tested_here():
    kinds = get_args(get_type_hints(ContainerConfig)["kind"])
    assert set(kinds) == set(CONTAINERS)
    assert {CONTAINERS[kind]().kind for kind in kinds} == set(kinds)


def test_wrapping_touches_nothing(container, monkeypatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("rendering must not touch the machine")

    binds = [Bind(source=Path("/in"), target=Path("/out"))]
    with monkeypatch.context() as patch:
        for owner, name in ((subprocess, "Popen"), (os, "putenv"), (builtins, "open")):
            patch.setattr(owner, name, refuse)
        wrapped = container.wrap(["true"], folder=FOLDER, binds=binds, gpus=1, memory=2, environment=["NAME"])
    assert wrapped[-1] == "true"


@pytest.mark.parametrize("argument", HOSTILE)
def test_the_command_stands_at_the_end_as_it_is(container, argument):
    command = ["program", argument, "-x", argument]
    wrapped = container.wrap(command, folder=FOLDER)
    assert wrapped[-len(command) :] == command
    assert all(isinstance(word, str) for word in wrapped)


def test_wrapping_twice_gives_the_same(container):
    assert container.wrap(["true"], folder=FOLDER) == container.wrap(["true"], folder=FOLDER)


def test_the_environment_is_named_and_never_copied(container, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "a-very-secret-value")
    monkeypatch.setenv("SLURM_JOB_ID", "4711-value")
    wrapped = container.wrap(["true"], folder=FOLDER, environment=["WANDB_API_KEY"])
    assert "a-very-secret-value" not in "\0".join(wrapped)
    assert "4711-value" not in "\0".join(wrapped)


def test_wrapping_knows_of_no_scheduler(container):
    assert not [word for word in container.wrap(["true"], folder=FOLDER) if "sbatch" in word or "bsub" in word]


@pytest.fixture(params=["docker", "apptainer"])
def image_container(request) -> Container:
    return CONTAINERS[request.param]()


@pytest.mark.parametrize("name", ["plain", "a b", "it's", 'a "b"', "a,b", "a:b", "a=b", "a\nb", "--bind", "é"])
def test_binds_are_explicit_whatever_they_are_called(image_container, name):
    given = [Bind(source=Path("/in") / name, target=Path("/out") / name, writable=name == "plain")]
    found = binds_of(image_container, image_container.wrap(["true"], folder=FOLDER / name, binds=given))
    repository = Bind(source=FOLDER / name, target=FOLDER / name, writable=True)
    assert found == [repository, parse_bind("/data:/data"), *given]


def binds_of(container: Container, wrapped: list[str]) -> list[Bind]:
    """What the wrapped command would see, read by the program that it starts."""
    from assay.containers import apptainer, docker

    if container.kind == "docker":
        return docker.parse(wrapped[3:]).all_binds
    return list(apptainer.mounts(wrapped[: wrapped.index("--pwd")]))


def test_gpus_are_asked_for_only_by_a_job_that_has_some(image_container):
    without = image_container.wrap(["true"], folder=FOLDER)
    with_some = image_container.wrap(["true"], folder=FOLDER, gpus=2)
    assert {"--nv", "--gpus"}.isdisjoint(without)
    assert not {"--nv", "--gpus"}.isdisjoint(with_some)


def test_the_network_is_closed_unless_the_machine_opens_it(image_container):
    opened = container_of(ContainerConfig(kind=image_container.kind, image="/i", network=True))
    closed = container_of(ContainerConfig(kind=image_container.kind, image="/i"))
    assert opened.wrap(["true"], folder=FOLDER) != closed.wrap(["true"], folder=FOLDER)


@pytest.mark.parametrize("kind", ["docker", "apptainer"])
def test_a_kind_without_an_image_is_refused(kind):
    with pytest.raises(ConfigError, match=rf"container\.image: got null with kind {kind}; .*make {kind}"):
        container_of(ContainerConfig(kind=kind))


@pytest.mark.parametrize("text", ["/here", "here:/there", "/here:there", "/here:/there:ro", "/a:/b:rw:z", ""])
def test_a_bind_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match=r"container\.binds: got .*; allowed: HOST:INSIDE"):
        container_of(ContainerConfig(kind="docker", image="assay:cpu", binds=(text,)))


def test_a_bind_is_read_only_unless_it_says_otherwise():
    assert not parse_bind("/a:/b").writable
    assert parse_bind("/a:/b:rw") == Bind(source=Path("/a"), target=Path("/b"), writable=True)
    assert {each.name for each in fields(Bind)} == {"source", "target", "writable"}


def test_no_container_leaves_the_command_alone_and_can_always_be_used(tmp_path):
    container = CONTAINERS["none"]()
    assert container.wrap(["a", "b"], folder=FOLDER, gpus=1) == ["a", "b"]
    assert container.python == sys.executable
    assert container.unavailable(tmp_path) == []


def test_what_cannot_be_used_says_why_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    nowhere = f"unix://{tmp_path}/none.socket"
    (docker,) = container_of(ContainerConfig(kind="docker", image="x", host=nowhere)).unavailable(tmp_path)
    (image,) = container_of(ContainerConfig(kind="apptainer", image=str(tmp_path / "none.sif"))).unavailable(tmp_path)
    (tmp_path / "some.sif").touch()
    (program,) = container_of(ContainerConfig(kind="apptainer", image=str(tmp_path / "some.sif"))).unavailable(tmp_path)
    assert f"container.host: no Docker daemon answers at {nowhere} (No such file or directory); start it" in docker
    assert "container.image: got" in image and "does not exist; make it with: make apptainer" in image
    assert "apptainer: got no such program on PATH" in program and "module load apptainer" in program


def test_no_image_gets_what_only_its_builder_may_see():
    """Build arguments end in the image's history; none of ours may hold a secret."""
    text = (Path(__file__).parents[2] / "Dockerfile").read_text().lower()
    assert not [word for word in ("token", "secret", "password", "api_key", "--mount=", "<<eof") if word in text]
    assert stat.S_IMODE((Path(__file__).parents[2] / "scripts/image.sh").stat().st_mode) & stat.S_IXUSR
