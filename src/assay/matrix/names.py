"""The names that a repository's studies have taken; open it when a study is refused for its name.

Clones and experiments are called STUDY-ARM-sSEED: two runs of one such name would take each other's away.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from assay.errors import ConfigError
from assay.files import write_bytes
from assay.matrix.submission import experiment_of

NAMES = ".assay/studies"
"""Below the repository: for each name of a study, the folder of its runs, relative to the repository."""


def claim(root: Path, runs: Path) -> None:
    """Take a study's name. runs: its folder runs/NAME, which may be reached by a link."""
    write_bytes(root / NAMES / runs.name, str(_place_of(root, runs)).encode(), durable=False)


def refuse_taken(path: Path, root: Path, runs: Path, cells: Iterable[tuple[str, int]]) -> None:
    """Refuse a study file whose runs would be called as those of another study. cells: its arms and seeds.

    Raises:
        ConfigError: it has another study's name, or one of its runs would be called as another study's run.
    """
    others = {name: holder for name, holder in _claims(root) if holder != _place_of(root, runs)}
    if runs.name in others:
        given = f"{path}: name: got {runs.name}, and {root / others[runs.name]} has runs of a study of that name"
        raise ConfigError(f"{given}; allowed: a name for each study of a repository; give this one another")
    near = {name: holder for name, holder in others.items() if _is_near(name, runs.name)}
    for arm, seed in cells if near else ():
        called = experiment_of(runs.name, arm, seed)
        for name, holder in near.items():
            other, _, number = called.removeprefix(f"{name}-").rpartition("-s")
            if called.startswith(f"{name}-") and (root / holder / other / number).is_dir():
                given = f"{path}: {arm}/{seed}: got the name {called}, which {root / holder / other / number} has too"
                raise ConfigError(f"{given}; allowed: one for each run; give the study or the arm another name")


def _claims(root: Path) -> Iterator[tuple[str, Path]]:
    """Names of studies whose runs are there, each with their folder."""
    for each in sorted((root / NAMES).glob("*")):
        holder = Path(each.read_text())
        if (root / holder).is_dir():
            yield each.name, holder


def _is_near(one: str, other: str) -> bool:
    return one.startswith(f"{other}-") or other.startswith(f"{one}-")


def _place_of(root: Path, runs: Path) -> Path:
    return runs.parents[1].resolve().relative_to(root) / "runs" / runs.name
