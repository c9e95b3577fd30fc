"""Simulated STM images of H:Si(100) in six tip states; open it for what is drawn and how an image is put together.

Axis -2 is the line (slow, in the order of acquisition), axis -1 the pixel (fast). Heights are in units of the sharp
surface's corrugation (sd 1), lengths in nm. An image is one matrix product, lines x columns times columns x pixels:
along a line every harmonic of the lattice, every adsorbate under every apex, relief, tilt and offset is a product of
a factor of the line and a factor of the pixel. Streaks, steps and white noise are added to it.

A tip change is a second surface and tip from the switch line on. A blunt tip is normalised with the sharp surface, so
it shows a weaker corrugation; that and the tails of neighbouring cells, which add up here, differ from a filter on
images of single cells.
"""

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from assay.studies.scanlines import artefacts
from assay.studies.scanlines.draw import Draw
from assay.studies.scanlines.surface import COUNTS, GENERIC, STATES, TIP_CHANGE, coefficients, harmonics

ADSORBATES = 5  # at most, of a Poisson distribution with mean 1.5: more are drawn in 0.4 % of images
APEXES = 3
PARTS = 2  # before and after the switch line
RELIEF = 6  # products of waves
BLUNT, MULTIPLE, MILD = range(3)


@dataclass(frozen=True)
class Scene:
    """What B scans show, before noise: class (B,), surfaces, tip and frame. Every field has B rows.

    label: 0 to 5. switch: first line of the second part, N without one. states (B, 2): surface of each part.
    series (B, 2, H): Fourier coefficients. weights (B, 2, 3): height of each apex in each part; shift (B, 3, 2): of an
    apex in x and y; blur (B, 3): its Gaussian radius. field: edge of the image. angle: of the rows, rad.
    """

    label: Tensor
    switch: Tensor
    states: Tensor
    series: Tensor
    weights: Tensor
    shift: Tensor
    blur: Tensor
    field: Tensor
    angle: Tensor
    origin: Tensor
    drift: Tensor
    stretch: Tensor
    jump: Tensor
    relief: Tensor
    extra_streaks: Tensor
    spots: Tensor

    def first_labels(self, lines: int) -> Tensor:
        """Class (B,) of the surface before the switch; without one among the `lines`, that of the scan."""
        return torch.where(self.switch < lines, self.states[:, 0], self.label)

    def repeated(self, times: int) -> "Scene":
        """Every row `times` times, one after the other."""
        columns = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return Scene(**{name: column.repeat_interleave(times, 0) for name, column in columns.items()})


def draw_scene(count: int, lines: int, points: int, draw: Draw) -> Scene:
    """`count` scans of independent surfaces and tips."""
    label = draw.choice(COUNTS, count)
    changed, generic = label == TIP_CHANGE, label == GENERIC
    first = torch.where(label < len(STATES), label, draw.choice(COUNTS[: len(STATES)], count))
    other = (first + draw.whole(1, len(STATES) - 1, count)) % len(STATES)
    second = torch.where(changed & ~draw.chance(0.3, count), other, first)
    before, after = coefficients(torch.cat([first, second]), draw, harmonics(draw.rng.device)).chunk(PARTS)
    switch = (draw.uniform(0.2, 0.8, count) * lines).long()
    field = draw.uniform(4.0, 13.0, count)
    kind = torch.where(generic, draw.whole(BLUNT, MILD, count), -1)
    weights, shift, blur = _tips(label, kind, field / points, draw)
    relief = draw.uniform(4.0, 9.0, count) * (kind == MILD)
    extra = torch.where(changed, draw.whole(0, 7, count), torch.where(generic, draw.whole(0, 9, count), 0))
    return Scene(
        label=label,
        switch=torch.where(changed, switch, lines),
        states=torch.stack([first, second], 1),
        series=torch.stack([before, torch.where(changed[:, None], after, before)], 1),
        weights=weights,
        shift=shift,
        blur=blur,
        field=field,
        angle=draw.uniform(0.0, math.pi, count),
        origin=draw.uniform(-2.0, 2.0, count, 2),
        drift=draw.normal(0.0012, count, 2),
        stretch=1 + draw.normal(0.02, count),
        jump=draw.normal(0.6, count) * changed,
        relief=relief,
        extra_streaks=extra,
        spots=_spots(count, field, draw),
    )


