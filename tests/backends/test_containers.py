"""Real Docker and Apptainer: the same bits give the same numbers, stop with a checkpoint, and leave nothing behind."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.backends import docker_engine
from tests.backends.images import IMAGE, build_image, contents

from assay.containers import Container, container_of
from assay.containers.config import ContainerConfig

pytestmark = [pytest.mark.docker, pytest.mark.apptainer]
KINDS = ("docker", "apptainer")
WITHIN_S = 120.0
HOSTILE = "a b\n'c' \"d\" `touch pwned` $(touch pwned) $HOME \\ ;rm -rf"
LOOK = """\
import json, os, socket
def can_write(path):
    try:
        open(path, "w").close()
    except OSError:
        return False
    return True
shared = os.statvfs("/dev/shm")
print(json.dumps({
    "uid": os.getuid(),
    "environment": dict(os.environ),
    "interfaces": [name for _, name in socket.if_nameindex()],
    "writable": [path for path in ("made", "/data/made", "/opt/assay/made", "/tmp/made") if can_write(path)],
    "home": os.path.exists(os.environ["SLURM_HOME_OF_HOST"]),
    "shared": shared.f_blocks * shared.f_frsize,
}))
"""


@pytest.fixture
def containers(project, request) -> Callable[..., Container]:
    def make(kind: str, **config) -> Container:
        if kind == "none":
            return container_of(ContainerConfig())
        image = IMAGE if kind == "docker" else str(request.getfixturevalue("sif"))
        return container_of(ContainerConfig(kind=kind, image=image, **config))

    return make


@pytest.fixture
def start(project, containers):
    """Starts a command in a container of some kind; the word PYTHON is its interpreter."""

    def started(kind: str, command: list[str], folder: Path, config=None, variables=None, **options):
        container = containers(kind, **(config or {}))
        words = [container.python if word == "PYTHON" else word for word in command]
        return subprocess.Popen(
            container.wrap(words, folder=folder, **options),
            cwd=folder,
            env={**project.environment, **(variables or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return started


@pytest.fixture
def give(start):
    """The same, to its end: exit code, output, errors."""

    def given(*arguments, **options):
        process = start(*arguments, **options)
        out, error = process.communicate(timeout=600)
        return process.returncode, out, error

    return given


def left_behind(engine) -> list[str]:
    return engine.give("ps", "--all", "--quiet").split()


def record(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


def test_bare_docker_and_apptainer_give_the_same_bits_and_record_the_image(clone, give, project, engine):
    results, records = {}, {}
    for kind in ("none", *KINDS):
        folder = clone(kind)
        command = ["PYTHON", "-m", "assay", "exec", "--run", str(folder / "runs/a/b/0"), "--", "dvc", "repro"]
        code, out, error = give(kind, command, folder)
        assert code == 0, f"{kind}\n{out}{error}"
        results[kind], records[kind] = contents(folder / "results"), record(folder / "runs/a/b/0")
    assert results["none"] and results["none"].keys() == results["docker"].keys() == results["apptainer"].keys()
    differing = [name for name, content in results["none"].items() if content != results["docker"][name]]
    assert (differing, results["apptainer"] == results["docker"]) == ([], True)
    assert [records[kind]["image"] for kind in ("none", *KINDS)] == [None, project.digest, project.digest]
    assert records["docker"]["versions"]["image"] == records["apptainer"]["versions"]["image"]
    assert left_behind(engine) == []


def test_two_builds_of_one_commit_from_nothing_have_one_digest(project):
    assert build_image(project, "--no-cache") == project.digest


def test_a_sif_without_docker_has_the_content_of_the_image(project, sif, tmp_path, engine):
    """A login node has no Docker: the base comes from a file, the packages from the wheelhouse."""
    engine.give("save", "--output", str(tmp_path / "base.tar"), docker_engine.BASE_IMAGE)
    variables = f"DOCKER_HOST=unix:///nowhere BASE_IMAGE=docker-archive:{tmp_path}/base.tar"
    said = project.give(f"{variables} scripts/apptainer.sh {tmp_path}/alone.sif")
    assert "by scripts/install.sh and the lock" in said and "without a network" in said
    show = ["apptainer", "exec", "--containall", "--no-privs", "cat", "/opt/assay/content.txt"]
    texts = [
        subprocess.run([*show[:4], image, *show[4:]], capture_output=True, check=True).stdout
        for image in (sif, tmp_path / "alone.sif")
    ]
    assert texts[0] and texts[0] == texts[1]


def test_a_sif_from_the_image_carries_its_digest_and_its_commit(project, sif):
    found = labels(sif)
    assert found["assay.digest"] == project.digest
    assert found["org.opencontainers.image.revision"] == project.give("git rev-parse HEAD").strip()


def labels(sif: Path) -> dict[str, str]:
    said = subprocess.run(["apptainer", "inspect", "--json", sif], capture_output=True, check=True).stdout
    found = json.loads(said)["data"]["attributes"]["labels"]
    return {name: value for name, value in found.items() if "build-date" not in name}


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_to_stop_becomes_a_checkpoint_and_the_next_attempt_ends_with_the_same_weights(
    kind, clone, start, give, engine, tmp_path
):
    longer = "--train.steps 3000 --train.validate_every 500 --train.checkpoint_every 100000"
    command = ["PYTHON", "-m", "assay", "stage", "asl", "train", *longer.split()]
    weights = {}
    for how in ("whole", "stopped"):
        folder = clone(f"{kind}-{how}")
        run = folder / "runs/a/b/0"
        supervised = ["PYTHON", "-m", "assay", "exec", "--run", str(run), "--", *command]
        assert give(kind, ["PYTHON", "-m", "assay", "stage", "asl", "simulate"], folder)[0] == 0
        if how == "stopped":
            process = start(kind, supervised, folder)
            wait_until(lambda run=run: trains(run))
            process.send_signal(signal.SIGTERM)
            _, error = process.communicate(timeout=WITHIN_S)
            assert process.returncode == 75, error
            assert left_behind(engine) == []
        assert give(kind, supervised, folder)[0] == 0
        weights[how] = contents(folder / "results/train")
    assert weights["whole"] == weights["stopped"]


def trains(run: Path) -> bool:
    log = run / "logs/0001.log"
    return log.exists() and re.search(r" train \d+/3000 ", log.read_text()) is not None


def wait_until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < end, f"waited {WITHIN_S} s"
        time.sleep(0.1)


def test_a_container_that_runs_out_of_memory_says_so_and_is_gone(give, project, engine):
    code, _, error = give("docker", ["PYTHON", "-c", "x = bytearray(2**30)"], project.folder, memory=0.25)
    assert code == 137
    assert "the container ran out of memory: it used its 0.25 GiB" in error
    assert left_behind(engine) == []


@pytest.mark.parametrize("kind", KINDS)
def test_inside_there_is_no_root_no_network_no_home_and_no_stranger(kind, give, tmp_path, project):
    folder = tmp_path / "a, 'repository'; rm -rf"
    folder.mkdir()
    (tmp_path / "data").mkdir()
    if kind == "docker":  # Apptainer runs as who calls it, and these tests need root
        for path in (folder, tmp_path / "data"):
            os.chown(path, 1234, 1234)
    answer, out, error = give(
        kind,
        ["PYTHON", "-c", LOOK],
        folder,
        config={"binds": (f"{tmp_path}/data:/data",)},
        variables={
            "SLURM_JOB_ID": "7",
            "WANDB_API_KEY": "hidden",
            "SLURM_NAME": HOSTILE,
            "SLURM_HOME_OF_HOST": str(docker_engine.CACHE),
        },
    )
    assert answer == 0, error
    found = json.loads(out)
    assert (found["writable"], found["home"]) == (["made", "/tmp/made"], False)
    assert found["interfaces"] == ["lo"]
    assert found["environment"]["SLURM_NAME"] == HOSTILE and "WANDB_API_KEY" not in found["environment"]
    assert found["environment"]["ASSAY_IMAGE_DIGEST"] == project.digest
    assert found["shared"] >= 2**30
    assert found["uid"] == (1234 if kind == "docker" else os.getuid())


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_arguments_arrive_as_they_are(kind, give, project):
    words = [
        "a b",
        "it's",
        'say "no"',
        "line\nline",
        ";rm -rf /",
        "$(touch pwned)",
        "`id`",
        "--",
        "-v",
        "*",
        "\\",
        "",
        "é",
    ]
    _, out, _ = give(
        kind, ["PYTHON", "-c", "import json, sys; print(json.dumps(sys.argv[1:]))", *words], project.folder
    )
    assert json.loads(out) == words


def test_an_image_that_the_daemon_does_not_have_is_one_line(project):
    missing = container_of(ContainerConfig(kind="docker", image="assay:none"))
    said = subprocess.run(
        missing.wrap(["true"], folder=project.folder),
        env=project.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 2
    assert "container.image: got assay:none, which the Docker daemon does not have; do: make docker" in said.stderr


def test_what_a_killed_job_left_behind_is_ended_by_the_next(start, give, engine, project):
    command = ["PYTHON", "-c", "import os, time; time.sleep(0 if os.path.exists('again') else 600)"]
    process = start("docker", command, project.folder)
    wait_until(lambda: left_behind(engine))
    process.kill()
    process.communicate()
    assert len(left_behind(engine)) == 1
    (project.folder / "again").touch()
    code, _, error = give("docker", command, project.folder)
    assert code == 0
    assert "of an earlier job is still there; it is asked to stop" in error
    assert left_behind(engine) == []


def test_a_daemon_behind_ssh_is_used_like_one_that_is_here(project, engine, tmp_path):
    """ssh is stood in for by a link to the daemon's socket; what goes through it is real."""
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\nln -s {engine.host.removeprefix("unix://")} "${{3%%:*}}"\nexec sleep 1000\n')
    ssh.chmod(0o755)
    container = container_of(ContainerConfig(kind="docker", image=IMAGE, host="ssh://me@gpu"))
    environment = {**project.environment, "PATH": f"{tmp_path}:{project.environment['PATH']}"}
    code = "trap 'echo saved; exit 75' USR1; echo ready; while :; do sleep 0.1; done"
    process = subprocess.Popen(
        container.wrap(["sh", "-c", code], folder=project.folder), env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGUSR1)
    assert (process.communicate(timeout=WITHIN_S)[0], process.returncode) == ("saved\n", 75)
    elsewhere = container.wrap(["true"], folder=Path("/nowhere"))
    refused = subprocess.run(elsewhere, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "the daemon's machine has no /nowhere; make it there" in refused.stderr
