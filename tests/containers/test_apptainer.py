"""The program around Apptainer, with a stub that refuses unknown options; real ones are in tests/backends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from assay.containers import container_of
from assay.containers.apptainer import inner_environment
from assay.containers.config import ContainerConfig
from assay.containers.remedies import explain

STUBS = Path(__file__).parents[1] / "stubs"


@pytest.fixture
def image(tmp_path) -> Path:
    path = tmp_path / "assay.sif"
    path.touch()
    return path


def give(image: Path, command: list[str], *, folder: Path | None = None, config=None, **variables: str):
    container = container_of(ContainerConfig(kind="apptainer", image=str(image), **(config or {})))
    environment = {**os.environ, "PATH": f"{STUBS}{os.pathsep}{os.environ['PATH']}", **variables}
    wrapped = container.wrap(command, folder=folder or image.parent)
    return subprocess.Popen(wrapped, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process) -> tuple[int, str, str]:
    out, error = process.communicate()
    return process.returncode, out, error


def test_the_command_runs_in_the_repository_and_its_exit_code_is_the_jobs(image):
    code, out, _ = ended(give(image, ["sh", "-c", "pwd; exit 75"]))
    assert (code, out) == (75, f"{image.parent}\n")


def test_a_repository_with_a_hostile_name_is_bound(tmp_path, image):
    folder = tmp_path / 'a, "b" it\'s=c:d;rm -rf'
    folder.mkdir()
    assert ended(give(image, ["pwd"], folder=folder))[:2] == (0, f"{folder}\n")


def test_only_what_is_named_gets_in_and_no_setting_of_the_user_changes_what_does(image):
    meant = {"SLURM_JOB_ID": "7 8\n9"}
    leaks = {"APPTAINERENV_LEAK": "x", "SINGULARITYENV_LEAK": "x", "APPTAINER_BIND": "/etc", "SECRET": "x"}
    _, out, _ = ended(give(image, ["env", "-0"], **meant, **leaks))
    inside = dict(entry.partition("=")[::2] for entry in out.split("\0") if entry)
    assert inside["SLURM_JOB_ID"] == "7 8\n9"
    assert {"LEAK", "SECRET", "HOME", "APPTAINER_BIND"}.isdisjoint(inside)
    assert {"APPTAINER_BIND", "APPTAINERENV_LEAK"}.isdisjoint(inner_environment([], leaks))
    assert inner_environment([], {"APPTAINER_CACHEDIR": "/c"}) == {"APPTAINER_CACHEDIR": "/c"}


def test_a_request_to_stop_reaches_the_command(image, tmp_path):
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(75))\n"
        f"open({str(tmp_path / 'ready')!r}, 'w').close()\n"
        "time.sleep(60)"
    )
    process = give(image, [sys.executable, "-S", "-c", code])
    end = time.monotonic() + 20
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    assert ended(process)[0] == 75


def test_a_missing_image_is_one_line_and_exit_code_2(tmp_path):
    code, _, error = ended(give(tmp_path / "none.sif", ["true"]))
    assert code == 2
    assert error == (
        f"assay: container.image: got {tmp_path}/none.sif, which does not exist; make it with: make apptainer\n"
    )


def test_a_relative_image_is_in_the_repository_wherever_the_job_was_submitted(image, tmp_path, monkeypatch):
    (tmp_path / "study").mkdir()
    monkeypatch.chdir(tmp_path / "study")
    assert ended(give(Path("assay.sif"), ["pwd"], folder=image.parent))[:2] == (0, f"{image.parent}\n")


def test_a_bind_without_a_source_is_named(image):
    code, _, error = ended(give(image, ["true"], config={"binds": ("/nowhere:/in",)}))
    assert code == 2
    assert "/nowhere: is bound to /in, and is not there on " in error


def test_what_does_not_start_says_what_helps(image):
    said = "could not create user namespace: user namespaces disabled"
    code, _, error = ended(give(image, ["true"], ASSAY_TEST_STUB_SAYS=said))
    assert code == 2
    assert "forbids user namespaces" in error and "sysctl -w user.max_user_namespaces" in error and said in error


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        ("/lib/libc.so.6: version `GLIBC_2.38' not found (required by libcuda.so.1)", "newer BASE_IMAGE"),
        ("RuntimeError: The NVIDIA driver on your system is too old (found version 11040)", "CUDA is newer"),
        ("fuse: failed to open /dev/fuse: Permission denied", "install fuse3"),
        ("network requires root or --fakeroot", "container.network: true"),
        ("image format not recognized", "make apptainer"),
        ("write /tmp/x: no space left on device", "TMPDIR"),
        ("something new", "something new"),
    ],
)
def test_known_words_have_a_remedy_and_unknown_ones_are_kept(said, fix):
    line = explain(f"INFO:    hello\nFATAL:   {said}\n")
    assert fix in line and said in line and "hello" not in line
