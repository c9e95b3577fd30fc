"""Stage simulate: write the data set that every other stage reads, simulated or from the user's files."""

from pathlib import Path

from assay.studies.scanlines.config import Params
from assay.studies.scanlines.dataset import write_dataset


def run(params: Params) -> None:
    """Write the data set to `data.path`; images are simulated on the CPU, so the same parameters give the same bits.

    Raises:
        DataError: a file is missing or not what it should be, the disk is full, or the folder is no data set.
        Unfinished: stopped on request; what stood there stays.
    """
    write_dataset(params.data, Path(params.data.path))
