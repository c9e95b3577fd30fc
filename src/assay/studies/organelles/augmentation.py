"""From raw patches to what a network is given: channels, NaN where nothing is known, and random changes, on the device.

Open it to add a disturbance. Images are uint8 until here and between 0 and 1 from here on. A rotation or mirror image
moves labels to the nearest voxel; what comes from outside of the patch is 0 in the image and not annotated.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from assay.errors import DataError
from assay.studies.organelles.classes import OUTSIDE
from assay.studies.organelles.data_section import AugmentationConfig
from assay.studies.organelles.patches import RawBatch


def scaled(image: Tensor) -> Tensor:
    """uint8 as float32 in 0 to 1.

    Raises:
        DataError: another type, of which the range is not known: it would be scaled twice, or not at all.
    """
    if image.dtype != torch.uint8:
        got = f"{image.dtype} up to {float(image.max()):g}".removeprefix("torch.")
        raise DataError(f"image: got {got}; allowed: uint8, of which 255 becomes 1; keep crops as uint8")
    return image.float() / 255


def coded(batch: RawBatch, device: torch.device | str) -> Tensor:
    """Labels (B, *spatial) uint8 with OUTSIDE where nothing is known."""
    label, inside = batch.label.to(device, non_blocking=True), batch.inside.to(device, non_blocking=True)
    return torch.where(inside, label, OUTSIDE)


def channels(code: Tensor, annotated: Tensor) -> Tensor:
    """Targets (B, C, *spatial): 1, 0, or NaN where `code` is OUTSIDE or the class is not among `annotated` (B, C)."""
    known = torch.where(code == OUTSIDE, math.nan, code.float())
    labels = torch.arange(1.0, annotated.shape[1] + 1, device=code.device).expand(annotated.shape)
    labels = labels.masked_fill(~annotated, math.nan).view(*annotated.shape, *(1,) * (code.ndim - 1))
    # 1 - min(|code - label|, 1): four passes, a third of the time of a comparison and a mask; NaN stays NaN
    return (known[:, None] - labels).abs_().clamp_(max=1).neg_().add_(1)


def expand(batch: RawBatch, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Image (B, 1, *spatial) in 0 to 1 and target (B, C, *spatial) of a raw batch, on the device.

    Raises:
        DataError: the image is not uint8.
    """
    image = scaled(batch.image.to(device, non_blocking=True))
    return image, channels(coded(batch, device), batch.annotated.to(device, non_blocking=True))


def prepare(
    batch: RawBatch, device: torch.device | str, rng: torch.Generator, section: AugmentationConfig
) -> tuple[Tensor, Tensor]:
    """What `augment` makes of an expanded batch, with one channel of labels turned instead of all classes.

    Raises:
        DataError: the image is not uint8, or its edges cannot be swapped.
    """
    image, code = scaled(batch.image.to(device, non_blocking=True)), coded(batch, device)
    image, turned = _changed(image, code[:, None].float(), rng, section, float(OUTSIDE))
    return image, channels(turned[:, 0].byte(), batch.annotated.to(device, non_blocking=True))


def augment(image: Tensor, target: Tensor, rng: torch.Generator, section: AugmentationConfig) -> tuple[Tensor, Tensor]:
    """Changed image (B, 1, *spatial) and target (B, C, *spatial), which is NaN where it comes from outside.

    Raises:
        DataError: the image goes above 1, so it was not scaled, or its edges cannot be swapped.
    """
    if float(image.max()) > 1:
        raise DataError(f"image: got values up to {float(image.max()):g}; allowed: 0 to 1; divide uint8 by 255")
    return _changed(image, target, rng, section, math.nan)


def _changed(
    image: Tensor, target: Tensor, rng: torch.Generator, section: AugmentationConfig, fill: float
) -> tuple[Tensor, Tensor]:
    matrix = draw_turns(len(image), image.shape[-2:], rng, section).to(image.device)
    if image.ndim == 5 and section.flip:
        mirrored = _chance(len(image), rng).to(image.device).view(-1, 1, 1, 1, 1)
        image, target = (torch.where(mirrored, each.flip(2), each) for each in (image, target))
    if section.rotation == 0:
        return disturb(_mirrored(image, matrix), rng, section), _mirrored(target, matrix)
    image, target, covered = _rotated(image, target, matrix, fill)
    return disturb(image, rng, section) * covered, target


def _chance(count: int, rng: torch.Generator) -> Tensor:
    return torch.rand(count, generator=rng, device=rng.device) < 0.5


def _uniform(low: float, high: float, count: int, rng: torch.Generator) -> Tensor:
    return torch.empty(count, device=rng.device).uniform_(low, high, generator=rng)


