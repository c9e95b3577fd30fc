"""What tests of containers need: wheels, a committed copy of this project, its image; made as a user would."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.backends.docker_engine import BASE_IMAGE, CACHE, Engine
from tests.conftest import ROOT, SKIPPED, Project

SOURCES = ("Dockerfile", ".dockerignore", "apptainer.def", "pyproject.toml", "requirements", "run.slurm")
IMAGE = "assay:cpu"
TINY = (
    *(
        "data.phantoms=24",
        "data.validation_phantoms=8",
        "data.image_size=32",
        "model.hidden_sizes=[8,16]",
        "train.steps=5",
    ),
    *("train.batch_size=4", "train.validate_every=5", "train.checkpoint_every=5", "train.log_every=1"),
    *("evaluation.phantoms=2", "evaluation.snr=[10]", "evaluation.bootstrap=100", "evaluation.images=1"),
    *("sensitivity.phantoms=2", "sensitivity.null_seeds=1", "train.device=cpu"),
)
"""As in scripts/smoke.sh: the stages fit together, and the figures mean nothing."""


def wheelhouse() -> Path:
    """Every package of the lock, fetched once for each lock."""
    content = b"".join(path.read_bytes() for path in sorted((ROOT / "requirements").glob("*.txt")))
    folder = CACHE / f"wheelhouse-{hashlib.sha256(content).hexdigest()[:12]}"
    if not folder.exists():
        fresh = folder.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        environment = {**os.environ, "PYTHON": sys.executable, "TORCH": "cpu"}
        subprocess.run([ROOT / "scripts/wheelhouse.sh", fresh], env=environment, check=True)
        fresh.rename(folder)
    return folder


def add_image_sources(project: Project) -> None:
    """What an image is built from, besides the code that a project has; then everything is committed."""
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, project.folder / name)
    shutil.copytree(ROOT / "scripts", project.folder / "scripts", ignore=SKIPPED)
    project.environment["WHEELHOUSE"] = str(wheelhouse())
    project.commit()


def use(project: Project, engine: Engine) -> None:
    """Commands of the project reach this daemon, with a client that is as old as it."""
    project.environment["DOCKER_HOST"] = engine.host


def build_image(project: Project, *options: str) -> str:
    """`assay image build --docker`; returns the digest that it prints."""
    words = ["--base-image", BASE_IMAGE, "--wheelhouse", str(wheelhouse()), *options]
    said = project.give(f"assay image build --docker {' '.join(words)}")
    return said.splitlines()[-1].split()[1].rstrip(",")


def contents(folder: Path) -> dict[str, bytes]:
    """Every result that has no time in it."""
    kept = [path for path in sorted(folder.rglob("*")) if path.suffix in (".json", ".csv", ".safetensors")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in kept if path.name != "timing.json"}
