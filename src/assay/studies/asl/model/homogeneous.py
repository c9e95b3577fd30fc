"""The model that scales with its input by construction; open it to see how perfusion stays absolute.

The signal is proportional to CBF and its shape depends on ATT alone. So the input is divided by an
amplitude, a network works on what is left, and CBF is multiplied by the amplitude again: for every s > 0,
CBF(s x, s noise) = s CBF(x, noise) and ATT(s x, s noise) = ATT(x, noise), trained or not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from assay.studies.asl.model.blocks import UNet
from assay.studies.asl.model.outputs import ATT_LIMITS, UNTRAINED_LOG_VARIANCE, Prediction, require_channels
from assay.studies.asl.physics import Physics, joint_signal
from assay.studies.asl.statistics import Statistics

RELATIVE_LOG_VARIANCE_RANGE = (-14.0, 6.0)
NOISE_RANGE = (1e-3, 1e3)  # of noise over amplitude: beyond, the network is not told more
KERNEL_SIZE = 5
SMALLEST_CBF = 1e-4  # over amplitude and `cbf_unit`: keeps CBF positive where the fit is zero
ATT_UNIT = 1000.0  # ms, so that transit times enter the network at order 1
POSTERIOR_FLOOR = 0.01  # smallest noise over amplitude in the fit: keeps the posterior wider than the grid


@dataclass(frozen=True, kw_only=True)
class Dictionary:
    """Signals (J, 2P) of CBF 1 ml/100 g/min at transit times (J,), ms; both float64."""

    signals: Tensor
    atts: Tensor


def unit_dictionary(plds: Sequence[float], physics: Physics) -> Dictionary:
    """The dictionary of a protocol: every 25 ms up to 2500 ms, where ATT is told best, then every 75 ms."""
    atts = torch.cat([torch.arange(100.0, 2500.0, 25.0), torch.arange(2500.0, 4901.0, 75.0)]).double()
    signals = joint_signal(torch.ones_like(atts)[None, None], atts[None, None], plds, physics)
    return Dictionary(signals=signals[0, :, 0].T.contiguous(), atts=atts)


def amplitude(x: Tensor) -> Tensor:
    """The amplitude of each image (B, C, H, W): (B, 1, 1, 1), positive, of degree 1 in x.

    Root of the mean energy of the voxels, each weighted by its own energy: empty background does not count,
    so the same brain in a wider field of view has the same amplitude.
    """
    tiny = torch.finfo(x.dtype).tiny
    peak = x.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(tiny)
    energy = (x / peak).square().mean(dim=1, keepdim=True)  # of order 1: squares neither overflow nor vanish
    total = energy.sum(dim=(2, 3), keepdim=True).clamp_min(tiny)
    return (peak * (energy.square().sum(dim=(2, 3), keepdim=True) / total).sqrt()).clamp_min(tiny)


def cbf_per_amplitude(dictionary: Dictionary) -> float:
    """CBF, ml/100 g/min, of a voxel whose channels have root mean square 1, averaged over ATT."""
    return float((1.0 / dictionary.signals.square().mean(dim=1).sqrt()).mean())


class LeastSquaresFeatures(nn.Module):
    """Per-voxel fit of a dictionary: posterior means under flat priors, CBF eliminated by its closed form.

    With noise of known standard deviation the profile likelihood of ATT is exp(gain / (2 noise^2)), gain
    being the energy that the best CBF explains. As the noise vanishes this is variable projection (Golub
    and Pereyra 1973, doi 10.1137/0710036) on a grid; unlike the arg max it is continuous.
    """

    directions: Tensor
    cbfs: Tensor
    atts: Tensor

    def __init__(self, dictionary: Dictionary) -> None:
        super().__init__()
        norms = dictionary.signals.norm(dim=1)
        self.register_buffer("directions", (dictionary.signals / norms[:, None]).T.contiguous().float())
        self.register_buffer("cbfs", (1.0 / (norms * cbf_per_amplitude(dictionary))).float())
        self.register_buffer("atts", (dictionary.atts / ATT_UNIT).float())

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, 2P, H, W), noise (B, 1, H, W) to CBF / `cbf_per_amplitude`, ATT in s, misfit in [0, 1]."""
        x, noise = x.movedim(1, -1), noise.movedim(1, -1)
        with torch.autocast(x.device.type, enabled=False):  # gain / noise^2 reaches 1e4: half is too coarse
            projection = (x @ self.directions).relu()  # (B, H, W, J); CBF is not negative
            gain = projection.square()
            weight = torch.softmax(gain * (0.5 / noise.clamp_min(POSTERIOR_FLOOR).square()), dim=-1)
            cbf, att = (weight * projection) @ self.cbfs, weight @ self.atts
        misfit = 1.0 - gain.amax(dim=-1) / x.square().sum(dim=-1).clamp_min(1e-12)
        return cbf.unsqueeze(1), att.unsqueeze(1), misfit.unsqueeze(1)


