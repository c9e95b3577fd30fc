"""One encoder per sequence, fused at the bottleneck; open it for late fusion."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from assay.studies.asl.model.blocks import DoubleConv, Encoder, Heads, decoders


class DualEncoderSpatialASLNet(nn.Module):
    """Normalised input (B, 2P, H, W), PCASL then VSASL, to (B, 4, H, W) as `SpatialASLNet`.

    Each sequence has its own encoder and bottleneck; every decoder sees the skips of both. 5,066,084
    parameters for six delays, widths 32-64-128-256 and `learned_variance`.
    """

    def __init__(
        self,
        plds: int,
        hidden_sizes: Sequence[int] = (32, 64, 128, 256),
        *,
        learned_variance: bool = True,
    ) -> None:
        super().__init__()
        self.pcasl_encoder = Encoder(plds, hidden_sizes)
        self.vsasl_encoder = Encoder(plds, hidden_sizes)
        self.fusion = DoubleConv(2 * hidden_sizes[-1], hidden_sizes[-1])
        self.decoders = decoders(hidden_sizes, skips=2)
        self.heads = Heads(hidden_sizes[0], learned_variance=learned_variance)

    def forward(self, x: Tensor) -> Tensor:
        pcasl, vsasl = x.chunk(2, dim=1)
        *pcasl_skips, pcasl_deep = self.pcasl_encoder(pcasl)
        *vsasl_skips, vsasl_deep = self.vsasl_encoder(vsasl)
        features: Tensor = self.fusion(torch.cat([pcasl_deep, vsasl_deep], dim=1))
        for decoder, skips in zip(
            self.decoders, zip(reversed(pcasl_skips), reversed(vsasl_skips), strict=True), strict=True
        ):
            features = decoder(features, *skips)
        out: Tensor = self.heads(features)
        return out
