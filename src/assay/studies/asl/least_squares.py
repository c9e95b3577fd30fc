"""The classical baseline, CBF and ATT of each voxel by least squares; open it for fits and their errors.

CBF enters linearly, so for every ATT the best CBF is known in closed form and only ATT is searched (variable
projection, Golub and Pereyra 1973, doi 10.1137/0710036). Between two breakpoints of the model (ATT = PLD and
ATT = PLD + label duration) PCASL is affine in exp(-ATT/T1) and VSASL in ATT, so a few inner products per
segment describe the whole objective and the search never touches the signals again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.optimize
import scipy.stats
import torch
from torch import Tensor

from assay.errors import DataError
from assay.studies.asl.phantom import gaussian_blur
from assay.studies.asl.physics import Physics, joint_signal

Bounds = tuple[float, float]

CBF_BOUNDS: Bounds = (0.0, 200.0)
ATT_BOUNDS: Bounds = (100.0, 6000.0)
GRID = 12  # points per segment, both ends included
CANDIDATES = 2  # segments that are searched further
BISECTIONS = 24  # of a bracket of two grid steps, about 90 ms: to 1e-5 ms
SCALE = 1e-3  # dM/M0, the size of a signal
CPU_CHUNK, GPU_CHUNK = 2**11, 2**17  # voxels fitted at once: what a CPU cache, or a GPU, can hold


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Least-squares estimates of V voxels, float64 (V,), or maps (B, H, W).

    cbf in ml/100 g/min, att in ms, sse: sum of the squared residuals. Where no positive CBF fits better than
    the lower bound 0, ATT is not determined and the lower bound of ATT is returned.
    """

    cbf: Tensor
    att: Tensor
    sse: Tensor


@dataclass(frozen=True, kw_only=True)
class _Segments:
    """The unit-CBF curve of M stretches of ATT: k = a + b * exp(-ATT/T1) + c * ATT, as basis (M, 3, C).

    gram: (M, 3, 3) inner products of the basis. grid: (M, G) values of ATT. t1: ms.
    """

    basis: Tensor
    gram: Tensor
    grid: Tensor
    t1: float


def variable_projection(
    signal: Tensor,
    plds: Sequence[float],
    physics: Physics,
    *,
    cbf_bounds: Bounds = CBF_BOUNDS,
    att_bounds: Bounds = ATT_BOUNDS,
) -> Fit:
    """The global least-squares fit of V voxels with shared physics.

    signal: (V, 2 * n_plds) dM/M0, PCASL then VSASL. Works in float64 on the signal's device. Every segment
    of ATT is scanned, and the best two are searched to 1e-5 ms. Raises DataError if the channels do not match
    the delays or the physics is not shared.
    """
    _check(signal.shape[1], plds)
    if not physics.is_shared:
        raise DataError("physics: got one set per image, allowed is one for all voxels; use fit_images")
    segments = _segments(plds, physics, att_bounds, signal.device)
    chunk = CPU_CHUNK if signal.device.type == "cpu" else GPU_CHUNK
    starts = range(0, len(signal), chunk)
    fits = [_fit(signal[start : start + chunk].double(), segments, cbf_bounds) for start in starts]
    cbf, att = torch.cat([fit[0] for fit in fits]), torch.cat([fit[1] for fit in fits])
    residual = signal - cbf.unsqueeze(1) * _unit_curve(att, plds, physics)
    return Fit(cbf=cbf, att=att, sse=residual.square().sum(1))


def fit_images(
    signal: Tensor,
    plds: Sequence[float],
    physics: Physics,
    *,
    cbf_bounds: Bounds = CBF_BOUNDS,
    att_bounds: Bounds = ATT_BOUNDS,
) -> Fit:
    """`variable_projection` of each voxel of signal (B, 2 * n_plds, H, W), with the physics of its image."""
    batch, channels, height, width = signal.shape
    voxels = signal.movedim(1, -1).reshape(batch, -1, channels)
    bounds = {"cbf_bounds": cbf_bounds, "att_bounds": att_bounds}
    if physics.is_shared:
        fits = [variable_projection(voxels.flatten(0, 1), plds, physics, **bounds)]
    else:
        fits = [variable_projection(image, plds, physics.image(index), **bounds) for index, image in enumerate(voxels)]
    maps = {name: torch.cat([getattr(fit, name) for fit in fits]) for name in ("cbf", "att", "sse")}
    return Fit(**{name: values.view(batch, height, width) for name, values in maps.items()})


