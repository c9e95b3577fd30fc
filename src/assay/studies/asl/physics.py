"""The forward model of the ASL study, maps to PCASL and VSASL signals; open it for an equation or a unit.

Signals are the dimensionless difference dM/M0 (control minus label over the equilibrium magnetisation of
tissue), about 0.003 to 0.01 in grey matter. CBF is in ml/100 g/min, every time in ms.

PCASL is the one-compartment general kinetic model of Buxton et al. 1998 (doi 10.1002/mrm.1910400308) with the
label decaying at the T1 of arterial blood; VSASL and the joint protocol follow MULTIVERSE ASL
(doi 10.1002/mrm.30540).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor

from assay.errors import ConfigError

Value = float | Tensor  # a constant: one number, or a tensor with one per image
Delays = Tensor | Sequence[float] | float  # post-labelling delays, ms

PER_SECOND = 1.0 / 6000.0  # ml/100 g/min -> ml/g/s
SECONDS = 1.0 / 1000.0  # ms -> s
PCASL_PULSES = 4  # background-suppression pulses, each inverting with efficiency alpha_bs
VSASL_PULSES = 3
SUPPRESSION_PULSES = {"pcasl": PCASL_PULSES, "vsasl": VSASL_PULSES}
"""By labelling."""
CPU_BLOCK = 2**16  # pixels whose signals are computed at once: few operations, yet within the cache


@dataclass(frozen=True, kw_only=True)
class Physics:
    """The constants of a joint PCASL and VSASL protocol; floats, or tensors (B,) with a value per image.

    t1_artery: T1 of arterial blood, ms (1850 as in the published study; the 3 T consensus value is 1650,
        Alsop et al. 2015, doi 10.1002/mrm.25197). label_duration: PCASL bolus, ms. alpha_pcasl, alpha_vsasl:
        labelling efficiencies. alpha_bs: inversion efficiency of one background-suppression pulse (1 = none).
    partition: blood-brain partition coefficient, ml/g. t2_factor: T2 and crusher loss. recovery: saturation
        recovery of VSASL.
    """

    t1_artery: Value = 1850.0
    label_duration: Value = 1800.0
    alpha_pcasl: Value = 0.85
    alpha_vsasl: Value = 0.56
    alpha_bs: Value = 1.0
    partition: Value = 0.9
    t2_factor: Value = 1.0
    recovery: Value = 1.0

    def map(self, change: Callable[[Value], Value]) -> "Physics":
        """Apply `change` to every constant."""
        return Physics(**{field.name: change(getattr(self, field.name)) for field in fields(self)})

    def to(self, like: Tensor) -> "Physics":
        """Move the constants that are tensors to the device and dtype of `like`."""
        return self.map(lambda value: value.to(like) if isinstance(value, Tensor) else value)

    def image(self, index: int) -> "Physics":
        """The constants of image `index` of the batch."""
        return self.map(lambda value: value[index] if isinstance(value, Tensor) and value.dim() else value)

    @property
    def is_shared(self) -> bool:
        """Whether one set of constants holds for every image."""
        values = (getattr(self, field.name) for field in fields(self))
        return not any(isinstance(value, Tensor) and value.dim() for value in values)


RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "baseline": {
        "t1_artery": (1550.0, 2150.0),
        "alpha_pcasl": (0.75, 0.95),
        "alpha_vsasl": (0.40, 0.70),
        "alpha_bs": (0.85, 1.0),
        "label_duration": (0.90, 1.10),
    },
    "extended": {
        "t1_artery": (1400.0, 2300.0),
        "alpha_pcasl": (0.65, 0.98),
        "alpha_vsasl": (0.30, 0.75),
        "alpha_bs": (0.70, 1.0),
        "label_duration": (0.85, 1.15),
    },
}
"""Uniform ranges (low, high) of the randomised constants; `label_duration` is relative to the nominal one."""


def pcasl_signal(  # noqa: PLR0913 - one keyword per constant of the equation
    cbf: Value,
    att: Value,
    plds: Delays,
    *,
    t1_artery: Value = 1850.0,
    alpha: Value = 0.85,
    alpha_bs: Value = 1.0,
    label_duration: Value = 1800.0,
    t2_factor: Value = 1.0,
    partition: Value = 0.9,
) -> Tensor:
    """PCASL difference signal dM/M0 with four background-suppression pulses (alpha_bs ** 4).

    cbf in ml/100 g/min, att and plds in ms and the constants broadcast with one another as tensors do: maps
    (..., 1) and delays (n_plds,) give (..., n_plds). dtype and device are those of cbf and att.

    Source: Buxton et al. 1998, doi 10.1002/mrm.1910400308, with T1 of blood for the decay of the label.
    """
    physics = Physics(
        t1_artery=t1_artery,
        alpha_pcasl=alpha,
        alpha_bs=alpha_bs,
        label_duration=label_duration,
        t2_factor=t2_factor,
        partition=partition,
    )
    cbf, att, delays, physics = _align(cbf, att, plds, physics)
    return cbf * _pcasl_scale(physics) * _pcasl_bolus(att, delays, physics)


def vsasl_signal(  # noqa: PLR0913 - one keyword per constant of the equation
    cbf: Value,
    att: Value,
    plds: Delays,
    *,
    t1_artery: Value = 1850.0,
    alpha: Value = 0.56,
    alpha_bs: Value = 1.0,
    t2_factor: Value = 1.0,
    partition: Value = 0.9,
    recovery: Value = 1.0,
) -> Tensor:
    """VSASL difference signal dM/M0 with three background-suppression pulses (alpha_bs ** 3).

    Shapes and units are those of `pcasl_signal`. There is no label duration: blood is labelled
    everywhere at once, and ATT is when the trailing edge of the bolus arrives.

    Source: MULTIVERSE ASL, doi 10.1002/mrm.30540.
    """
    physics = Physics(
        t1_artery=t1_artery,
        alpha_vsasl=alpha,
        alpha_bs=alpha_bs,
        t2_factor=t2_factor,
        partition=partition,
        recovery=recovery,
    )
    cbf, att, delays, physics = _align(cbf, att, plds, physics)
    return cbf * (_vsasl_scale(physics, delays) * torch.minimum(att, delays))


def macrovascular_signal(
    arterial_volume: Value,
    att: Value,
    plds: Delays,
    *,
    t1_artery: Value = 1850.0,
    alpha: Value = 0.85,
    alpha_bs: Value = 1.0,
) -> Tensor:
    """PCASL signal of label still inside the arteries, zero once PLD >= ATT; add it to the tissue signal.

    arterial_volume is the arterial blood volume as a fraction, 0 to about 0.015. Shapes and units are those of
    `pcasl_signal`.
    """
    physics = Physics(t1_artery=t1_artery, alpha_pcasl=alpha, alpha_bs=alpha_bs)
    volume, att, delays, physics = _align(arterial_volume, att, plds, physics)
    label = 2.0 * physics.alpha_pcasl * physics.alpha_bs**PCASL_PULSES
    return volume * (label * torch.exp(-delays / physics.t1_artery) * (delays < att))


def joint_signal(cbf: Tensor, att: Tensor, plds: Delays, physics: Physics, out: Tensor | None = None) -> Tensor:
    """Both sequences of a batch of images: PCASL at every delay, then VSASL at every delay.

    cbf (B, H, W) and att (B, H, W), not negative; the constants of `physics` are floats or (B,). Returns
    (B, 2 * n_plds, H, W), differentiable in cbf and att. With `out`, contiguous and of that shape, it is written
    a few images at a time, without autograd: several times faster on a CPU, for the cache holds each part.
    Raises ConfigError unless `plds` is one-dimensional.
    """
    delays = torch.as_tensor(plds).to(cbf)
    if delays.dim() != 1 or delays.numel() == 0:
        shape = tuple(delays.shape)
        raise ConfigError(f"plds: got shape {shape}, allowed is a list of delays in ms; pass e.g. [500, 1000]")
    physics = physics.to(cbf).map(lambda value: value.unsqueeze(-1) if isinstance(value, Tensor) else value)
    start, end = _pcasl_limits(delays, physics)
    limits: tuple[Tensor, ...] = (
        _planes(start, delays.clamp_min(0)),  # so that VSASL, with ATT not negative, is never below its floor
        _planes(end, torch.zeros_like(delays)),
        _planes(_pcasl_scale(physics), _vsasl_scale(physics, delays)),
    )
    if out is None:
        decay = torch.exp(-att.flatten(1) / physics.t1_artery).reshape(att.shape)
        return _scaled_bolus(cbf, att, decay, limits).flatten(1, 2)
    cap, floor, scale = (plane.expand(len(cbf), *plane.shape[-4:]) for plane in limits)
    t1_artery = torch.as_tensor(physics.t1_artery).to(cbf).expand(len(cbf), 1)
    target = out.view(len(cbf), 2, len(delays), *cbf.shape[1:])
    block = max(CPU_BLOCK // cbf[0].numel(), 1) if cbf.device.type == "cpu" else len(cbf)
    for part in (slice(first, first + block) for first in range(0, len(cbf), block)):
        bolus = target[part]
        decay = torch.exp(-att[part].flatten(1) / t1_artery[part]).view_as(bolus[:, 0, :1])
        torch.minimum(decay, cap[part, 0], out=bolus[:, 0]).sub_(floor[part, 0]).relu_()
        torch.minimum(att[part, None], cap[part, 1], out=bolus[:, 1])
        bolus.mul_(scale[part]).mul_(cbf[part, None, None])
    return out


def randomise_physics(
    nominal: Physics, ranges: Literal["baseline", "extended"], n: int, generator: torch.Generator
) -> Physics:
    """Draw the constants of `n` images, each (n,) float64, uniform and independent on the generator's device.

    T1 and the efficiencies are drawn from `ranges`, the label duration varies around the nominal one, the
    other constants keep their nominal value. Raises ConfigError for unknown ranges.
    """
    if ranges not in RANGES:
        raise ConfigError(f"randomise: got {ranges!r}, allowed are {', '.join(RANGES)}; choose one of these")
    limits = torch.tensor(list(RANGES[ranges].values()), dtype=torch.float64, device=generator.device)
    unit = torch.rand(len(limits), n, generator=generator, device=generator.device, dtype=torch.float64)
    drawn = dict(zip(RANGES[ranges], limits[:, :1] + (limits[:, 1:] - limits[:, :1]) * unit, strict=True))
    like = drawn["t1_artery"]
    drawn["label_duration"] = drawn["label_duration"] * nominal.to(like).label_duration
    fixed = nominal.map(lambda value: torch.as_tensor(value, dtype=like.dtype, device=like.device).expand(n))
    return replace(fixed, **drawn)


def reference_signal(physics: Physics) -> Tensor:
    """The signal that SNR is relative to: PCASL at CBF 20, ATT 1500, PLD 2000. Shape () or (B,)."""
    white_matter, att, delay, physics = _align(20.0, 1500.0, 2000.0, physics)
    return white_matter * _pcasl_scale(physics) * _pcasl_bolus(att, delay, physics)


def _pcasl_scale(physics: Physics) -> Value:
    """Signal per unit of CBF and of `_pcasl_bolus`."""
    efficiency = physics.alpha_pcasl * physics.alpha_bs**PCASL_PULSES * physics.t2_factor
    return 2.0 * PER_SECOND * SECONDS * efficiency * physics.t1_artery / physics.partition


def _pcasl_bolus(att: Tensor, delays: Tensor, physics: Physics) -> Tensor:
    """The decayed bolus that has arrived: none before ATT - tau, part of it before ATT, then all of it.

    All three cases are exp(-max(ATT, PLD)/T1) - exp(-(tau + PLD)/T1), cut at zero: one exponential per voxel.
    """
    start, end = _pcasl_limits(delays, physics)
    return (torch.minimum(torch.exp(-att / physics.t1_artery), start) - end).relu()


def _pcasl_limits(delays: Tensor, physics: Physics) -> tuple[Tensor, Tensor]:
    """What is left, at each delay, of label made at the end of the bolus and of label made at its start."""
    last = torch.exp(-delays / physics.t1_artery)
    first = torch.exp(-(delays + physics.label_duration) / physics.t1_artery)
    return last, first


def _vsasl_scale(physics: Physics, delays: Tensor) -> Tensor:
    """Signal per unit of CBF and per ms of bolus, at each delay."""
    efficiency = physics.alpha_vsasl * physics.alpha_bs**VSASL_PULSES * physics.t2_factor * physics.recovery
    scale = 2.0 * PER_SECOND * SECONDS * efficiency / physics.partition
    return torch.exp(-delays / physics.t1_artery) * scale


def _scaled_bolus(cbf: Tensor, att: Tensor, decay: Tensor, limits: Sequence[Tensor]) -> Tensor:
    """CBF * scale * (min(u, cap) - floor), not below zero, with u = exp(-ATT/T1) for PCASL and ATT for VSASL.

    limits: cap, floor and scale (B or 1, 2, P, 1, 1). Returns (B, 2, P, H, W), in place where autograd allows it.
    """
    cap, floor, scale = limits
    bolus = torch.minimum(torch.stack((decay, att), 1).unsqueeze(2), cap).sub_(floor).relu_()
    return torch.mul(bolus, scale).mul_(cbf[:, None, None])


def _planes(pcasl: Value, vsasl: Tensor) -> Tensor:
    """Stack the constants of both sequences to (..., 2, P, 1, 1)."""
    full = pcasl * torch.ones_like(vsasl)
    return torch.stack((full, vsasl.expand_as(full)), -2)[..., None, None]


def _align(cbf: Value, att: Value, plds: Delays, physics: Physics) -> tuple[Tensor, Tensor, Tensor, Physics]:
    """Bring all to one floating dtype and to one device."""
    cbf, att = _tensor(cbf, att), _tensor(att, cbf)
    dtype = torch.result_type(cbf, att)
    like = cbf.new_empty((), dtype=dtype if dtype.is_floating_point else torch.get_default_dtype())
    return cbf.to(like), att.to(like), torch.as_tensor(plds).to(like), physics.to(like)


def _tensor(value: Value, other: Value) -> Tensor:
    """A number becomes a scalar beside `other`, in float64, which promotes no tensor that has dimensions."""
    if isinstance(value, Tensor):
        return value
    device = other.device if isinstance(other, Tensor) else None
    return torch.tensor(value, dtype=torch.float64, device=device)
