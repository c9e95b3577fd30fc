"""What raw training images go through; open it to add a disturbance. Validation and test images stay as they are."""

import torch
from torch import Tensor
from torch.nn import functional

from assay.studies.scanlines.draw import Draw
from assay.studies.scanlines.sections import AugmentationConfig


def augment(images: Tensor, config: AugmentationConfig, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """Changed images (B, N, P) and, with truncation, the number of lines scanned (B,)."""
    draw, count = Draw(rng), len(images)
    if config.crop > 0:
        images = crop(images, config.crop, draw)
    for axis, wanted in ((2, config.flip_horizontal), (1, config.flip_vertical)):
        if wanted:
            images = torch.where(draw.chance(0.5, count, 1, 1), images.flip(axis), images)
    images = disturb_lines(images, config, draw)
    if config.truncate is None:
        return images, None
    lines = images.shape[1]
    lengths = draw.whole(config.truncate, lines, count)
    scanned = torch.arange(lines, device=images.device) < lengths[:, None]
    return images * scanned[:, :, None], lengths


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


def crop(images: Tensor, largest: float, draw: Draw) -> Tensor:
    """A random part of each image, with edges of 1 - `largest` or more, stretched to the old size."""
    count, lines, points = images.shape
    edge = 1 - draw.uniform(0.0, largest, count, 2)
    centre = draw.uniform(-1.0, 1.0, count, 2) * (1 - edge)
    matrix = torch.zeros(count, 2, 3, device=images.device)
    matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, :, 2] = edge[:, 0], edge[:, 1], centre
    grid = functional.affine_grid(matrix, [count, 1, lines, points], align_corners=False)
    return functional.grid_sample(images[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