def scipy_fit(
    signal: np.ndarray,
    plds: Sequence[float],
    physics: Physics,
    *,
    cbf_bounds: Bounds = CBF_BOUNDS,
    att_bounds: Bounds = ATT_BOUNDS,
) -> tuple[float, float]:
    """The reference fit of one voxel, signal (2 * n_plds,): returns (CBF, ATT).

    `scipy.optimize.least_squares` (trust region, default tolerances), started from the best point of a grid
    of 15 CBF from 1 to 100 and 22 ATT from 100 to 5500. Parameters are in ml/100 g/min and ms with x_scale
    (10, 1000), and residuals are relative to the voxel's largest signal: the default tolerances suppose
    numbers near 1. Raises DataError if the channels do not match the delays.
    """
    _check(len(signal), plds)
    curve = _numpy_curve(np.asarray(plds, dtype=np.float64), physics)
    cbf, att = (axis.ravel() for axis in np.meshgrid(np.linspace(1, 100, 15), np.linspace(100, 5500, 22)))
    inside = (cbf >= cbf_bounds[0]) & (cbf <= cbf_bounds[1]) & (att >= att_bounds[0]) & (att <= att_bounds[1])
    cbf, att = cbf[inside], att[inside]
    scale = float(np.abs(signal).max()) or 1.0
    errors = np.square(cbf[:, None] * curve(att[:, None]) - signal).sum(1)
    start = int(errors.argmin())
    result = scipy.optimize.least_squares(
        lambda x: (x[0] * curve(x[1]) - signal) / scale,
        (cbf[start], att[start]),
        bounds=tuple(zip(cbf_bounds, att_bounds, strict=True)),
        x_scale=(10.0, 1000.0),
    )
    return float(result.x[0]), float(result.x[1])


def smooth_signals(signal: Tensor, sigma: float = 2.0) -> Tensor:
    """Blur each channel of signal (B, C, H, W), sigma in pixels: the fair rival of spatial models."""
    return gaussian_blur(signal, sigma)


def _unit_curve(att: Tensor, plds: Sequence[float], physics: Physics) -> Tensor:
    """Signals (V, C) of CBF 1 at att (V,)."""
    att = att.view(1, -1, 1)
    return joint_signal(torch.ones_like(att), att, plds, physics)[0, :, :, 0].T


def _segments(plds: Sequence[float], physics: Physics, att_bounds: Bounds, device: torch.device) -> _Segments:
    """Two evaluations of the model at the ends of a segment give its coefficients exactly."""
    low, high = att_bounds
    tau, t1 = float(physics.label_duration), float(physics.t1_artery)
    breakpoints = {edge for pld in plds for edge in (pld, pld + tau) if low < edge < high}
    edges = torch.tensor(sorted({low, high, *breakpoints}), dtype=torch.float64, device=device)
    start, stop = edges[:-1], edges[1:]
    first, last = (_unit_curve(end, plds, physics) for end in (start, stop))  # (M, C)
    u = torch.exp(-edges / t1)
    pcasl = torch.arange(first.shape[1], device=device) < len(plds)
    slope_u = (last - first) / (u[1:] - u[:-1]).unsqueeze(1) * pcasl
    slope_att = (last - first) / (stop - start).unsqueeze(1) * ~pcasl
    constant = first - slope_u * u[:-1].unsqueeze(1) - slope_att * start.unsqueeze(1)
    basis = torch.stack((constant, slope_u, slope_att), 1)
    steps = torch.linspace(0, 1, GRID, dtype=torch.float64, device=device)
    grid = start.unsqueeze(1) + (stop - start).unsqueeze(1) * steps
    return _Segments(basis=basis, gram=basis @ basis.mT, grid=grid, t1=t1)


def _fit(signal: Tensor, segments: _Segments, cbf_bounds: Bounds) -> tuple[Tensor, Tensor]:
    """CBF and ATT (V,) of signal (V, C)."""
    count, points = segments.grid.shape
    grid = segments.grid
    atoms = torch.stack((torch.ones_like(grid), torch.exp(-grid / segments.t1), grid), -1)
    energy = ((atoms @ segments.gram) * atoms).sum(-1).flatten()
    curves = (atoms @ segments.basis).flatten(0, 1)  # (M * G, C)
    # Single precision is enough to find the segment; the unit of CBF keeps the squares within its range.
    projection = (signal / SCALE).float() @ (curves / SCALE).float().T
    objective = _objective(projection, (energy / SCALE**2).float(), cbf_bounds).view(-1, count, points)
    lowest, point = objective.min(-1)
    segment = lowest.topk(min(CANDIDATES, count), largest=False).indices  # (V, K)
    point = point.gather(1, segment)
    lower = grid[segment, (point - 1).clamp_min(0)]
    upper = grid[segment, (point + 1).clamp_max(points - 1)]
    return _bisect(signal, segments, segment, (lower, upper), cbf_bounds)


