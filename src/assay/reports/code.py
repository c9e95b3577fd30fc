"""Whether the runs of a study were computed by the same code; open it for what a report warns of."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from assay.config.load import read
from assay.errors import DataError
from assay.matrix.cells import COMPLETE, CellResult
from assay.matrix.forecast.pipeline import paths_of
from assay.matrix.git import git
from assay.matrix.study import StudyConfig

SHOWN = 3
"""Files that are named."""


def of_other_code(path: Path, study: StudyConfig, cells: Sequence[CellResult]) -> Iterator[str]:
    """A line if complete runs come from several commits between which a file that the pipeline depends on was changed.

    Where git cannot say, because a commit is not here, a line for any two commits.
    """
    runs: dict[str, list[str]] = {}
    for cell in cells:
        if cell.commit and cell.state == COMPLETE:
            runs.setdefault(cell.commit, []).append(f"{cell.arm}/{cell.seed}")
    first, *others = sorted(runs, key=lambda commit: (-len(runs[commit]), commit)) or [""]
    total = sum(map(len, runs.values()))
    files = [_changed(path.absolute().parent / study.pipeline, first, other) for other in others]
    if any(each is None for each in files):
        names = ", ".join(commit[:12] for commit in sorted(runs))
        yield f"the complete runs come from {len(runs)} commits: {names}; runs.csv says which"
        return
    for other, found in zip(others, files, strict=True):
        if found:
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            given = f"{len(runs[other])} of {total} complete runs, e.g. {runs[other][0]}, came from other code"
            yield f"{given}: {', '.join(found[:SHOWN])}{more} (commit {other[:12]}, most {first[:12]})"


def _changed(pipeline: Path, one: str, other: str) -> list[str] | None:
    """The files that a dvc.yaml names as dependencies, and itself, that differ; None: git cannot say."""
    stages = dict(read(pipeline).get("stages") or {}).values()
    told = dict.fromkeys(path for stage in stages for path in paths_of(stage, "deps"))
    code = [path for path in told if "${" not in path]
    try:
        said = git(pipeline.parent, "diff", "--name-only", one, other, "--", pipeline.name, *code)
    except DataError:
        return None
    return said.splitlines()
