"""Simulated brain slices with known CBF and ATT, a whole batch at a time; open it to change the anatomy.

A phantom is a square of tissue without air: Voronoi regions of grey matter, white matter and CSF, each class
with one CBF (ml/100 g/min) and one ATT (ms), voxel noise, then perhaps tumours or strokes, then
partial-volume blur. Lengths below are in pixels of a 64 x 64 phantom and scale with the edge of the phantom.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from assay.errors import ConfigError

Interval = tuple[float, float]

EDGE = 64  # pixels; the edge that the lengths below refer to
SEEDS = (15, 29)  # Voronoi seeds per phantom, both ends included
SEED_MARGIN = 5
LESION_MARGIN = 15
LESION_RADIUS = (5, 14)  # both ends included
CORE_MARGIN = (4, 5)  # of tumour and stroke: how much smaller the core is
CORE_RADIUS = 3  # the smallest
TISSUE_SHARES = (0.5, 0.4, 0.1)  # grey matter, white matter, CSF
TUMOUR, STROKE = 0.35, 0.35  # share of phantoms; the rest is healthy
LESIONS = 2  # at most, in one phantom
TISSUES = 3
CBF_SD, ATT_SD = 3.0, 50.0  # voxel noise in healthy tissue
CBF_LIMITS, ATT_LIMITS = (0.0, 200.0), (100.0, 5000.0)
BLUR_BLOCK = 16  # pixels blurred at once along an axis
CPU_BLOCK, GPU_BLOCK = 2**18, 2**24  # pixels worked on at once: what a cache, or a GPU, can hold (changes the draws)

RANGES: dict[str, tuple[tuple[Interval, Interval], ...]] = {
    "published": (
        ((50.0, 70.0), (1000.0, 1600.0)),  # grey matter
        ((18.0, 28.0), (1200.0, 1800.0)),  # white matter
        ((0.0, 5.0), (100.0, 500.0)),  # CSF
        ((90.0, 150.0), (500.0, 1000.0)),  # tumour rim
        ((5.0, 20.0), (1800.0, 2500.0)),  # tumour core
        ((15.0, 35.0), (1800.0, 2500.0)),  # penumbra
        ((2.0, 10.0), (2500.0, 3000.0)),  # stroke core
    ),
    "wide": (
        ((30.0, 90.0), (800.0, 2200.0)),
        ((10.0, 35.0), (1000.0, 2500.0)),
        ((0.0, 5.0), (100.0, 500.0)),
        ((80.0, 150.0), (500.0, 1000.0)),
        ((2.0, 20.0), (1800.0, 3000.0)),
        ((10.0, 40.0), (1800.0, 3000.0)),
        ((0.0, 10.0), (2500.0, 4000.0)),
    ),
}
"""Uniform ranges of (CBF, ATT) of the tissues 0 to 2, then of the lesion labels 1 to 4."""


@dataclass(frozen=True, kw_only=True)
class PhantomBatch:
    """N phantoms of H x W pixels.

    cbf, att: (N, H, W) float32, ml/100 g/min and ms. tissue: (N, H, W) uint8, 0 grey matter, 1 white matter,
    2 CSF, as if there were no lesion. lesion: (N, H, W) uint8, 0 none, 1 tumour rim, 2 tumour core,
    3 penumbra, 4 stroke core. boundary: (N, H, W) bool, pixels beside, above or below one of another
    compartment: another tissue, lesion, or zone of a lesion (the tissue under a lesion does not count).
    """

    cbf: Tensor
    att: Tensor
    tissue: Tensor
    lesion: Tensor
    boundary: Tensor

    def __len__(self) -> int:
        return len(self.cbf)


def simulate_phantoms(
    n: int,
    *,
    size: int = EDGE,
    ranges: Literal["published", "wide"] = "published",
    lesions: bool = True,
    blur_sigma: float = 1.0,
    generator: torch.Generator,
) -> PhantomBatch:
    """Draw `n` phantoms of `size` x `size` pixels on the generator's device.

    ranges: tissue values of the published study, or wider ones. lesions: whether 35 % of the phantoms get one
    or two tumours and 35 % one or two strokes. blur_sigma: partial-volume blur in pixels, 0 for none.
    Raises ConfigError for no phantoms, a size below 16, a negative blur, or unknown ranges.
    """
    _check(n, size, ranges, blur_sigma)
    pixels = CPU_BLOCK if generator.device.type == "cpu" else GPU_BLOCK
    block = max(pixels // size**2, 1)
    maps = torch.empty(2, n, size, size, device=generator.device)
    tissue, lesion, boundary = torch.empty(3, n, size, size, dtype=torch.uint8, device=generator.device)
    batch = PhantomBatch(cbf=maps[0], att=maps[1], tissue=tissue, lesion=lesion, boundary=boundary.view(torch.bool))
    for start in range(0, n, block):
        part = PhantomBatch(**{name: values[start : start + block] for name, values in vars(batch).items()})
        _draw(part, ranges, lesions, blur_sigma, generator)
    return batch


def gaussian_blur(maps: Tensor, sigma: float) -> Tensor:
    """Blur maps (..., H, W) in the plane with standard deviation `sigma` in pixels; 0 blurs nothing.

    The kernel ends at 4 sigma and the image is mirrored about its outer edge (d c b a | a b c d), the
    conventions of `scipy.ndimage.gaussian_filter`. Not differentiable.
    """
    if sigma == 0:
        return maps
    rows = maps.movedim(-2, 0)
    blurred = _blur_axis(rows.reshape(len(rows), -1), sigma).view(rows.shape)
    return _blur_axis(blurred.view(-1, rows.shape[-1]).T, sigma).T.view(rows.shape).movedim(0, -2)


def _blur_axis(lines: Tensor, sigma: float) -> Tensor:
    """Blur (edge, lines) along the first axis, a few outputs at a time from the pixels that they depend on."""
    edge, reach = len(lines), _reach(sigma)
    matrix, blurred = _blur_matrix(edge, sigma).to(lines), torch.empty_like(lines)
    for start in range(0, edge, BLUR_BLOCK):
        out, near = slice(start, start + BLUR_BLOCK), slice(max(start - reach, 0), start + BLUR_BLOCK + reach)
        torch.mm(matrix[out, near], lines[near], out=blurred[out])
    return blurred


def _draw(batch: PhantomBatch, ranges: str, lesions: bool, blur_sigma: float, generator: torch.Generator) -> None:
    """Draw the phantoms of one block into `batch`.

    code (n, H, W) uint8 is the tissue 0 to 2, or 3 + 2 * lesion, plus 1 in its core. rim (n, 1) uint8 is the label of
    the rims of the lesions of each phantom.
    """
    _voronoi(batch.tissue, generator)
    code, rim = batch.tissue, torch.ones(len(batch), 1, dtype=torch.uint8, device=generator.device)
    if lesions:
        fate = _rand((len(batch), 1), generator)
        stroke = fate >= TUMOUR
        many = _rand((len(batch), 1), generator) < 0.5
        present = torch.cat((fate < TUMOUR + STROKE, (fate < TUMOUR + STROKE) & many), 1)
        code, rim = _add_lesions(code, present, stroke, generator), torch.where(stroke, 3, 1).to(torch.uint8)
    healthy = (TISSUES - code.view(torch.int8)).clamp_(0, 1)  # signed, for it is negative in cores
    torch.mul(1 - healthy.view(torch.uint8), rim.unsqueeze(-1) + 1 - (code & 1), out=batch.lesion)
    _mark_boundary(code, batch.boundary)
    maps = _paint(code.flatten(1), healthy.flatten(1), rim, ranges, generator).view(2, *code.shape)
    cbf, att = gaussian_blur(maps, blur_sigma)
    torch.clamp(cbf, *CBF_LIMITS, out=batch.cbf)
    torch.clamp(att, *ATT_LIMITS, out=batch.att)


def _voronoi(out: Tensor, generator: torch.Generator) -> None:
    """Tissue (n, H, W) of the nearest seed; of several at one distance, the first tissue in the list.

    Squared distance and tissue share one integer, so that a running minimum over the seeds finds both.
    """
    n, size, _ = out.shape
    most, margin = SEEDS[1], _scaled(SEED_MARGIN, size)
    dtype = torch.int16 if 8 * size**2 <= torch.iinfo(torch.int16).max + 1 else torch.int32
    used = _randint(SEEDS[0], most + 1, (1, n), generator) > torch.arange(most, device=out.device).unsqueeze(1)
    position = _randint(margin, size - margin, (2, most, n), generator).to(dtype)
    share = _rand((most, n), generator)
    tissue = (share >= TISSUE_SHARES[0]).to(dtype) + (share >= TISSUE_SHARES[0] + TISSUE_SHARES[1])
    position = torch.where(used, position, position[:, :1])  # an unused seed repeats the first
    offset = 2 * (position.unsqueeze(-1) - torch.arange(size, dtype=dtype, device=out.device))
    rows, columns = offset * offset  # each (seeds, n, size)
    rows += torch.where(used, tissue, tissue[:1]).unsqueeze(-1)
    nearest = rows[0, :, :, None] + columns[0, :, None, :]
    candidate = torch.empty_like(nearest)
    for row, column in zip(rows[1:], columns[1:], strict=True):
        torch.add(row[:, :, None], column[:, None, :], out=candidate)
        torch.minimum(nearest, candidate, out=nearest)
    out.copy_(nearest.bitwise_and_(3))


def _add_lesions(tissue: Tensor, present: Tensor, stroke: Tensor, generator: torch.Generator) -> Tensor:
    """The codes (n, H, W) after painting the lesions that are `present` (n, 2) over the tissue.

    The highest code wins a pixel: cores cover rims, and the second lesion the first.
    """
    n, size, _ = tissue.shape
    margin = _scaled(LESION_MARGIN, size)
    centre = _randint(margin, size - margin, (n, LESIONS, 2), generator)
    smallest, largest = (_scaled(radius, size) for radius in LESION_RADIUS)
    radius = _randint(smallest, largest + 1, (n, LESIONS), generator)
    shrink = torch.where(stroke, _scaled(CORE_MARGIN[1], size), _scaled(CORE_MARGIN[0], size))
    core = (radius - shrink).clamp_min(_scaled(CORE_RADIUS, size))
    phase = torch.pi * _rand((n, LESIONS, 2, 2), generator)
    image, lesion = which = present.nonzero(as_tuple=True)
    coefficients = _outline_coefficients(torch.stack((radius, core), -1)[which], phase[which])
    reach = int(1.45 * largest) + 1
    distance, harmonics, offset = _patch(reach, size + 2 * reach, tissue.device)
    inside = (distance <= coefficients @ harmonics).view(torch.uint8)  # (lesions, 2, patch)
    code = (TISSUES + 2 * lesion).to(torch.uint8).unsqueeze(1)
    painted = torch.maximum(inside[:, 0] * code, inside[:, 1] * (code + 1))
    padded = torch.nn.functional.pad(tissue, (reach,) * 4)
    row, column = (centre[which] + reach).unbind(-1)
    pixel = ((image * padded.shape[1] + row) * padded.shape[2] + column).unsqueeze(1) + offset
    padded.view(-1).scatter_reduce_(0, pixel.flatten(), painted.flatten(), "amax")
    return padded[:, reach:-reach, reach:-reach].contiguous()


def _outline_coefficients(radius: Tensor, phase: Tensor) -> Tensor:
    """Coefficients (..., 5) of r * (1 + 0.3 sin(3 theta + p) + 0.15 sin(5 theta + q)), for `_patch`."""
    first, second = phase.unbind(-1)
    waves = (first.cos() * 0.3, first.sin() * 0.3, second.cos() * 0.15, second.sin() * 0.15)
    return radius.unsqueeze(-1) * torch.stack((torch.ones_like(first), *waves), -1)


@lru_cache(maxsize=8)
def _patch(reach: int, stride: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Distance, angular harmonics (5, pixels) and flat offset of the pixels within `reach` of a lesion's centre."""
    axis = torch.arange(-reach, reach + 1, device=device)
    y, x = (axis.view(-1, 1), axis.view(1, -1))
    angle = torch.atan2(y, x).flatten()
    waves = [(3 * angle).sin(), (3 * angle).cos(), (5 * angle).sin(), (5 * angle).cos()]
    harmonics = torch.stack([torch.ones_like(angle), *waves])
    distance = (x**2 + y**2).flatten().sqrt()
    near = distance <= reach
    return distance[near], harmonics[:, near], (y * stride + x).flatten()[near]


