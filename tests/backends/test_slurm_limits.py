"""A real Slurm where something is used up: the disk of the nodes, the room for an environment. `make backends`."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.backends.place import TWO_ARMS, Place, wait_until

pytestmark = pytest.mark.slurm

DISK = "64m"
VARIABLES, CHARACTERS = 15, 100_000


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(path: Path) -> None:
    """Until nothing more can be written there."""
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(2**16))


def test_a_disk_that_fills_up_costs_the_run_and_not_the_study(small_disk, slurm):
    place = Place(small_disk, study=TWO_ARMS)
    place.submit("--only", "fast")
    wait_until(lambda: place.is_complete("fast", 0))
    (place.toy / "hold").touch()
    place.submit("--only", "slow")
    wait_until(lambda: any(line.startswith("0 10 ") for line in place.begun()))
    fill(small_disk / "filler")
    (place.toy / "hold").unlink()
    wait_until(lambda: slurm.ask("squeue", "--noheader") == "")
    states = place.states()
    assert (states["slow/0"], states["fast/0"]) == ("failed", "complete")
    assert "failed; disk full; missing train" in place.give("assay", "status", "study.yaml")
    assert "No space left on device); make room, then run it again" in place.submit(code=2)
    (small_disk / "filler").unlink()
    assert "1 of 2 runs submitted, 1 complete" in place.submit()
    wait_until(lambda: place.is_complete("slow", 0))


def test_a_large_environment_is_no_obstacle(place, monkeypatch):
    """Linux starts no program with one of 10 MB; this is what it does start."""
    for number in range(VARIABLES):
        monkeypatch.setenv(f"LARGE_{number}", "x" * CHARACTERS)
    assert "2 of 2 runs submitted" in place.submit()
    wait_until(lambda: place.is_complete("slow", 0) and place.is_complete("fast", 0))
