"""Real back ends, started by the tests themselves; a missing part is installed, and never skipped."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.backends import apptainer_setup, docker_engine
from tests.backends.images import IMAGE, TINY, add_image_sources, build_image, use
from tests.backends.place import TWO_ARMS, Place
from tests.backends.slurm import Cluster, temporary_cluster
from tests.conftest import Project


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    """Two nodes with two cores each; every command given from here on speaks to them."""
    with temporary_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def engine() -> Iterator[docker_engine.Engine]:
    docker_engine.install()
    engine = docker_engine.Engine(docker_engine.CACHE / "docker")
    started = not engine.answers()
    if started:
        engine.start()
    engine.import_base()
    yield engine
    engine.give("image", "prune", "--force")  # else each session leaves some gigabytes
    if started:
        engine.stop()


@pytest.fixture(scope="session")
def project(make_project, engine) -> Project:
    """A committed copy of this project; its image is in the daemon."""
    project: Project = make_project()
    use(project, engine)
    add_image_sources(project)
    project.digest = build_image(project)
    return project


@pytest.fixture(scope="session")
def sif(project) -> Path:
    """Made by spython from the daemon's image, where no program is called singularity."""
    apptainer_setup.install()
    assert shutil.which("singularity") is None
    said = project.give("assay image build --apptainer")
    assert f"from the finished image docker-daemon:{IMAGE}" in said
    return project.folder / "assay.sif"


@pytest.fixture
def clone(project, tmp_path) -> Callable[[str], Path]:
    """A fresh clone of the project, with the parameters of a very small study."""

    def cloned(name: str) -> Path:
        folder = tmp_path / name
        project.give(f"git clone --quiet {project.folder} {folder}")
        code = (
            "import sys; from dvc.utils.hydra import apply_overrides; from pathlib import Path\n"
            "apply_overrides(Path('params.yaml'), sys.argv[1:])"
        )
        subprocess.run(["python", "-c", code, *TINY], cwd=folder, env=project.environment, check=True)
        return folder

    return cloned


@pytest.fixture
def place(tmp_path, slurm) -> Place:
    return Place(tmp_path, study=TWO_ARMS)
