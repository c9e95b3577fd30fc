"""Stage simulate: write the data set that every other stage reads."""

from pathlib import Path

from assay.studies.burgers.config import Params
from assay.studies.burgers.dataset import Solutions, dataset_spec, published, simulated, write_dataset
from assay.studies.burgers.pdebench import open_published


def run(params: Params) -> None:
    """Write the data set to `data.path`.

    Raises:
        DataError: a published file is missing or of another version, the disk is full, or the folder is no data set.
        Unfinished: stopped on request; what stood there stays.
    """
    write_dataset(dataset_spec(params.data), Path(params.data.path), solutions(params))


def solutions(params: Params) -> Solutions:
    """Where the trajectories come from; always solved on the CPU, so that the same parameters give the same bits."""
    spec = dataset_spec(params.data)
    if params.data.published is None or params.data.old_version is None:
        return simulated(spec, "cpu")
    return published(spec, [open_published(Path(path), params.data.old_version) for path in params.data.published])
