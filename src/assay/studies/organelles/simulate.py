"""Stage simulate: write the crops that every other stage reads, simulated or the challenge's, and their split.

Crops are simulated on the CPU, one per thread; on one machine the same parameters give the same bits.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch

from assay.engine.progress import phase
from assay.engine.stop import StopRequest
from assay.errors import DataError
from assay.files import replaced_folder
from assay.studies.organelles.cache import identifying
from assay.studies.organelles.cache_files import SPLIT, CropWriter, new_crops
from assay.studies.organelles.classes import CLASSES
from assay.studies.organelles.config import Params
from assay.studies.organelles.crop import NewCrop
from assay.studies.organelles.data_section import SIMULATED_NM, DataConfig
from assay.studies.organelles.generator import simulate_crop
from assay.studies.organelles.reader import read_crop, voxels_of
from assay.studies.organelles.splits import make_split, write_split
from assay.studies.organelles.zarr_layout import CropPlace, find_crops, write_crop


def run(params: Params) -> None:
    """Write crops and split to `data.path`; also, if asked for, simulated crops to `data.zarr`.

    Raises:
        DataError: a crop of the challenge's is not what it should be, the split cannot be made, the disk is full, or a
            folder holds other files; what stood there stays.
        Unfinished: stopped on request; what stood there stays.
    """
    data, folder = params.data, Path(params.data.path)
    with StopRequest() as stop, new_crops(folder, identifying(data)) as writer:
        if data.source == "simulated":
            simulate_all(data, writer, stop)
        else:
            read_challenge(data, writer, stop)
        if writer.entries:  # without any, the writer says why
            names, datasets = ([entry[key] for entry in writer.entries] for key in ("name", "dataset"))
            write_split(writer.folder / SPLIT, make_split(names, datasets, data), names, data)


def simulate_all(data: DataConfig, writer: CropWriter, stop: StopRequest) -> None:
    """Add every crop, in order; those in `data.zarr`, if that is a folder, are replaced by them in one step at the end.

    Raises:
        DataError: that folder holds something else.
    """
    with _export(data) as root, phase("simulate", data.volumes or 0, unit="crops", stop=stop) as shown:
        for number, crop in enumerate(_side_by_side(data), start=1):
            if root is not None:
                write_crop(root, number, crop)
            writer.add(crop)
            shown.advance()


def _export(data: DataConfig) -> AbstractContextManager[Path | None]:
    if data.zarr is None:
        return nullcontext()
    remedy = "set data.zarr to another folder"
    return replaced_folder(Path(data.zarr), "simulated data sets", ("simulated-*",), remedy)


def _side_by_side(data: DataConfig) -> Iterator[NewCrop]:
    """The crops in order, as many at a time as there are threads, each of which uses one: so no bit depends on that."""
    threads, count = torch.get_num_threads(), data.volumes or 0
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        waiting = deque(pool.submit(_simulated, data, number) for number in range(min(2 * threads, count)))
        for number in range(count):
            if number + 2 * threads < count:
                waiting.append(pool.submit(_simulated, data, number + 2 * threads))
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _simulated(data: DataConfig, number: int) -> NewCrop:
    shape, share = data.shape or (0, 0, 0), data.fully_annotated or 0.0
    found = simulate_crop(data.seed, number, shape, data.datasets or 1, share)
    return NewCrop(
        name=f"{found.dataset}/crop{number + 1}",
        dataset=found.dataset,
        image=found.image.numpy(),
        label=found.label.numpy(),
        annotated=found.annotated.numpy(),
        labelled=np.ones(len(CLASSES), np.bool_),
        box=None,
        voxel_nm=SIMULATED_NM,
    )


def read_challenge(data: DataConfig, writer: CropWriter, stop: StopRequest) -> None:
    """Add every crop below `data.zarr`; those that are faulty or too large are skipped if the parameters say so.

    Raises:
        DataError: a crop is faulty and `data.faulty` is refuse.
    """
    places = find_crops(Path(data.zarr or ""))
    with phase("read", len(places), unit="crops", stop=stop) as shown:
        for place in places:
            try:
                _read(place, data, writer)
            except DataError as error:
                if data.faulty != "skip":
                    raise
                writer.skip(place.name, str(error))
            shown.advance()


def _read(place: CropPlace, data: DataConfig, writer: CropWriter) -> None:
    voxels = voxels_of(place, data.voxel_nm)
    if data.largest is not None and voxels > data.largest:
        writer.skip(place.name, f"{voxels} voxels, more than data.largest {data.largest}")
        return
    try:
        crop = read_crop(place, data.voxel_nm, data.context or (0, 0, 0))
    except (RuntimeError, ValueError, OSError) as error:  # of zarr and its codecs: a chunk that was not fetched whole
        reason = " ".join(str(error).split())
        raise DataError(f"{place.labels}: cannot be read ({reason}); fetch the crop again") from error
    writer.add(crop)
