"""Stage simulate: write the data set that training reads."""

import json
from pathlib import Path

from assay.config import config_digest
from assay.files import write_bytes
from assay.studies.asl.config import STAGES, Params
from assay.studies.asl.dataset import SCHEMA, write_dataset


def run(params: Params) -> None:
    """Write the data set to `data.path`, or a note that it is drawn while training.

    Raises:
        DataError: the disk is full or the folder cannot be written.
        Unfinished: stopped on request; nothing has been written.
    """
    folder = Path(params.data.path)
    if params.data.source == "disk":
        write_dataset(params, folder)
        return
    note = {"schema": SCHEMA, "source": "simulated", "parameters": config_digest(params, STAGES["simulate"])}
    write_bytes(folder / "manifest.json", (json.dumps(note, indent=2) + "\n").encode())
