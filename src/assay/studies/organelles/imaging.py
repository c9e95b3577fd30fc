"""What the microscope makes of an ideal volume; open it to add an artefact.

Axis 0 is the milling direction: a focused ion beam removes a slice, the electron beam scans the next one. Curtains are
streaks along y, in the direction of the ion beam.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from assay.studies.organelles.draw import Draw
from assay.studies.organelles.fields import field


class Microscope(NamedTuple):
    """What stays the same for all crops of a specimen.

    blur: standard deviation along z, and along y and x, voxels. gain; offset: grey. noise: variance at grey 130.
    """

    blur_z: float
    blur: float
    gain: float
    offset: float
    noise: float


def draw_microscope(draw: Draw) -> Microscope:
    """One specimen's."""
    blur_z, blur = draw.number(0.6, 1.1), draw.number(0.5, 0.9)
    return Microscope(blur_z, blur, draw.number(0.75, 1.25), draw.number(-15, 20), draw.number(40, 220))


def gaussian(sd: float) -> list[float]:
    """Weights of a Gaussian at distances 0, 1, ..., cut at 3.5 standard deviations; the sum over both sides is 1."""
    weights = [math.exp(-0.5 * (step / sd) ** 2) for step in range(math.ceil(3.5 * sd))]
    return [weight / (2 * sum(weights) - 1) for weight in weights]


def blur(volume: Tensor, along_z: float, in_plane: float) -> Tensor:
    """A Gaussian along all axes; at the ends the last voxel is repeated."""
    for axis, sd in enumerate((along_z, in_plane, in_plane)):
        weights = gaussian(sd)
        reach, edge = len(weights) - 1, volume.shape[axis]
        ends = [volume.narrow(axis, place, 1).repeat_interleave(reach, axis) for place in (0, edge - 1)]
        padded = torch.cat([ends[0], volume, ends[1]], axis)
        volume = volume * weights[0]
        for step, weight in enumerate(weights[1:], start=1):
            for start in (reach - step, reach + step):
                volume.add_(padded.narrow(axis, start, edge), alpha=weight)
    return volume


def shift_slices(volume: Tensor, draw: Draw) -> None:
    """15 % of the slices lie off by N(0, 0.5) voxels along y and x."""
    for place in torch.nonzero(draw.uniform(len(volume)) < 0.15).flatten().tolist():
        for axis in (0, 1):
            volume[place] = _shifted(volume[place], 0.5 * float(draw.normal(1)), axis)


def _shifted(image: Tensor, by: float, axis: int) -> Tensor:
    """Linear interpolation; at the ends the last voxel is repeated."""
    edge = image.shape[axis]
    low = math.floor(by)
    rows = torch.arange(edge)
    first, second = (image.index_select(axis, (rows + low + step).clamp(0, edge - 1)) for step in (0, 1))
    return torch.lerp(first, second, by - low)


def slice_gain(count: int, draw: Draw) -> Tensor:
    """Brightness (Z, 1, 1): jitter of 1.5 % and a random walk of 0.2 % per slice."""
    return (1 + 0.015 * draw.normal(count) + (0.002 * draw.normal(count)).cumsum(0)).view(-1, 1, 1)


def curtains(depth: int, width: int, draw: Draw) -> Tensor:
    """Gain (Z, 1, X) of streaks about a voxel wide, 2 to 12 % deep, that go on for some slices."""
    pattern = field((depth, 1, width), 1.5, draw)
    return 1 - draw.number(0.02, 0.12) * (pattern.abs_() - 1.5).clamp_(0, 1)


def image(ideal: Tensor, microscope: Microscope, draw: Draw) -> Tensor:
    """uint8 (Z, Y, X) of ideal grey values (Z, Y, X)."""
    volume = blur(ideal, microscope.blur_z, microscope.blur)
    shift_slices(volume, draw)
    volume.mul_(slice_gain(len(volume), draw) * curtains(volume.shape[0], volume.shape[2], draw))
    volume.add_(field(volume.shape, 80, draw), alpha=draw.number(0, 7) / 2)
    noise = draw.normal(*volume.shape).mul_((volume * (microscope.noise / 130)).clamp_min_(0).sqrt_())
    return volume.add_(noise).mul_(microscope.gain).add_(microscope.offset).round_().clamp_(0, 255).byte()
