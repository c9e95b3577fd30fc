"""Stage simulate: write the data set that training reads."""

from pathlib import Path

from assay.studies.asl.config import Params
from assay.studies.asl.dataset import write_dataset, write_note


def run(params: Params) -> None:
    """Write the data set to `data.path`, or a note that it is drawn while training.

    Raises:
        DataError: the folder holds something that is no data set, the disk is full, or it cannot be written.
        Unfinished: stopped on request; nothing has been written.
    """
    write = write_dataset if params.data.source == "disk" else write_note
    write(params, Path(params.data.path))
