"""Stage simulate: write the recording that every other stage reads, simulated or converted from a published one."""

import numpy as np

from assay.engine.precision import pick_device
from assay.studies.latents.config import Params
from assay.studies.latents.dataset import Source, write_recording
from assay.studies.latents.network import build_network
from assay.studies.latents.published import open_published
from assay.studies.latents.simulator import simulate
from assay.studies.latents.sizes import SIZES


def run(params: Params) -> None:
    """Write the recording to `data.path`.

    Raises:
        DataError: a published recording is missing, damaged or of another shape, a value is not finite, the disk is
            full, or the folder is no recording.
        Unfinished: stopped on request; what stood there stays.
    """
    write_recording(params, source(params))


def source(params: Params) -> Source:
    """Where the recording comes from; the full preset is simulated on a GPU where there is one."""
    data = params.data
    if data.published is not None and data.column is not None:
        return open_published(data.published, data.column, data.steps)
    if data.preset is None or data.noise is None:
        raise TypeError("a simulated recording has preset and noise; the parameters were not checked")
    network = build_network(SIZES[data.preset], data.seed)
    repeat = data.training_scenes if data.scenes == "replayed" else None
    device = pick_device("auto" if data.preset == "full" else "cpu")
    rows = simulate(network, data.seed, data.steps, data.noise, repeat, device)
    types = np.repeat(np.arange(network.size.types), network.size.columns)
    return Source(rows, types, np.stack([network.target, network.source]))
