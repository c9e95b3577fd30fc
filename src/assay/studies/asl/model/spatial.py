"""The baseline U-Net, and the same without its first normalisation; open it for the reference architecture.

With `first_norm` the first layer is a convolution without bias followed by GroupNorm, so the whole network
ignores the global scale of its input: it cannot know absolute perfusion. `first_norm=False` changes that
one thing.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from assay.studies.asl.model.blocks import Heads, UNet


class SpatialASLNet(nn.Module):
    """Normalised input (B, 2P, H, W) to (B, 4, H, W): CBF and ATT as z-scores, and their log variances.

    Convolutions start Kaiming-normal (fan-out; He et al. 2015, doi 10.1109/ICCV.2015.123), the head normal
    with standard deviation 0.01. 1,929,634 parameters for six delays and widths 32-64-128-256.
    """

    def __init__(
        self,
        plds: int,
        hidden_sizes: Sequence[int] = (32, 64, 128, 256),
        *,
        first_norm: bool = True,
        learned_variance: bool = False,
    ) -> None:
        super().__init__()
        self.unet = UNet(2 * plds, hidden_sizes, first_norm=first_norm)
        for module in self.unet.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.heads = Heads(hidden_sizes[0], learned_variance=learned_variance)
        nn.init.normal_(self.heads.mean.weight, std=0.01)
        nn.init.zeros_(self.heads.mean.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.heads(self.unet(x))
        return out
