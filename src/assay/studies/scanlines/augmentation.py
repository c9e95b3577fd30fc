"""What raw training images go through; open it to add a disturbance. Validation and test images stay as they are."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from assay.studies.scanlines.draw import Draw
from assay.studies.scanlines.sections import AugmentationConfig


class Augmented(NamedTuple):
    """Changed images (B, N, P); with truncation, the lines scanned (B,); the lines of tip changes (B,), see `moved`."""

    images: Tensor
    lengths: Tensor | None
    switch: Tensor


def augment(images: Tensor, switch: Tensor, config: AugmentationConfig, rng: torch.Generator) -> Augmented:
    """Images (B, N, P) as they are trained on, from those with tip changes at lines `switch` (B,), N for none."""
    draw, count = Draw(rng), len(images)
    if config.crop > 0:
        images, edge, centre = crop(images, config.crop, draw)
        switch = moved(switch, edge[:, 1], centre[:, 1], images.shape[1])
    for axis, wanted in ((2, config.flip_horizontal), (1, config.flip_vertical)):
        if wanted:
            images = torch.where(draw.chance(0.5, count, 1, 1), images.flip(axis), images)
    images = disturb_lines(images, config, draw)
    if config.truncate is None:
        return Augmented(images, None, switch)
    lines = images.shape[1]
    lengths = draw.whole(config.truncate, lines, count)
    scanned = torch.arange(lines, device=images.device) < lengths[:, None]
    return Augmented(images * scanned[:, :, None], lengths, switch)


def disturb_lines(images: Tensor, config: AugmentationConfig, draw: Draw) -> Tensor:
    """Gain and offset per line, white noise, and lost lines, which get the image's mean."""
    count, lines, points = images.shape
    mean = images.mean((1, 2), keepdim=True)
    if config.line_gain > 0 or config.line_offset > 0:
        gain = draw.normal(config.line_gain, count, lines, 1).exp()
        offset = draw.normal(config.line_offset, count, lines, 1) * images.std((1, 2), keepdim=True)
        images = mean + gain * (images - mean) + offset
    if config.noise > 0:
        sd = draw.uniform(0.0, config.noise, count, 1, 1) * images.std(2, keepdim=True)
        images = images + sd * draw.normal(1.0, count, lines, points)
    if config.line_dropout > 0:
        images = torch.where(draw.chance(config.line_dropout, count, lines, 1), mean, images)
    return images


def crop(images: Tensor, largest: float, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    """A random part of each image, with edges of 1 - `largest` or more, stretched to the old size.

    Also the parts' edges and centres (B, 2) along points and lines, where the image reaches from -1 to 1.
    """
    count, lines, points = images.shape
    edge = 1 - draw.uniform(0.0, largest, count, 2)
    centre = draw.uniform(-1.0, 1.0, count, 2) * (1 - edge)
    matrix = torch.zeros(count, 2, 3, device=images.device)
    matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, :, 2] = edge[:, 0], edge[:, 1], centre
    grid = functional.affine_grid(matrix, [count, 1, lines, points], align_corners=False)
    part = functional.grid_sample(images[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    return part, edge, centre


def moved(switch: Tensor, edge: Tensor, centre: Tensor, lines: int) -> Tensor:
    """Where the first line after a tip change lies in a part of an image of `lines` lines, edge and centre (B,).

    0: the part is after the change; `lines`: there is no change; `lines` + 1: the part is before the change.
    """
    within = ((2 * switch / lines - 1 - centre) / edge + 1) * lines / 2
    place = within.round().long().clamp(0, lines)
    return torch.where(switch == lines, lines, torch.where(place == lines, lines + 1, place))
