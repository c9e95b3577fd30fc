"""What tests of schedulers have in common."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.schedulers.vast_desk import KEY, STUBS, Desk
from tests.stubs.vast_world import World


@pytest.fixture
def world(tmp_path, monkeypatch) -> Iterator[World]:
    """A service with two machines, one dearer than the other; each has a disk of its own."""
    monkeypatch.setenv("PATH", os.pathsep.join([str(STUBS), str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("VASTAI_STUB", str(tmp_path / "service"))
    monkeypatch.setenv("VAST_API_KEY", KEY)
    world = World(tmp_path / "service", {1: 0.3, 2: 0.4})
    yield world
    world.end()


@pytest.fixture
def desk(tmp_path, world) -> Desk:
    return Desk(tmp_path / "repo", world)
