"""Stage compare: Dice of the networks of a study against what each cost, from the records of its complete runs.

Writes costs.csv, a row per run, and costs.png: Dice against parameters, operations, memory and time, a point per run.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from assay.errors import DataError
from assay.files import write_csv
from assay.matrix.cells import CellResult, read_cells
from assay.studies.organelles import figures
from assay.studies.organelles.config import Params
from assay.studies.organelles.figures import Cost

GIB = 2**30


def run(params: Params) -> None:
    """Read the runs below `compare.runs` and write table and figure.

    Raises:
        DataError: there is no complete run, or a metrics file is damaged.
    """
    runs, out = Path(params.compare.runs), Path(params.compare.output)
    every = list(costs(read_cells(runs, *arms_and_seeds(runs))))
    if not every:
        raise DataError(f"{runs}: got no complete run; allowed: the runs of a study, as assay submit leaves them")
    write_csv(out / "costs.csv", Cost._fields, every)
    figures.trade_offs(out / "costs.png", every)


def arms_and_seeds(runs: Path) -> tuple[list[str], list[int]]:
    """The names of folders in a study's folder of runs, and the numbers of those in them."""
    found = sorted(path for path in runs.glob("*/*") if path.name.isdecimal())
    return sorted({path.parent.name for path in found}), sorted({int(path.name) for path in found})


def costs(cells: Iterable[CellResult]) -> Iterator[Cost]:
    """Of every run that has been handed back whole."""
    for cell in cells:
        names = {name.rpartition("/")[2]: value for name, value in cell.metrics.items() if "validate/" in name}
        if "dice" in names and "train" in cell.seconds:
            fixed = names["dice"], names["parameters"], names["gflop"]
            yield Cost(cell.arm, *fixed, cell.rss_peak / GIB, cell.seconds["train"])
