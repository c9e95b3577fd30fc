"""The image as a SIF, through spython; open it when `apptainer build` is not found, or fails.

What is built, and from what, is for scripts/apptainer.sh to say, which does the same without Python.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from assay.containers.apptainer import program
from assay.errors import DataError, UserError
from assay.images.source import Source

SIF = "assay.sif"
"""At the top of the repository, as scripts/apptainer.sh has it."""


def build(source: Source) -> str:
    """Build `assay.sif`; returns a line about it.

    Raises:
        UserError: no program or no spython, or a build that failed.
    """
    found = program()
    try:
        with _as_singularity(found):  # spython asks for its version when it is imported
            from spython.main import Client
    except ImportError:
        fix = "pip install 'assay[apptainer]' (make env has it), or make apptainer, which needs none"
        raise UserError(f"apptainer: spython is not installed; do: {fix}") from None
    sif = source.root / SIF
    fresh = sif.with_suffix(".new.sif")
    with TemporaryDirectory(prefix="assay-image-") as context:
        options = _prepare(source, Path(context))
        try:
            with chdir(context), _as_singularity(found):
                _, lines = Client.build(
                    recipe="apptainer.def",
                    image=str(fresh),
                    options=options,
                    force=True,
                    sudo=False,
                    stream=True,
                    quiet=True,
                    singularity_options=["--quiet"],
                )
                for line in lines:
                    print(line, end="", file=sys.stderr, flush=True)
        except subprocess.CalledProcessError as error:
            raise DataError(f"apptainer: the build ended with {error.returncode}; the lines above say why") from None
    fresh.replace(sif)
    return f"{sif}: {sif.stat().st_size / 1e9:.2f} GB"


def _prepare(source: Source, context: Path) -> list[str]:
    """Have the files put into a folder; returns the options of `apptainer build`."""
    told = {"TORCH": source.torch, **({"WHEELHOUSE": str(source.wheelhouse)} if source.wheelhouse else {})}
    script = source.root / "scripts/apptainer.sh"
    done = subprocess.run(
        [str(script), "--prepare", str(context)],
        env={**os.environ, **told, "BASE_IMAGE": source.base},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UserError(f"{script}: ended with {done.returncode}; the lines above say why")
    return done.stdout.splitlines()


@contextmanager
def _as_singularity(found: str) -> Iterator[None]:
    """spython calls a program named `singularity`; where there is only `apptainer`, that name is given to it."""
    if shutil.which("singularity"):
        yield
        return
    before = os.environ["PATH"]
    with TemporaryDirectory(prefix="assay-names-") as folder:
        (Path(folder) / "singularity").symlink_to(found)
        os.environ["PATH"] = f"{folder}{os.pathsep}{before}"
        try:
            yield
        finally:
            os.environ["PATH"] = before
