"""The models of the ASL study and the one factory that makes them; open it to add an architecture.

Every model maps dM/M0 (B, 2P, H, W), PCASL then VSASL, and the noise's standard deviation in the same unit,
(B, 1, 1, 1) or (B, 1, H, W), to a `Prediction` in ml/100 g/min and ms.
"""

from collections.abc import Sequence
from typing import Literal, Protocol, TypeVar

from torch import nn

from assay.errors import ConfigError
from assay.studies.asl.model.amplitude_aware import AmplitudeAwareSpatialASLNet
from assay.studies.asl.model.controls import MatchedUNet, SmallCNN
from assay.studies.asl.model.dual_encoder import DualEncoderSpatialASLNet
from assay.studies.asl.model.homogeneous import HomogeneousASLNet, unit_dictionary
from assay.studies.asl.model.outputs import Normalisation, Prediction, StandardisedModel
from assay.studies.asl.model.spatial import SpatialASLNet
from assay.studies.asl.physics import Physics
from assay.studies.asl.statistics import PUBLISHED_STATISTICS, Statistics

__all__ = [
    "PUBLISHED_STATISTICS",
    "AmplitudeAwareSpatialASLNet",
    "Architecture",
    "DualEncoderSpatialASLNet",
    "HomogeneousASLNet",
    "MatchedUNet",
    "ModelOptions",
    "Prediction",
    "SmallCNN",
    "SpatialASLNet",
    "StandardisedModel",
    "Statistics",
    "build",
]

Architecture = Literal["homogeneous", "spatial", "amplitude_aware", "dual_encoder", "small_cnn", "matched_unet"]


T = TypeVar("T")


class ModelOptions(Protocol):
    """What `build` reads; null where the architecture has no such option."""

    @property
    def architecture(self) -> Architecture: ...
    @property
    def hidden_sizes(self) -> tuple[int, ...] | None: ...
    @property
    def normalisation(self) -> Normalisation | None: ...
    @property
    def first_norm(self) -> bool | None: ...
    @property
    def use_film_at_bottleneck(self) -> bool | None: ...
    @property
    def use_film_at_decoder(self) -> bool | None: ...
    @property
    def use_amplitude_output_modulation(self) -> bool | None: ...
    @property
    def constrained_outputs(self) -> bool | None: ...
    @property
    def least_squares_features(self) -> bool | None: ...
    @property
    def learned_variance(self) -> bool | None: ...


def build(config: ModelOptions, *, plds: Sequence[float], physics: Physics, statistics: Statistics) -> nn.Module:
    """The model that `config` describes, freshly initialised from torch's global generator.

    `plds` in ms and the nominal `physics` fix the number of channels and the dictionary of the homogeneous
    model. Raises `ConfigError` if an option that the architecture needs is null.
    """
    make = _homogeneous if config.architecture == "homogeneous" else _standardised
    return make(config, plds, physics, statistics)


def _homogeneous(config: ModelOptions, plds: Sequence[float], physics: Physics, statistics: Statistics) -> nn.Module:
    return HomogeneousASLNet(
        unit_dictionary(plds, physics),
        _given(config.hidden_sizes, "hidden_sizes", config),
        statistics=statistics,
        least_squares_features=_given(config.least_squares_features, "least_squares_features", config),
        learned_variance=_given(config.learned_variance, "learned_variance", config),
    )


def _standardised(config: ModelOptions, plds: Sequence[float], physics: Physics, statistics: Statistics) -> nn.Module:
    constrained = config.architecture == "dual_encoder" and _given(
        config.constrained_outputs, "constrained_outputs", config
    )
    return StandardisedModel(
        _network(config, len(plds)),
        channels=2 * len(plds),
        normalisation=_given(config.normalisation, "normalisation", config),
        statistics=statistics,
        constrained_outputs=constrained,
    )


def _network(config: ModelOptions, plds: int) -> nn.Module:
    match config.architecture:
        case "small_cnn":
            return SmallCNN(plds)
        case "matched_unet":
            return MatchedUNet(plds)
    sizes = _given(config.hidden_sizes, "hidden_sizes", config)
    learned_variance = _given(config.learned_variance, "learned_variance", config)
    if config.architecture == "spatial":
        first_norm = _given(config.first_norm, "first_norm", config)
        return SpatialASLNet(plds, sizes, first_norm=first_norm, learned_variance=learned_variance)
    if config.architecture == "dual_encoder":
        return DualEncoderSpatialASLNet(plds, sizes, learned_variance=learned_variance)
    modulate = config.use_amplitude_output_modulation
    return AmplitudeAwareSpatialASLNet(
        plds,
        sizes,
        use_film_at_bottleneck=_given(config.use_film_at_bottleneck, "use_film_at_bottleneck", config),
        use_film_at_decoder=_given(config.use_film_at_decoder, "use_film_at_decoder", config),
        use_amplitude_output_modulation=_given(modulate, "use_amplitude_output_modulation", config),
        learned_variance=learned_variance,
    )


def _given(value: T | None, key: str, config: ModelOptions) -> T:
    if value is None:
        raise ConfigError(f"model.{key}: got null, allowed a value with architecture {config.architecture}: choose one")
    return value