def _paint(code: Tensor, healthy: Tensor, rim: Tensor, ranges: str, generator: torch.Generator) -> Tensor:
    """CBF and ATT (2, n, pixels): the values of every compartment, and voxel noise where tissue is healthy."""
    n, device = len(code), code.device
    codes = torch.arange(TISSUES + 2 * LESIONS, device=device)
    rows = torch.where(codes < TISSUES, codes, TISSUES - 1 + rim + (codes - TISSUES) % 2)  # (n, 7), of the table
    low, high = torch.tensor(RANGES[ranges], device=device).unbind(-1)
    values = low[rows] + (high - low)[rows] * _rand((n, len(codes), 2), generator)
    noise = torch.randn((2, *code.shape), generator=generator, device=device).mul_(healthy)
    sd = torch.tensor((CBF_SD, ATT_SD), device=device).view(2, 1, 1)
    entry = (code + len(codes) * torch.arange(n, dtype=torch.int32, device=device).unsqueeze(1)).flatten()
    noise.mul_(sd)
    for k, each in enumerate(noise.view(2, -1)):
        each.add_(values[..., k].flatten().index_select(0, entry))
    return noise


def _mark_boundary(code: Tensor, out: Tensor) -> None:
    """Pixels (n, H, W) with another code above, below, left or right."""
    out.zero_()
    for axis in (1, 2):
        length = code.shape[axis] - 1
        change = code.narrow(axis, 1, length) != code.narrow(axis, 0, length)
        out.narrow(axis, 1, length).logical_or_(change)
        out.narrow(axis, 0, length).logical_or_(change)