def _tips(label: Tensor, kind: Tensor, pixel: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (B, 2, 3), shifts (B, 3, 2) and blur (B, 3) of the apexes."""
    count, device = len(label), label.device
    changed, multiple = label == TIP_CHANGE, kind == MULTIPLE
    ghost = draw.chance(0.25, count) & (label < len(STATES))
    one, two = draw.uniform(0.4, 0.9, count), draw.uniform(0.4, 0.9, count) * draw.chance(0.5, count)
    weights = torch.zeros(count, PARTS, APEXES, device=device)
    weights[:, :, 0] = 1.0
    weights[:, :, 1] = torch.where(multiple, one, draw.uniform(0.05, 0.2, count) * ghost)[:, None]
    weights[:, :, 2] = torch.where(multiple, two, 0.0)[:, None]
    after = torch.zeros(count, APEXES, device=device)
    after[:, 1] = draw.uniform(0.5, 1.2, count)
    weights[:, 1] = torch.where(changed[:, None], after, weights[:, 1])
    shift = draw.normal(0.7, count, APEXES, 2)
    shift[:, 0] = 0.0
    shift[:, 1] = torch.where(changed[:, None], draw.normal(0.35, count, 2), shift[:, 1])
    blur = torch.zeros(count, APEXES, device=device)
    blunt = torch.where(kind == BLUNT, draw.uniform(0.22, 0.5, count), 0.0)
    blur[:, 0] = torch.where(kind == MILD, draw.uniform(0.1, 0.25, count), blunt)
    blurred = draw.uniform(1.0, 3.0, count) * pixel * draw.chance(0.4, count)
    blur[:, 1] = torch.where(changed, blurred, 0.0)
    return weights, shift, blur


def _spots(count: int, field: Tensor, draw: Draw) -> Tensor:
    """Dangling bonds and vacancies (B, 5, 4): x, y, radius, height; a height of 0 is none."""
    present = torch.arange(ADSORBATES, device=field.device) < draw.poisson(torch.full_like(field, 1.5))[:, None]
    place = draw.uniform(0.0, 1.0, count, ADSORBATES, 2) * field[:, None, None]
    sign = torch.where(draw.chance(0.5, count, ADSORBATES), 1.0, -1.0)
    # heights of a bare surface are 1 at most, those here are in units of a corrugation of about 0.3
    height = sign * draw.uniform(0.4, 1.4, count, ADSORBATES) / 0.3 * present
    radius = draw.uniform(0.18, 0.35, count, ADSORBATES)
    return torch.cat([place, radius[:, :, None], height[:, :, None]], 2)


def scan(scene: Scene, lines: int, points: int, draw: Draw) -> Tensor:
    """Images (B, lines, points) of a scene, each with noise of its own."""
    count, device = len(scene.label), scene.label.device
    x = torch.arange(points, device=device) / points * scene.field[:, None]
    steps = torch.arange(lines, device=device)
    y = steps / lines * (scene.field * scene.stretch)[:, None]
    late = (steps >= scene.switch[:, None]).float()
    offset = artefacts.line_offsets(count, lines, draw) + late * scene.jump[:, None]
    tilt = draw.normal(0.25, count, 1, 1)
    factors = [
        _lattice(scene, x, y, late, steps),
        _adsorbates(scene, x, y, late),
        artefacts.relief(scene.relief, lines, points, RELIEF, draw),
        (offset[:, :, None], torch.ones(count, 1, points, device=device)),
        (tilt.expand(count, lines, 1), torch.linspace(-1, 1, points, device=device).expand(count, 1, points)),
    ]
    image = torch.bmm(torch.cat([line for line, _ in factors], 2), torch.cat([pixel for _, pixel in factors], 1))
    artefacts.add_steps(image, draw)
    artefacts.add_streaks(image, scene.extra_streaks, draw)
    noise = torch.empty_like(image).normal_(generator=draw.rng)
    return image.addcmul_(noise, draw.uniform(0.15, 0.7, count, 1, 1))


def _of_line(parts: Tensor, late: Tensor) -> Tensor:
    """Values (B, N, C) at each line, from those of both parts (B, 2, C); late (B, N) is 1 in the second."""
    return torch.addcmul(parts[:, :1], late[:, :, None], parts[:, 1:] - parts[:, :1])


def _lattice(scene: Scene, x: Tensor, y: Tensor, late: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Factors (B, N, 2 H) and (B, 2 H, P) whose product is the lattice under the tip."""
    waves = harmonics(x.device)
    cos, sin = scene.angle.cos()[:, None], scene.angle.sin()[:, None]
    kx, ky = waves.u * cos - waves.v * sin, waves.u * sin + waves.v * cos
    phase = -(kx[:, None] * scene.shift[:, :, :1] + ky[:, None] * scene.shift[:, :, 1:])
    decay = -0.5 * (kx**2 + ky**2)[:, None] * scene.blur[:, :, None] ** 2
    tip = scene.weights.to(torch.complex64) @ torch.polar(decay.exp(), phase)
    series = 2 * scene.series * tip
    drifted = scene.origin[:, None] + scene.drift[:, None] * steps[None, :, None]
    turn = kx[:, None] * drifted[:, :, :1] + ky[:, None] * (y[:, :, None] + drifted[:, :, 1:])
    re, im = _of_line(series.real, late), _of_line(series.imag, late)
    c, s = turn.cos(), turn.sin()
    along = kx[:, :, None] * x[:, None]
    left = torch.cat([re * c - im * s, -(re * s + im * c)], 2)
    return left, torch.cat([along.cos(), along.sin()], 1)


def _adsorbates(scene: Scene, x: Tensor, y: Tensor, late: Tensor) -> tuple[Tensor, Tensor]:
    """Factors (B, N, 15) and (B, 15, P): every spot as every apex shows it."""
    px, py, radius, height = (column[:, :, None] for column in scene.spots.unbind(2))
    variance = (radius**2 + scene.blur[:, None] ** 2).flatten(1)
    kept = (radius**2 / (radius**2 + scene.blur[:, None] ** 2) * height).flatten(1)
    cx, cy = ((place + scene.shift[:, None, :, axis]).flatten(1) for axis, place in enumerate((px, py)))
    weights = scene.weights[:, :, None].expand(-1, -1, ADSORBATES, -1).flatten(2) * kept[:, None]
    across = (-0.5 * (y[:, :, None] - cy[:, None]) ** 2 / variance[:, None]).exp()
    along = (-0.5 * (x[:, None] - cx[:, :, None]) ** 2 / variance[:, :, None]).exp()
    return across * _of_line(weights, late), along