def _objective(projection: Tensor, energy: Tensor, cbf_bounds: Bounds) -> Tensor:
    """Sum of squares less that of the signal, at the best CBF."""
    cbf = _best_cbf(projection, energy, cbf_bounds)
    return torch.addcmul(projection * -2, cbf, energy).mul_(cbf)


def _best_cbf(projection: Tensor, energy: Tensor, cbf_bounds: Bounds) -> Tensor:
    return (projection / energy).clamp_(*cbf_bounds)


def _bisect(
    signal: Tensor, segments: _Segments, segment: Tensor, bracket: tuple[Tensor, Tensor], cbf_bounds: Bounds
) -> tuple[Tensor, Tensor]:
    """Halve each bracket (V, K) towards the side where the objective falls; keep the best candidate.

    The objective's slope in ATT at the best CBF is c * (c * energy' - 2 * projection').
    """
    inner = (signal @ segments.basis.flatten(0, 1).T).view(len(signal), -1, 3)
    p = inner.gather(1, segment.unsqueeze(-1).expand(-1, -1, 3)).unbind(-1)
    g = segments.gram[segment]
    q = (g[..., 0, 0], g[..., 1, 1], g[..., 2, 2], 2 * g[..., 0, 1], 2 * g[..., 0, 2], 2 * g[..., 1, 2])
    lower, upper = bracket
    for _ in range(BISECTIONS):
        att = (lower + upper) / 2
        u = torch.exp(-att / segments.t1)
        projection, energy = _profile(p, q, u, att)
        cbf = _best_cbf(projection, energy, cbf_bounds)
        du = u / -segments.t1
        d_projection = p[1] * du + p[2]
        d_energy = (2 * q[1] * u + q[3] + q[5] * att) * du + 2 * q[2] * att + q[4] + q[5] * u
        rising = cbf * d_energy - 2 * d_projection >= 0
        lower, upper = torch.where(rising, lower, att), torch.where(rising, att, upper)
    att = (lower + upper) / 2
    projection, energy = _profile(p, q, torch.exp(-att / segments.t1), att)
    best = _objective(projection, energy, cbf_bounds).argmin(1, keepdim=True)
    cbf = _best_cbf(projection, energy, cbf_bounds).gather(1, best).squeeze(1)
    att = att.gather(1, best).squeeze(1)
    return cbf, att.masked_fill(cbf == 0, float(segments.grid[0, 0]))


def _profile(p: Sequence[Tensor], q: Sequence[Tensor], u: Tensor, att: Tensor) -> tuple[Tensor, Tensor]:
    """Projection on, and energy of, a + b * u + c * att, from the inner products of signal and basis."""
    projection = p[0] + p[1] * u + p[2] * att
    energy = q[0] + q[1] * u * u + q[2] * att * att + q[3] * u + q[4] * att + q[5] * u * att
    return projection, energy


def _numpy_curve(plds: np.ndarray, physics: Physics) -> Callable[[Any], np.ndarray]:
    """The unit-CBF signal (..., 2 * n_plds) as a NumPy function of ATT (..., 1), case by case.

    Kept apart from the torch model on purpose: the reference must be fast for one voxel, and independent.
    """
    p = physics.map(float)
    t1, tau = p.t1_artery, p.label_duration
    common = 2 / 6000 * p.t2_factor / p.partition
    decay = np.exp(-plds / t1)
    pcasl = common * p.alpha_pcasl * p.alpha_bs**4 * t1 / 1000
    vsasl = common * p.alpha_vsasl * p.alpha_bs**3 * p.recovery / 1000 * decay
    arrived = decay * (1 - np.exp(-tau / t1))
    end = np.exp(-(tau + plds) / t1)

    def curve(att: Any) -> np.ndarray:
        arriving = np.where(plds < att - tau, 0.0, np.exp(-att / t1) - end)
        return np.concatenate((pcasl * np.where(plds < att, arriving, arrived), vsasl * np.minimum(plds, att)), axis=-1)

    return curve


def _check(channels: int, plds: Sequence[float]) -> None:
    if channels != 2 * len(plds):
        raise DataError(
            f"signal: got {channels} channels for {len(plds)} delays, allowed are {2 * len(plds)}; "
            "give PCASL then VSASL at every delay"
        )
