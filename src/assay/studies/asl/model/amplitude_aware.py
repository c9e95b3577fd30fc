"""The U-Net that is told the amplitude of its input, in three ways; open it for FiLM and output modulation.

A defect is part of the design and kept: the modulation multiplies a z-score, so CBF tends to its mean and
not to 0 as the signal vanishes. It cannot be proportional to the amplitude; `homogeneous.py` is.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from assay.studies.asl.model.blocks import Heads, UNet

CONDITION_SIZE = 64
MODULATION_SCALE = 100.0


def amplitude_features(x: Tensor) -> Tensor:
    """Statistics of whole images (B, 2P, H, W), PCASL then VSASL: (B, 6P + 4).

    Per channel the spatial mean, standard deviation (ddof 1) and maximum; then the mean square of
    everything, the ratio of the mean of PCASL to that of VSASL, and for each sequence the position of its
    largest channel mean / P.
    """
    plds = x.shape[1] // 2
    std, mean = torch.std_mean(x, dim=(2, 3))
    pcasl, vsasl = mean.chunk(2, dim=1)
    shape = [
        x.square().mean(dim=(1, 2, 3)),
        pcasl.mean(dim=1) / (vsasl.mean(dim=1) + 1e-6),
        pcasl.argmax(dim=1) / plds,
        vsasl.argmax(dim=1) / plds,
    ]
    return torch.cat([mean, std, x.amax(dim=(2, 3)), torch.stack(shape, dim=1).to(x.dtype)], dim=1)


class FiLM(nn.Module):
    """(1 + gamma(c)) x + beta(c) per channel, at first the identity (Perez et al. 2018, arXiv 1709.07871)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = _zero_start(CONDITION_SIZE, CONDITION_SIZE, channels)
        self.beta = _zero_start(CONDITION_SIZE, CONDITION_SIZE, channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, C, H, W), condition (B, 64) to (B, C, H, W)."""
        gamma, beta = self.gamma(condition)[..., None, None], self.beta(condition)[..., None, None]
        out: Tensor = (1.0 + gamma) * x + beta
        return out


def _zero_start(in_features: int, hidden: int, out_features: int) -> nn.Sequential:
    last = nn.Linear(hidden, out_features)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(in_features, hidden), nn.ReLU(), last)


class AmplitudeAwareSpatialASLNet(nn.Module):
    """Normalised input (B, 2P, H, W) to (B, 4, H, W); 2,038,307 parameters with all options.

    The first block has no normalisation. `use_film_at_bottleneck` and `use_film_at_decoder` modulate
    features by the amplitude features; `use_amplitude_output_modulation` multiplies the CBF z-score by 100
    mean(x) exp(g), g learned, 0 at the start and limited to [-2, 2].
    """

    def __init__(
        self,
        plds: int,
        hidden_sizes: Sequence[int] = (32, 64, 128, 256),
        *,
        use_film_at_bottleneck: bool = True,
        use_film_at_decoder: bool = True,
        use_amplitude_output_modulation: bool = True,
        learned_variance: bool = False,
    ) -> None:
        super().__init__()
        self.unet = UNet(2 * plds, hidden_sizes, first_norm=False)
        self.extractor = nn.Sequential(
            nn.Linear(6 * plds + 4, CONDITION_SIZE),
            nn.ReLU(),
            nn.Linear(CONDITION_SIZE, CONDITION_SIZE),
            nn.ReLU(),
            nn.Linear(CONDITION_SIZE, CONDITION_SIZE),
        )
        self.bottleneck_film = FiLM(hidden_sizes[-1]) if use_film_at_bottleneck else None
        self.decoder_films = (
            nn.ModuleList(FiLM(width) for width in reversed(hidden_sizes[:-1])) if use_film_at_decoder else None
        )
        self.modulation = _zero_start(CONDITION_SIZE, 32, 1) if use_amplitude_output_modulation else None
        self.heads = Heads(hidden_sizes[0], learned_variance=learned_variance)

    def forward(self, x: Tensor) -> Tensor:
        condition = self.extractor(amplitude_features(x))
        maps: Tensor = self.heads(self._features(x, condition))
        if self.modulation is None:
            return maps
        level = MODULATION_SCALE * x.mean(dim=(1, 2, 3), keepdim=True)
        gain = level * self.modulation(condition).clamp(-2.0, 2.0).exp()[..., None, None]
        return torch.cat([maps[:, :1] * gain, maps[:, 1:]], dim=1)

    def _features(self, x: Tensor, condition: Tensor) -> Tensor:
        features: Tensor
        *skips, features = self.unet.encoder(x)
        if self.bottleneck_film is not None:
            features = self.bottleneck_film(features, condition)
        for level, (decoder, skip) in enumerate(zip(self.unet.decoders, reversed(skips), strict=True)):
            features = decoder(features, skip)
            if self.decoder_films is not None:
                features = self.decoder_films[level](features, condition)
        return features
