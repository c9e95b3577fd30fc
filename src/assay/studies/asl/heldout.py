"""Held-out phantoms and their noisy scans: the same for every arm and every seed; open it for what is judged on what.

Phantom k of a purpose is drawn from the key (purpose, k), its noise from (purpose, family, k, SNR): neither depends
on the seed of the study, on the number of phantoms, or on the device.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from assay.engine.random import generator
from assay.studies.asl.config import Params
from assay.studies.asl.dataset import Clean, nominal_physics, simulate_block
from assay.studies.asl.noise import standard_normal
from assay.studies.asl.phantom import PhantomBatch
from assay.studies.asl.physics import Physics, joint_signal, randomise_physics, reference_signal
from assay.studies.asl.reference_object import brain_phantoms

CPU = torch.device("cpu")
STRATA = ("grey", "white", "csf", "lesion", "boundary")
"""Kinds of voxel, disjoint: tissues and lesions are without the voxels at a boundary."""
OUTSIDE = 255  # stratum of a voxel that does not count
LEAST_CBF = 1.0  # ml/100 g/min; below it ATT means little, as in the published mask


class HeldOut(NamedTuple):
    """N phantoms of one family: `number` (N,) int64 is their key, `strata` (N, H, W) uint8 indexes `STRATA`."""

    family: str
    number: Tensor
    clean: Clean
    strata: Tensor

    @property
    def mask(self) -> Tensor:
        """Voxels that count, (N, H, W)."""
        return self.strata != OUTSIDE

    def within(self, cbf_max: float) -> "HeldOut":
        """The same without the voxels whose CBF exceeds `cbf_max`."""
        return self._replace(strata=self.strata.masked_fill(self.clean.cbf > cbf_max, OUTSIDE))


class Scan(NamedTuple):
    """A noisy measurement of phantoms `number` (N,): signal (N, 2P, H, W) and noise sd (N, 1, 1, 1), in dM/M0."""

    number: Tensor
    signal: Tensor
    sigma: Tensor
    physics: Physics

    def to(self, device: torch.device) -> "Scan":
        """The same on another device."""
        physics = self.physics.map(lambda value: value.to(device) if isinstance(value, Tensor) else value)
        return Scan(self.number, self.signal.to(device), self.sigma.to(device), physics)

    def scaled(self, factor: float) -> "Scan":
        """Signal and noise times `factor`, as perfusion, or a gain, would change them."""
        return self._replace(signal=self.signal * factor, sigma=self.sigma * factor)


def voronoi(params: Params, count: int, purpose: str) -> HeldOut:
    """`count` phantoms as in training, from keys that training never draws."""
    drawn = [simulate_block(params, 1, (purpose, k), CPU) for k in range(count)]
    phantoms = [phantom for phantom, _ in drawn]
    strata = torch.cat([_strata(phantom, phantom.cbf > LEAST_CBF) for phantom in phantoms])
    clean = _join([clean for _, clean in drawn])
    return HeldOut("voronoi", torch.arange(count), _shared(clean, params), strata)


def brain(params: Params, purpose: str) -> HeldOut:
    """Slices of the digital reference object, with the signal model of the study.

    Raises:
        DataError: asldro, which holds the reference object, is not installed.
    """
    reference = brain_phantoms(size=params.data.image_size)
    phantoms = reference.phantoms
    count = len(phantoms)
    physics = nominal_physics(params)
    ranges = randomisation(params)
    if ranges is not None:
        physics = randomise_physics(physics, ranges, count, generator(purpose, "brain physics"))
    signal = joint_signal(phantoms.cbf, phantoms.att, params.physics.plds, physics)
    strata = _strata(phantoms, reference.mask & (phantoms.cbf > LEAST_CBF))
    return HeldOut("brain", torch.arange(count), Clean(signal, phantoms.cbf, phantoms.att, physics), strata)


def scan(phantoms: HeldOut, snr: float, purpose: str) -> Scan:
    """Add Gaussian noise without channel factors: sd = reference signal / SNR."""
    clean = phantoms.clean
    reference = reference_signal(clean.physics).float().reshape(-1, 1, 1, 1)
    sigma = (reference / snr).expand(len(phantoms.number), 1, 1, 1)
    keys = [(purpose, phantoms.family, number, f"{snr:g}") for number in phantoms.number.tolist()]
    noise = standard_normal(clean.signal.shape[1:], [generator(*key) for key in keys])
    return Scan(phantoms.number, clean.signal + sigma * noise, sigma, clean.physics)


def randomisation(params: Params) -> Literal["baseline", "extended"] | None:
    """The ranges that the physics of each phantom is drawn from, None where all have the nominal one."""
    ranges = params.physics.randomise
    return None if ranges == "none" or params.legacy.inactive_randomisation else ranges


def _strata(phantoms: PhantomBatch, mask: Tensor) -> Tensor:
    strata = torch.where(phantoms.lesion > 0, STRATA.index("lesion"), phantoms.tissue)
    strata = torch.where(phantoms.boundary, STRATA.index("boundary"), strata)
    return torch.where(mask, strata, OUTSIDE).to(torch.uint8)


def _join(parts: list[Clean]) -> Clean:
    maps = [torch.cat(tensors) for tensors in zip(*(part[:3] for part in parts), strict=True)]
    constants = [vars(part.physics) for part in parts]
    physics = Physics(**{name: torch.cat([each[name] for each in constants]) for name in constants[0]})
    return Clean(maps[0], maps[1], maps[2], physics)


def _shared(clean: Clean, params: Params) -> Clean:
    """One set of constants where every phantom has the same: least squares then fits all voxels at once."""
    return clean if randomisation(params) else clean._replace(physics=nominal_physics(params))