class HomogeneousASLNet(nn.Module):
    """dM/M0 (B, 2P, H, W) and its noise to `Prediction`, exactly homogeneous; CBF > 0, ATT in (0, 5000) ms.

    A U-Net without normalisation in its first block sees the input and the noise, both over the amplitude.
    Its features and its input together give a factor on CBF and a shift of ATT. With
    `least_squares_features` these correct the per-voxel fit, averaged over 5x5 neighbours with weights that
    the network chooses for each voxel (kernel prediction: Bako et al. 2017, doi 10.1145/3072959.3073708),
    and the fit is an input too; without, they correct a constant. With `learned_variance` the predicted
    deviation of CBF scales as CBF does.
    """

    cbf_unit: Tensor
    cbf_std: Tensor

    def __init__(
        self,
        dictionary: Dictionary,
        hidden_sizes: Sequence[int] = (24, 48, 96),
        *,
        statistics: Statistics,
        least_squares_features: bool = True,
        learned_variance: bool = False,
    ) -> None:
        super().__init__()
        self.channels = dictionary.signals.shape[1]
        self.register_buffer("cbf_unit", torch.tensor(cbf_per_amplitude(dictionary), dtype=torch.float32))
        self.register_buffer("cbf_std", torch.tensor(statistics.cbf_std, dtype=torch.float32))
        inputs, width = self.channels + 1 + 3 * least_squares_features, hidden_sizes[0]
        self.least_squares = LeastSquaresFeatures(dictionary) if least_squares_features else None
        self.unet = UNet(inputs, hidden_sizes, first_norm=False)
        self.mix = nn.Sequential(nn.Conv2d(width + inputs, width, 1), nn.ReLU())
        self.correction = _small_start(width, 2)
        self.kernels = _small_start(width, 2 * KERNEL_SIZE**2) if least_squares_features else None
        if self.kernels is not None:
            self.kernels.bias = nn.Parameter(_gaussian_logits().repeat(2))
        self.log_variance = _small_start(width, 2) if learned_variance else None

    def forward(self, x: Tensor, noise: Tensor) -> Prediction:
        """noise: standard deviation of x, (B, 1, 1, 1) or (B, 1, H, W). Raises `DataError` on other x."""
        require_channels(x, self.channels)
        scale = amplitude(x)
        relative, noise = x / scale, (noise / scale).clamp(*NOISE_RANGE).expand(-1, 1, *x.shape[2:])
        fit: tuple[Tensor, ...] = () if self.least_squares is None else self.least_squares(relative, noise)
        inputs = torch.cat([relative, noise.log(), *fit], dim=1)
        features = self.mix(torch.cat([self.unet(inputs), inputs], dim=1))
        cbf, att = self._estimate(features, fit)
        log_var_cbf, log_var_att = self._log_variances(features, scale)
        return Prediction(scale * self.cbf_unit * cbf, att, log_var_cbf, log_var_att)

    def _estimate(self, features: Tensor, fit: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """CBF over amplitude and `cbf_unit`, and ATT in ms."""
        dtype = self.cbf_unit.dtype  # the maps leave autocast here, or 1750 ms would be rounded to 8 ms
        factor, shift = self.correction(features).to(dtype).chunk(2, dim=1)
        if self.kernels is None:
            return nn.functional.softplus(1.0 + factor), ATT_LIMITS[1] * torch.sigmoid(shift - 1.0)
        kernel_cbf, kernel_att = self.kernels(features).to(dtype).chunk(2, dim=1)
        cbf = (_local_average(fit[0], kernel_cbf) + SMALLEST_CBF) * torch.exp(torch.tanh(factor))
        logit = torch.logit(ATT_UNIT / ATT_LIMITS[1] * _local_average(fit[1], kernel_att))
        return cbf, ATT_LIMITS[1] * torch.sigmoid(logit + shift)

    def _log_variances(self, features: Tensor, scale: Tensor) -> Sequence[Tensor]:
        if self.log_variance is None:
            constant = torch.full_like(features[:, :1], UNTRAINED_LOG_VARIANCE, dtype=scale.dtype)
            return constant, constant
        log_variances: Tensor = self.log_variance(features).to(scale.dtype)
        cbf, att = log_variances.clamp(*RELATIVE_LOG_VARIANCE_RANGE).chunk(2, dim=1)
        return cbf + 2.0 * torch.log(scale * self.cbf_unit / self.cbf_std), att


def _small_start(in_channels: int, out_channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, 1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def _gaussian_logits() -> Tensor:
    """Of a kernel with a standard deviation of 0.7 voxels: (25,)."""
    offsets = torch.arange(KERNEL_SIZE) - KERNEL_SIZE // 2
    return (-(offsets[:, None].square() + offsets.square()) / (2.0 * 0.7**2)).flatten()


def _local_average(values: Tensor, logits: Tensor) -> Tensor:
    """values (B, 1, H, W), averaged over 5x5 neighbours with weights softmax(logits (B, 25, H, W))."""
    reach = KERNEL_SIZE // 2
    padded = nn.functional.pad(values, (reach,) * 4, mode="replicate")
    rows, columns = values.shape[-2:]
    neighbours = [
        padded[:, :, row : row + rows, column : column + columns]
        for row in range(KERNEL_SIZE)
        for column in range(KERNEL_SIZE)
    ]
    return (torch.cat(neighbours, dim=1) * torch.softmax(logits, dim=1)).sum(dim=1, keepdim=True)