def draw_turns(count: int, plane: torch.Size, rng: torch.Generator, section: AugmentationConfig) -> Tensor:
    """Matrices (count, 2, 2) that take x, y of the result to x, y of the source: mirrors, a swap, and a rotation.

    Raises:
        DataError: a swap of edges that are not equal.
    """
    matrix = torch.eye(2, device=rng.device).repeat(count, 1, 1)
    if section.rotation > 0:
        angle = _uniform(-section.rotation, section.rotation, count, rng) * (math.pi / 180)
        cos, sin = angle.cos(), angle.sin()
        matrix = torch.stack([cos, -sin, sin, cos], 1).view(count, 2, 2)
    if section.transpose:
        if plane[0] != plane[1]:
            raise DataError(
                f"augmentation.transpose: got patches of {plane[0]} x {plane[1]}; allowed: equal edges; set it to false"
            )
        matrix = torch.where(_chance(count, rng)[:, None, None], matrix.flip(1), matrix)
    if section.flip:
        signs = torch.stack([_chance(count, rng), _chance(count, rng)], 1).float() * -2 + 1
        matrix = matrix * signs[:, :, None]
    return matrix


def _rotated(image: Tensor, target: Tensor, matrix: Tensor, fill: float) -> tuple[Tensor, Tensor, Tensor]:
    """Linear image, nearest target, and where the source was (B, 1, *spatial)."""
    height, width = image.shape[-2:]
    y = torch.arange(height, device=image.device) - (height - 1) / 2
    x = torch.arange(width, device=image.device) - (width - 1) / 2
    place = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).view(-1, 2)
    scale = torch.tensor([2 / width, 2 / height], device=image.device)
    grid = ((place @ matrix.mT) * scale).view(len(image), height, width, 2)
    covered = (grid.abs() < 1).all(-1).view(len(image), 1, *(1,) * (image.ndim - 4), height, width)

    def sample(values: Tensor, mode: str) -> Tensor:
        flat = values.reshape(len(values), -1, height, width)
        found = functional.grid_sample(flat, grid, mode=mode, padding_mode="border", align_corners=False)
        return found.view(values.shape)

    return sample(image, "bilinear"), torch.where(covered, sample(target, "nearest"), fill), covered


def _mirrored(values: Tensor, matrix: Tensor) -> Tensor:
    """The same of matrices of mirrors and swaps alone, exactly."""
    spread = (-1, *(1,) * (values.ndim - 1))
    for axis, row in ((-1, 0), (-2, 1)):
        values = torch.where((matrix[:, row].sum(1) < 0).view(spread), values.flip(axis), values)
    if values.shape[-1] != values.shape[-2]:
        return values
    return torch.where((matrix[:, 0, 0] == 0).view(spread), values.mT, values)


def disturb(image: Tensor, rng: torch.Generator, section: AugmentationConfig) -> Tensor:
    """Blur, contrast, gamma and noise, each drawn for every sample; the result stays between 0 and 1."""
    count, device, spread = len(image), image.device, (-1, *(1,) * (image.ndim - 1))
    if section.blur > 0:
        image = blurred(image, _uniform(0.0, section.blur, count, rng).to(device))
    if section.contrast > 0:
        drawn = _uniform(-section.contrast, section.contrast, 2 * count, rng).to(device)
        factor, shift = (each.view(spread) for each in drawn.chunk(2))
        mean = image.flatten(1).mean(1).view(spread)
        image = mean + (1 + factor) * (image - mean) + shift * mean
    if section.gamma > 0:
        exponent = _uniform(-section.gamma, section.gamma, count, rng).to(device).exp()
        image = image.clamp(0, 1) ** exponent.view(spread)
    if section.noise > 0:
        sd = _uniform(0.0, section.noise, count, rng).to(device).view(spread)
        white = torch.empty(image.shape, device=rng.device).normal_(generator=rng).to(device)
        image = image + sd * white
    return image.clamp(0, 1)


def blurred(image: Tensor, sd: Tensor) -> Tensor:
    """Image (B, C, *spatial) blurred along y and x by a Gaussian of each sample's sd (B,), voxels."""
    for edge, axis in ((image.shape[-2], -2), (image.shape[-1], -1)):
        place = torch.arange(edge, device=image.device)
        weights = (-0.5 * (place / sd.clamp_min(1e-3)[:, None]) ** 2).exp()
        kernel = weights[:, (place[:, None] - place).abs()]
        kernel = (kernel / kernel.sum(-1, keepdim=True)).view(-1, *(1,) * (image.ndim - 3), edge, edge)
        image = image @ kernel.mT if axis == -1 else kernel @ image
    return image
