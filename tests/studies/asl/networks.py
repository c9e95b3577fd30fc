"""Every network of the asl study at a small size, and a noisy brain to show it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from assay.studies.asl.model import PUBLISHED_STATISTICS, AmplitudeAwareSpatialASLNet, Architecture, build
from assay.studies.asl.model.outputs import Normalisation
from assay.studies.asl.physics import Physics, joint_signal

PLDS = (500.0, 1000.0, 1500.0, 2000.0, 2500.0, 3000.0)


@dataclass(frozen=True, kw_only=True)
class Options:
    """A stand-in for the study's own model section; null where the architecture has no such option."""

    architecture: Architecture
    hidden_sizes: tuple[int, ...] | None = (8, 16)
    normalisation: Normalisation | None = "global_scale"
    first_norm: bool | None = None
    use_film_at_bottleneck: bool | None = None
    use_film_at_decoder: bool | None = None
    use_amplitude_output_modulation: bool | None = None
    constrained_outputs: bool | None = None
    least_squares_features: bool | None = None
    learned_variance: bool | None = False


HOMOGENEOUS = Options(architecture="homogeneous", normalisation=None, least_squares_features=True)
PLAIN_HOMOGENEOUS = Options(architecture="homogeneous", normalisation=None, least_squares_features=False)
EVERY = {
    "homogeneous": HOMOGENEOUS,
    "homogeneous without fit": PLAIN_HOMOGENEOUS,
    "spatial": Options(architecture="spatial", first_norm=True),
    "spatial without first norm": Options(architecture="spatial", first_norm=False),
    "amplitude_aware": Options(
        architecture="amplitude_aware",
        use_film_at_bottleneck=True,
        use_film_at_decoder=True,
        use_amplitude_output_modulation=True,
    ),
    "dual_encoder": Options(architecture="dual_encoder", constrained_outputs=False),
    "small_cnn": Options(architecture="small_cnn", hidden_sizes=None, learned_variance=None),
    "matched_unet": Options(architecture="matched_unet", hidden_sizes=None, learned_variance=None),
}


def model(options: Options, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build(options, plds=PLDS, physics=Physics(), statistics=PUBLISHED_STATISTICS)


def variant(options: Options, **changes: object) -> Options:
    return replace(options, **changes)  # type: ignore[arg-type]


def brain(batch: int = 2, size: tuple[int, int] = (12, 12), seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random perfusion and transit times, (B, 1, H, W), and their noisy signal with its noise level."""
    generator = torch.Generator().manual_seed(seed)
    cbf = 10 + 80 * torch.rand(batch, *size, generator=generator)
    att = 500 + 2000 * torch.rand(batch, *size, generator=generator)
    signal = joint_signal(cbf, att, PLDS, Physics())
    noise = torch.full((batch, 1, 1, 1), 2e-4)
    return signal + noise * torch.randn(signal.shape, generator=generator), noise, cbf[:, None], att[:, None]


def perturb(network: nn.Module) -> nn.Module:
    """Move every parameter off its initial value, so that paths that start at zero count."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return network


def amplitude_aware(bottleneck: bool, decoder: bool, modulation: bool, plds: int = 6) -> AmplitudeAwareSpatialASLNet:
    return AmplitudeAwareSpatialASLNet(
        plds,
        use_film_at_bottleneck=bottleneck,
        use_film_at_decoder=decoder,
        use_amplitude_output_modulation=modulation,
    )
