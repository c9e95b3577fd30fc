"""Noise on ASL difference signals; open it for what SNR means, or to add a noise model.

SNR is the reference signal (`physics.reference_signal`) over the standard deviation of the thermal noise,
both in the unit of the signal (dM/M0). There is no scale factor anywhere in between.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from assay.errors import ConfigError

Generators = Sequence[torch.Generator]

LABELLING = 1800.0 + 700.0  # ms per PCASL image beside its delay: label and readout
SATURATION = 2000.0 + 436.0  # ms per VSASL image beside its delay: saturation and readout
STATIC_TISSUE = 0.05  # of M0, left by background suppression in control and in label image


@dataclass(frozen=True, kw_only=True)
class NoiseModel:
    """Adds noise to signals; `noise:` of the parameter file.

    model: thermal noise. gaussian: added to the difference. rician: magnitude of the complex difference, as
        the published study had it, biased where the signal is weak. control_label: control and label image
        get independent Rician noise over 5 % of static tissue, then are subtracted; each image carries
        sd/sqrt(2), so that the difference has the requested SNR.
    snr: range of the SNR before the channel factor, uniform. snr_per: one for each image, or for each voxel.
    channel_factor: scales the thermal noise for scan time, see `channel_factors`; the SNR becomes `snr` over it.
    physio: range of the amplitude of a sinusoid over the channels. drift: largest slope of a ramp over the
        channels. spike_probability, spike_magnitude: positive outliers. These three are drawn for each voxel
        and count in thermal standard deviations (before the channel factor).
    """

    model: Literal["gaussian", "rician", "control_label"]
    snr: tuple[float, float]
    snr_per: Literal["image", "voxel"]
    channel_factor: Literal["none", "scan_time", "inverse"]
    physio: tuple[float, float]
    drift: float
    spike_probability: float
    spike_magnitude: tuple[float, float]

    def __post_init__(self) -> None:
        if self.model not in ("gaussian", "rician", "control_label"):
            allowed = "gaussian, rician, control_label"
            raise ConfigError(f"noise.model: got {self.model!r}, allowed are {allowed}; choose one of these")
        if not 0 < self.snr[0] <= self.snr[1]:
            raise ConfigError(f"noise.snr: got {list(self.snr)}, allowed is 0 < low <= high; give e.g. [2, 25]")

    def __call__(
        self, signal: Tensor, reference: Tensor | float, generators: Generators, plds: Sequence[float]
    ) -> tuple[Tensor, Tensor]:
        """Return the noisy signal and the sd of its thermal noise, root mean square over the channels.

        signal: (B, C, H, W) with C = 2 * n_plds channels, PCASL first. reference: the signal at which SNR is
        defined, a number or (B,). generators: one for each sample, which depends on no other.
        Returns (B, C, H, W) and (B, 1, 1, 1), or (B, 1, H, W) with `snr_per` voxel.
        Raises ConfigError unless there is a generator for each sample and two channels for each delay.
        """
        batch, channels, height, width = signal.shape
        if len(generators) != batch or channels != 2 * len(plds):
            given = f"{len(generators)} generators, {len(plds)} delays, signal {tuple(signal.shape)}"
            raise ConfigError(f"noise: got {given}, allowed is one per sample and two channels per delay; match them")
        grid = (1, height, width)
        snr = uniform(self.snr, grid if self.snr_per == "voxel" else (1, 1, 1), generators).to(signal)
        reference = torch.as_tensor(reference).to(signal).reshape(-1, 1, 1, 1)
        sigma = reference / snr
        factors = channel_factors(plds, self.channel_factor).to(signal).view(-1, 1, 1)
        noisy = self._thermal(signal, sigma * factors, generators)
        if self.physio[1] > 0:
            noisy = noisy + sigma * self._physio(channels, grid, generators).to(signal)
        if self.drift > 0:
            slope = uniform((-self.drift, self.drift), grid, generators).to(signal)
            noisy = noisy + sigma * slope * torch.linspace(-1, 1, channels).to(signal).view(-1, 1, 1)
        if self.spike_probability > 0:
            hit = uniform((0.0, 1.0), signal.shape[1:], generators).to(signal) < self.spike_probability
            noisy = noisy + hit * sigma * uniform(self.spike_magnitude, grid, generators).to(signal)
        return noisy, sigma * factors.square().mean().sqrt()

    def _thermal(self, signal: Tensor, sd: Tensor, generators: Generators) -> Tensor:
        def draw() -> Tensor:
            return standard_normal(signal.shape[1:], generators).to(signal)

        if self.model == "gaussian":
            return signal + sd * draw()
        if self.model == "rician":
            return torch.hypot(signal + sd * draw(), sd * draw())
        sd = sd / 2**0.5
        control = torch.hypot(STATIC_TISSUE + signal + sd * draw(), sd * draw())
        label = torch.hypot(STATIC_TISSUE + sd * draw(), sd * draw())
        return control - label

    def _physio(self, channels: int, grid: tuple[int, int, int], generators: Generators) -> Tensor:
        amplitude = uniform(self.physio, grid, generators)
        cycles = uniform((0.5, 2.0), grid, generators)  # over all channels
        phase = uniform((0.0, 1.0), grid, generators)
        time = torch.arange(channels, device=phase.device).view(-1, 1, 1) / channels
        return amplitude * torch.sin(2 * torch.pi * (cycles * time + phase))


def channel_factors(plds: Sequence[float], mode: Literal["none", "scan_time", "inverse"]) -> Tensor:
    """Factors (2 * n_plds,) on the thermal noise of the PCASL, then of the VSASL channels.

    With T the scan time of a sequence in ms: none is 1; scan_time is sqrt(4000 / T), less noise if longer
    (0.40 for six delays to 3 s); inverse is sqrt(T / 4500), the opposite (2.4 for these).
    Raises ConfigError for another mode.
    """
    totals = torch.tensor([sum(plds) + len(plds) * each for each in (LABELLING, SATURATION)])
    if mode == "none":
        factors = torch.ones(2)
    elif mode == "scan_time":
        factors = (4000.0 / totals).sqrt()
    elif mode == "inverse":
        factors = (totals / 4500.0).sqrt()
    else:
        allowed = "none, scan_time, inverse"
        raise ConfigError(f"noise.channel_factor: got {mode!r}, allowed are {allowed}; choose one of these")
    return factors.repeat_interleave(len(plds))


def standard_normal(shape: Sequence[int], generators: Generators) -> Tensor:
    """Normal numbers (B, *shape), sample i drawn from generator i alone, on the generators' device."""
    return torch.stack([torch.randn(tuple(shape), generator=g, device=g.device) for g in generators])


def uniform(limits: tuple[float, float], shape: Sequence[int], generators: Generators) -> Tensor:
    """Uniform numbers (B, *shape) between `limits`, sample i drawn from generator i alone."""
    low, high = limits
    return low + (high - low) * torch.stack(
        [torch.rand(tuple(shape), generator=g, device=g.device) for g in generators]
    )
