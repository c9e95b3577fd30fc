"""Stage memory: how many patches of each full-size network fit into a GPU, and how many steps to accumulate.

It trains nothing and needs no GPU: memory is that of the tensors of a training step, see model/cost.py. Workspaces of
kernels are not among them; `memory.usable` leaves room for them. Writes the table to `memory.output` and prints it.
"""

from collections.abc import Iterator
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import NamedTuple

from torch import nn

from assay.engine.progress import phase
from assay.engine.stop import StopRequest
from assay.errors import DataError
from assay.files import write_csv
from assay.studies.organelles.classes import CLASSES
from assay.studies.organelles.config import Params
from assay.studies.organelles.model import build
from assay.studies.organelles.model.cost import Memory, operations, parameters
from assay.studies.organelles.network_section import ModelConfig
from assay.studies.organelles.slots import PATCHES, SLOTS

GIB = 2**30


class Row(NamedTuple):
    """A network on a GPU: the most patches that fit, and a batch and accumulation that give about the wanted step.

    All are 0 where not even one patch fits.
    """

    model: str
    parameters: int
    gflop: float
    gib_at_one: float
    most: int
    most_recomputed: int
    batch: int
    gpus: int
    accumulate: int
    effective: int


def run(params: Params) -> None:
    """Print and write the table for all eight networks.

    Raises:
        ConfigError: MONAI is not installed.
        Unfinished: stopped on request; nothing has been written.
        DataError: the table cannot be written, or no network fits.
    """
    with StopRequest() as stop, phase("memory", len(SLOTS), unit="networks", stop=stop) as shown:
        rows = []
        for name, config in SLOTS.items():
            rows.append(row(name, config, params))
            shown.advance(note=name)
    if not any(each.batch for each in rows):
        raise DataError(f"memory.card_gib: got {params.memory.card_gib:g}; allowed: more, as no network fits")
    write_csv(Path(params.memory.output), Row._fields, rows)
    print("\n".join(lines(rows)))


def row(name: str, config: ModelConfig, params: Params) -> Row:
    """What a GPU takes of a network: all activations kept, or recomputed."""
    section, edges = params.memory, PATCHES[config.dimensions]
    available = section.card_gib * section.usable * GIB
    model = build(config, len(CLASSES), edges)
    weights = parameters(model)
    flop = operations(lambda: model, edges)
    kept, again = (
        measure(replace(config, recompute=flag), edges, params.train.precision != "fp32") for flag in (False, True)
    )
    most, wanted = kept.largest_batch(available), section.patches_2d if config.dimensions == 2 else section.patches_3d
    accumulate = ceil(wanted / (most * section.gpus)) if most else 0
    batch = ceil(wanted / (accumulate * section.gpus)) if most else 0
    step = batch, section.gpus, accumulate, batch * section.gpus * accumulate
    return Row(name, weights, flop / 1e9, kept.of(1) / GIB, most, again.largest_batch(available), *step)


def measure(config: ModelConfig, edges: tuple[int, ...], bf16: bool) -> Memory:
    """Of a training step with patches of `edges`."""

    def make() -> nn.Module:
        return build(config, len(CLASSES), edges)

    return Memory(make, edges, bf16)


def lines(rows: list[Row]) -> Iterator[str]:
    """The table as text."""
    yield "model      parameters      GFLOP  GiB at 1  most  recomputed  batch/GPU  GPUs  accumulate  effective"
    for each in rows:
        yield (
            f"{each.model:<9} {each.parameters:>11,} {each.gflop:>10.1f} {each.gib_at_one:>9.2f} {each.most:>5}"
            f" {each.most_recomputed:>11} {each.batch:>10} {each.gpus:>5} {each.accumulate:>11} {each.effective:>10}"
        )
