"""What a daemon is asked for; that it does it is shown with a real one in tests/backends."""

import errno
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from docker.errors import APIError, ImageNotFound, NotFound, NullResource

from assay.containers import Bind, container_of
from assay.containers.config import ContainerConfig
from assay.containers.daemon import DaemonError, DaemonLostError, _copy, find_image, is_remote, run
from assay.containers.docker import described, gpu_request, identity, main, parse
from assay.containers.host import FORWARDED_SIGNALS
from assay.errors import DataError
from assay.progress import UNFINISHED

IMAGE = "sha256:abc"


def answered(status: int, explanation: str) -> APIError:
    """What the SDK makes of an answer of the daemon."""
    return APIError("refused", SimpleNamespace(status_code=status, url="", reason=""), explanation)


def request(folder: Path, *, command=("true",), config=None, **options):
    container = container_of(ContainerConfig(kind="docker", image="assay:cpu", **(config or {})))
    return parse(container.wrap(command, folder=folder, **options)[3:])


def test_a_container_may_write_the_repository_and_read_the_rest(tmp_path):
    asked = request(tmp_path, config={"binds": ("/data:/in",)}, binds=[Bind(source=Path("/s"), target=Path("/t"))])
    mounts = described(asked, IMAGE)["host_config"]["mounts"]
    assert [(each["Source"], each["Target"], each["ReadOnly"]) for each in mounts] == [
        (str(tmp_path), str(tmp_path), False),
        ("/data", "/in", True),
        ("/s", "/t", True),
    ]


def test_a_container_has_no_network_no_privilege_and_its_own_init(tmp_path):
    host = described(request(tmp_path), IMAGE)["host_config"]
    assert (host["network_mode"], host["cap_drop"], host["init"]) == ("none", ["ALL"], True)
    assert host["security_opt"] == ["no-new-privileges"]
    opened = described(request(tmp_path, config={"network": True}), IMAGE)["host_config"]
    assert opened["network_mode"] == "bridge"


def test_memory_is_limited_without_swap_and_shared_memory_is_what_the_machine_says(tmp_path):
    host = described(request(tmp_path, memory=1.5, config={"shared_memory": 0.25}), IMAGE)["host_config"]
    assert (host["mem_limit"], host["memswap_limit"], host["shm_size"]) == (1.5 * 2**30, 1.5 * 2**30, 2**28)
    assert described(request(tmp_path), IMAGE)["host_config"]["mem_limit"] is None


