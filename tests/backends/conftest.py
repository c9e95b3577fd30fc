"""Real back ends, started by the tests themselves; a missing part is installed, and never skipped."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.backends.slurm import Cluster, install


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    """Two nodes with two cores each; every command given from here on speaks to them."""
    install()
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # munge's socket must have a short name
    cluster = Cluster(folder)
    cluster.start()
    before = os.environ.get("SLURM_CONF")
    os.environ.update(cluster.environment)
    yield cluster
    cluster.stop()
    os.environ.pop("SLURM_CONF")
    if before is not None:
        os.environ["SLURM_CONF"] = before
    shutil.rmtree(folder, ignore_errors=True)
