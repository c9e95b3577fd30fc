"""What every model of this study returns, and the shell around those that predict z-scores; see it for units.

A network is trained and published on standardised maps, but a checkpoint has to answer in ml/100 g/min and
ms from the signal as measured. So the statistics and the input normalisation live inside the model, in its
buffers.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from assay.errors import DataError
from assay.studies.asl.statistics import Statistics

Normalisation = Literal["global_scale", "per_curve"]

CBF_LIMITS = (0.0, 200.0)  # ml/100 g/min
ATT_LIMITS = (0.0, 5000.0)  # ms
LOG_VARIANCE_RANGE = (-5.0, 10.0)  # log of squared z-scores
UNTRAINED_LOG_VARIANCE = -5.0  # what a network without variance heads reports: a constant, not an uncertainty
INPUT_SCALE = 1000.0  # brings dM/M0 of grey matter, 0.003 to 0.01, to 3 to 10


class Prediction(NamedTuple):
    """Four maps, each (B, 1, H, W), not clamped.

    `cbf` is in ml/100 g/min and `att` in ms. The log variances are natural logarithms of the variance of
    (prediction - truth) / std, with the standard deviations of the model's `Statistics`.
    """

    cbf: Tensor
    att: Tensor
    log_var_cbf: Tensor
    log_var_att: Tensor

    def clamped(self) -> "Prediction":
        """CBF in [0, 200] ml/100 g/min and ATT in [0, 5000] ms: for evaluation, never for a loss."""
        return self._replace(cbf=self.cbf.clamp(*CBF_LIMITS), att=self.att.clamp(*ATT_LIMITS))


def global_scale(x: Tensor) -> Tensor:
    """(B, C, H, W) dM/M0 times 1000: keeps the amplitude."""
    return x * INPUT_SCALE


def per_curve(x: Tensor) -> Tensor:
    """Each voxel's curve (dimension 1 of (B, C, H, W)) minus its mean, over its standard deviation.

    The signal is proportional to CBF, so this cancels CBF exactly; ATT and the noise level survive.
    """
    scaled = global_scale(x)
    std, mean = torch.std_mean(scaled, dim=1, correction=0, keepdim=True)
    return (scaled - mean) / (std + 1e-6)


_NORMALISE = {"global_scale": global_scale, "per_curve": per_curve}


def require_channels(x: Tensor, channels: int) -> None:
    """Raise `DataError` unless x is (B, channels, H, W)."""
    if x.ndim != 4 or x.shape[1] != channels:
        raise DataError(
            f"model input: got shape {tuple(x.shape)}, allowed (batch, {channels}, height, width): "
            "give one channel per PCASL and per VSASL delay that the model was built for"
        )


class StandardisedModel(nn.Module):
    """A network on normalised input, as a model from dM/M0 (B, 2P, H, W) to `Prediction`.

    `network` maps normalised input to (B, 4, H, W): CBF and ATT as z-scores and two log variances. With
    `constrained_outputs` its first two maps are read as 20 softplus(u) ml/100 g/min and 5000 sigmoid(u) ms
    instead.
    """

    cbf_mean: Tensor
    cbf_std: Tensor
    att_mean: Tensor
    att_std: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        channels: int,
        normalisation: Normalisation,
        statistics: Statistics,
        constrained_outputs: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.channels = channels
        self.normalisation = normalisation
        self.constrained_outputs = constrained_outputs
        for name in ("cbf_mean", "cbf_std", "att_mean", "att_std"):
            self.register_buffer(name, torch.tensor(getattr(statistics, name), dtype=torch.float32))

    def forward(self, x: Tensor, noise: Tensor) -> Prediction:
        """x: dM/M0 (B, 2P, H, W). noise: its standard deviation, (B, 1, 1, 1) or (B, 1, H, W), not used."""
        require_channels(x, self.channels)
        maps: Tensor = self.network(_NORMALISE[self.normalisation](x))
        maps = maps.to(x.dtype)  # out of autocast: 1750 ms need the bits
        cbf, att, log_var_cbf, log_var_att = maps.chunk(4, dim=1)
        return Prediction(*self._physical(cbf, att), log_var_cbf, log_var_att)

    def _physical(self, cbf: Tensor, att: Tensor) -> tuple[Tensor, Tensor]:
        if self.constrained_outputs:
            return 20.0 * nn.functional.softplus(cbf), ATT_LIMITS[1] * torch.sigmoid(att)
        return cbf * self.cbf_std + self.cbf_mean, att * self.att_std + self.att_mean