def test_it_runs_the_image_it_records_and_bears_the_name_of_the_host(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    made = described(request(tmp_path, command=["sh", "-c", "it's; rm -rf"]), IMAGE)
    assert (made["image"], made["environment"]["ASSAY_IMAGE_DIGEST"]) == (IMAGE, IMAGE)
    assert made["hostname"] == socket.gethostname()
    assert (made["entrypoint"], made["command"]) == (["sh"], ["-c", "it's; rm -rf"])
    assert made["environment"]["SLURM_JOB_ID"] == "7" and "AWS_SECRET_ACCESS_KEY" not in made["environment"]


def test_a_named_variable_is_passed_on(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "given")
    made = described(request(tmp_path, environment=["WANDB_API_KEY"]), IMAGE)
    assert made["environment"]["WANDB_API_KEY"] == "given"


def test_the_same_command_has_the_same_name_and_another_has_another(tmp_path):
    first, again, other = (request(tmp_path, command=[word]).name for word in ("a", "a", "b"))
    assert first == again != other


@pytest.mark.parametrize(
    ("count", "visible", "asked"),
    [(0, "0,1", None), (2, None, {"Count": 2}), (2, "1,3", {"DeviceIDs": ["1", "3"]})],
)
def test_the_gpus_are_those_that_the_scheduler_gave(count, visible, asked):
    found = gpu_request(count, visible)
    assert found == [] if asked is None else found[0].items() >= asked.items()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_root_works_as_the_owner_of_the_repository(tmp_path):
    os.chown(tmp_path, 1234, 5678)
    assert identity(tmp_path) == (1234, 5678, [])


def test_a_daemon_elsewhere_may_have_other_files(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "ssh://user@gpu")
    assert is_remote(None) and not is_remote("unix:///var/run/docker.sock")
    monkeypatch.delenv("DOCKER_HOST")
    assert not is_remote(None)


def test_a_daemon_that_is_down_is_one_line_and_exit_code_2(tmp_path, capsys):
    nowhere = f"unix://{tmp_path}/none.socket"
    container = container_of(ContainerConfig(kind="docker", image="assay:cpu", host=nowhere))
    assert main(container.wrap(["true"], folder=tmp_path)[3:]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"assay: container.host: no Docker daemon answers at {nowhere} (No such file or directory)")
    assert "systemctl start docker" in line


class Refusing:
    """A daemon that answers a question for an image with an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def inspect_image(self, name: str) -> dict[str, str]:
        raise self.error


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        (
            "none:1",
            ImageNotFound("No such image"),
            "got none:1, which the Docker daemon does not have; do: make docker",
        ),
        (
            "",
            NullResource("Resource ID was not provided"),
            r"got '' \(Docker says: Resource ID was not provided\); allowed",
        ),
        (
            "Assay:CPU",
            answered(400, "must be lowercase"),
            r"got 'Assay:CPU' \(Docker says: must be lowercase\); allowed",
        ),
    ],
)
def test_an_image_that_is_none_is_one_line_that_names_the_key(name, error, message):
    with pytest.raises(DataError, match=f"^container.image: {message}"):
        find_image(Refusing(error), name)


@pytest.mark.parametrize("error", [answered(500, "no space"), ConnectionError("went away")])
def test_a_daemon_that_fails_over_an_image_is_one_line(error):
    with pytest.raises(DaemonError, match=r"^docker: assay:cpu: the daemon failed \((no space|went away)\); try again"):
        find_image(Refusing(error), "assay:cpu")


def test_a_container_is_listened_to_also_where_nothing_it_says_can_be_kept(monkeypatch):
    heard = []

    def says() -> Iterator[tuple[bytes | None, bytes | None]]:
        for number in range(3):
            heard.append(number)
            yield b"a line\n", None

    def write(part: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sys.stdout", SimpleNamespace(buffer=SimpleNamespace(write=write)))
    _copy(says())
    assert heard == [0, 1, 2]


def test_a_daemon_that_goes_away_ends_the_attempt_but_not_the_run(tmp_path):
    class Daemon:
        """Has the image, takes a container, and is gone."""

        def inspect_image(self, name: str) -> dict[str, str]:
            return {"Id": IMAGE}

        def inspect_container(self, name: str) -> None:
            raise NotFound("no such container")

        def create_host_config(self, **settings: object) -> dict[str, object]:
            return settings

        def create_container(self, **config: object) -> dict[str, str]:
            return {"Id": "made"}

        def attach(self, container: str, **how: object) -> list[tuple[bytes, bytes]]:
            return []

        def start(self, container: str) -> None:
            pass

        def wait(self, container: str) -> None:
            raise ConnectionError

        def remove_container(self, container: str, **how: object) -> None:
            raise ConnectionError

    before = {number: signal.getsignal(number) for number in FORWARDED_SIGNALS}
    try:
        with pytest.raises(DaemonLostError, match="the next attempt goes on from there") as lost:
            run(Daemon(), request(tmp_path))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert lost.value.exit_code == UNFINISHED  # anything else would end a chain of jobs


def test_a_bind_without_a_source_is_refused_before_anything_starts(tmp_path, capsys):
    container = container_of(ContainerConfig(kind="docker", image="assay:cpu", binds=(f"{tmp_path}/gone:/in",)))
    assert main(container.wrap(["true"], folder=tmp_path)[3:]) == 2
    assert f"{tmp_path}/gone: is bound to /in, and is not there" in capsys.readouterr().err