@lru_cache(maxsize=8)
def _blur_matrix(edge: int, sigma: float) -> Tensor:
    """The blur along one axis as a matrix (edge, edge)."""
    offset = torch.arange(-_reach(sigma), _reach(sigma) + 1)
    weight = torch.exp(-0.5 * (offset.double() / sigma) ** 2)
    source = (torch.arange(edge).view(-1, 1) + offset) % (2 * edge)
    source = torch.minimum(source, 2 * edge - 1 - source)  # mirrored about the outer edge
    return torch.zeros(edge, edge, dtype=torch.float64).scatter_add_(
        1, source, (weight / weight.sum()).expand(edge, -1)
    )


def _reach(sigma: float) -> int:
    """Pixels to either side that a blur takes in."""
    return int(4.0 * sigma + 0.5)


def _scaled(pixels: int, size: int) -> int:
    return max(round(pixels * size / EDGE), 1)


def _rand(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _randint(low: int, high: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randint(low, high, shape, generator=generator, device=generator.device)


def _check(n: int, size: int, ranges: str, blur_sigma: float) -> None:
    if n < 1:
        raise ConfigError(f"phantoms: got {n}, allowed are 1 or more; ask for at least one")
    if size < 16:
        raise ConfigError(f"size: got {size}, allowed are 16 pixels or more; the lesions need room")
    if blur_sigma < 0:
        raise ConfigError(f"blur_sigma: got {blur_sigma:g}, allowed are 0 pixels or more; use 0 for no blur")
    if ranges not in RANGES:
        raise ConfigError(f"ranges: got {ranges!r}, allowed are {', '.join(RANGES)}; choose one of these")
