"""What a complete run gives to its study: metrics, small results, a DVC experiment; open it to keep more of a run."""

import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from assay.errors import DataError
from assay.files import write_bytes
from assay.matrix.cells import LOSSES, METRICS
from assay.matrix.git import git
from assay.matrix.submission import Submission

if TYPE_CHECKING:
    from dvc.repo import Repo

RESULTS = "results"
KEPT = ("*.json", "*.csv", "*.tsv", "*.png", "events.out.tfevents.*")
KEPT_BYTES = 2 * 2**20


def hand_back(submission: Submission, run: Path) -> None:
    """Keep results and metrics in the run's folder, and the run as an experiment in the main repository.

    metrics.json comes last: where it is, nothing is missing.

    Raises:
        DataError: DVC or git failed.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    pipeline = submission.clone / submission.pipeline
    keep_results(pipeline / RESULTS, run / RESULTS)
    try:
        with chdir(pipeline), Repo() as repo:
            files = _metric_files(repo)
            found = _named(files)  # before anything is published
            uncached = [os.path.abspath(name) for name in files if not _is_cached(repo, name)]
            repo.experiments.save(
                targets=["dvc.yaml"],  # other pipelines of the repository have not run here
                name=submission.experiment,
                force=True,
                include_untracked=uncached + _new_lock(repo),
            )
    except DvcException as error:
        raise DataError(f"{submission.clone}: DVC cannot save the experiment ({error}); submit it again") from error
    publish(submission)
    write_bytes(run / METRICS, (json.dumps(found, indent=1) + "\n").encode())


def publish(submission: Submission) -> None:
    """The experiment's commit to the main repository, in place of an older one of its name."""
    ref = f"refs/exps/{submission.commit[:2]}/{submission.commit[2:]}/{submission.experiment}"
    git(submission.clone, "push", "--quiet", "--force", submission.repository, f"{ref}:{ref}")


def keep_results(source: Path, target: Path) -> None:
    """Copy the small files that reports are made from, and the losses, in place of those of an earlier attempt."""
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    for path in sorted(source.rglob("*")):
        named = any(path.match(pattern) for pattern in KEPT) and path.is_file()
        if named and (path.stat().st_size < KEPT_BYTES or path.match(LOSSES)):
            copy = fresh / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    shutil.rmtree(target, ignore_errors=True)
    if fresh.is_dir():
        fresh.replace(target)


def numbers(file: str, content: Any) -> dict[str, float | None]:
    """A metrics file's numbers as `<folder below results>/<key>`, nested keys joined by dots; None: not finite."""
    parts = PurePosixPath(file).parent.parts
    if RESULTS in parts:
        parts = parts[parts.index(RESULTS) + 1 :]
    prefix = "/".join([*parts, ""])
    return {f"{prefix}{key}": value for key, value in _leaves(content)}


def _leaves(content: Any, prefix: str = "") -> Iterator[tuple[str, float | None]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    elif content is None:  # what a stage writes for NaN and infinity, for which JSON has no word
        yield prefix, None
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield prefix, content if math.isfinite(content) else None


def _named(files: dict[str, Any]) -> dict[str, float | None]:
    """The numbers of all metrics files.

    Raises:
        DataError: two files in one folder have a number of the same name.
    """
    found: dict[str, float | None] = {}
    for file, content in files.items():
        for name, value in numbers(file, content).items():
            if name in found:
                raise DataError(
                    f"{file}: got {name}, which another metrics file has too; give each a folder of its own"
                )
            found[name] = value
    return found


def _metric_files(repo: "Repo") -> dict[str, Any]:
    """Metrics file, relative to the pipeline's folder, to its content; one that cannot be read is named and left out.

    Only what this pipeline declares: DVC shows what lock files say of others, too, which have not run here.
    """
    from dvc.dvcfile import load_file

    file = load_file(repo, "dvc.yaml")
    declared = [out.fs_path for stage in file.stages.values() for out in stage.outs if out.metric]
    declared += [os.path.abspath(name) for name in file.metrics]
    shown = repo.metrics.show(targets=declared)[""]["data"] if declared else {}
    found = {}
    for name, told in shown.items():
        path = os.path.relpath(Path(repo.root_dir, name))
        if "data" in told:
            found[path] = told["data"]
        else:
            print(f"assay: {path}: its metrics cannot be read ({told['error']}) and are left out", flush=True)
    return found


def _is_cached(repo: "Repo", name: str) -> bool:
    """Whether DVC stores the file, or a folder it lies in."""
    path = Path(os.path.abspath(name))
    return not {out.fs_path for out in repo.index.outs if out.use_cache}.isdisjoint(map(str, (path, *path.parents)))


def _new_lock(repo: "Repo") -> list[str]:
    """The pipeline's lock file, unless git knows it; DVC itself saves a new one in the repository's own folder only."""
    lock = os.path.abspath("dvc.lock")
    return [lock] if os.path.relpath(lock, repo.scm.root_dir) in repo.scm.untracked_files() else []
