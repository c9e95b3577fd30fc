"""The sections of the asl study's parameters, each with its own rules; open it for a key, its unit and its range.

Field docstrings are the help text and the JSON Schema's descriptions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from assay.config.fields import Bounds, Incidental, Problem

Range = Annotated[tuple[float, float], Bounds(ge=0)]
Positive = Annotated[float, Bounds(gt=0)]
Fraction = Annotated[float, Bounds(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Simulated brains: where they come from and what they look like."""

    source: Literal["disk", "simulated"]
    """disk: a data set written by the simulate stage, memory-mapped; simulated: drawn on the device while training."""
    path: Annotated[str, Incidental()]
    """Folder of the data set."""
    phantoms: Annotated[int, Bounds(ge=4)]
    """Phantoms in the data set (disk), or per nominal epoch (simulated)."""
    validation_phantoms: Annotated[int, Bounds(ge=1)]
    """Phantoms held out of training for the validation loss."""
    image_size: Annotated[int, Bounds(ge=16)]
    """Edge of a phantom in pixels."""
    ranges: Literal["published", "wide"]
    """Perfusion and transit times per tissue: those of the published study, or physiologically wider ones."""
    lesions: bool
    """Whether phantoms may carry a tumour or a stroke."""
    blur_sigma: Annotated[float, Bounds(ge=0)]
    """Partial-volume blur of the maps, standard deviation in pixels."""

    def conflicts(self) -> Iterator[Problem]:
        """A validation set as large as the data set leaves nothing to train on."""
        if self.source == "disk" and self.validation_phantoms >= self.phantoms:
            allowed = f"less than data.phantoms ({self.phantoms})"
            yield Problem("validation_phantoms", str(self.validation_phantoms), allowed)


@dataclass(frozen=True, kw_only=True)
class PhysicsConfig:
    """The signal model: acquisition and blood."""

    plds: Annotated[tuple[float, ...], Bounds(gt=0, items=2)]
    """Post-labelling delays, ms, increasing; both sequences use the same."""
    t1_artery: Positive
    """Longitudinal relaxation time of arterial blood, ms."""
    label_duration: Positive
    """PCASL label duration, ms."""
    alpha_pcasl: Annotated[float, Bounds(gt=0, le=1)]
    """PCASL labelling efficiency."""
    alpha_vsasl: Annotated[float, Bounds(gt=0, le=1)]
    """VSASL labelling efficiency."""
    alpha_bs: Annotated[float, Bounds(gt=0, le=1)]
    """Inversion efficiency of one background-suppression pulse; 1 without suppression."""
    partition: Positive
    """Blood-brain partition coefficient, ml/g."""
    t2_factor: Positive
    """Signal factor for T2 decay and crushers."""
    recovery: Positive
    """VSASL saturation-recovery factor."""
    randomise: Literal["none", "baseline", "extended"]
    """Draw T1, efficiencies and label duration anew for each phantom, from these ranges."""

    def conflicts(self) -> Iterator[Problem]:
        """Delays out of order."""
        if any(later <= earlier for earlier, later in zip(self.plds, self.plds[1:], strict=False)):
            yield Problem("plds", str(list(self.plds)), "delays that increase (ms)", "sort them, drop repeats")


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Symmetries of the training images; the validation images stay as they are."""

    flips: bool
    """Mirror each axis with probability 0.5."""
    rotations: bool
    """Turn by 90, 180 or 270 degrees, each with probability 0.25."""


@dataclass(frozen=True, kw_only=True)
class NoiseConfig:
    """Noise on the difference signal, in the signal's own unit."""

    model: Literal["gaussian", "rician", "control_label"]
    """Thermal noise: Gaussian; Rician on the difference (as published); Rician on control and label, subtracted."""
    snr: Annotated[tuple[float, float], Bounds(gt=0)]
    """Training SNR before channel_factor, a range: white-matter signal (CBF 20, ATT 1500, PLD 2000) over noise sd."""
    snr_per: Literal["image", "voxel"]
    """Draw one SNR per image or one per voxel."""
    channel_factor: Literal["none", "scan_time", "inverse"]
    """Noise factor for scan time, by which SNR is divided: none; sqrt(4000 ms / total); sqrt(total / 4500 ms)."""
    physio: Range
    """Range of the amplitude of a sinusoidal fluctuation, in noise standard deviations."""
    drift: Annotated[float, Bounds(ge=0)]
    """Largest slope of a linear drift, in noise standard deviations."""
    spike_probability: Fraction
    """Probability that a sample carries a spike."""
    spike_magnitude: Range
    """Range of the spike height, in noise standard deviations."""

    def conflicts(self) -> Iterator[Problem]:
        """Ranges upside down; spikes that never come."""
        if self.spike_probability == 0 and self.spike_magnitude != (0, 0):
            yield Problem("spike_magnitude", str(list(self.spike_magnitude)), "[0, 0] with spike_probability 0")
        for key in ("snr", "physio", "spike_magnitude"):
            low, high = getattr(self, key)
            if low > high:
                yield Problem(key, str([low, high]), "lower end first", f"give [{high:g}, {low:g}]")


Flag = bool | None
UNETS = ("homogeneous", "spatial", "amplitude_aware", "dual_encoder")
FLAGS: dict[str, tuple[str, ...]] = {
    "homogeneous": ("learned_variance", "least_squares_features"),
    "spatial": ("learned_variance", "first_norm", "normalisation"),
    "amplitude_aware": (
        "learned_variance",
        "normalisation",
        "use_film_at_bottleneck",
        "use_film_at_decoder",
        "use_amplitude_output_modulation",
    ),
    "dual_encoder": ("learned_variance", "normalisation", "constrained_outputs"),
    "small_cnn": ("normalisation",),
    "matched_unet": ("normalisation",),
}
"""The options that each architecture reads; every other option must be null with it."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network. An option that the architecture does not have must be null."""

    architecture: Literal["homogeneous", "spatial", "amplitude_aware", "dual_encoder", "small_cnn", "matched_unet"]
    """Network family; homogeneous scales exactly with the signal."""
    hidden_sizes: Annotated[tuple[int, ...], Bounds(ge=8, items=2)] | None
    """Channels of each resolution level, finest first, multiples of 8; null for small_cnn and matched_unet."""
    normalisation: Literal["global_scale", "per_curve"] | None
    """Input scaling: x1000, or each voxel's curve to zero mean and unit sd (loses CBF); null for homogeneous."""
    first_norm: Flag
    """spatial: GroupNorm in the first encoder block (removes the global amplitude)."""
    use_film_at_bottleneck: Flag
    """amplitude_aware: modulate the bottleneck by amplitude features (FiLM)."""
    use_film_at_decoder: Flag
    """amplitude_aware: modulate the three decoder blocks by amplitude features (FiLM)."""
    use_amplitude_output_modulation: Flag
    """amplitude_aware: multiply the CBF output by the image's mean signal."""
    constrained_outputs: Flag
    """dual_encoder: softplus CBF and sigmoid ATT in physical units."""
    least_squares_features: Flag
    """homogeneous: feed per-voxel least-squares maps beside the signal."""
    learned_variance: Flag
    """Trained log-variance outputs, for the negative log-likelihood."""

    def conflicts(self) -> Iterator[Problem]:
        """Options that the architecture does not read, or that it needs."""
        used = FLAGS[self.architecture]
        for key in sorted({flag for flags in FLAGS.values() for flag in flags}):
            value = getattr(self, key)
            if key not in used and value is not None:
                given = str(value).lower()
                yield Problem(key, given, f"null with architecture {self.architecture}", "it would not be read")
            if key in used and value is None:
                yield Problem(key, "null", f"a value with architecture {self.architecture}", "choose one")
        yield from self._width_conflicts()

    def _width_conflicts(self) -> Iterator[Problem]:
        sizes = self.hidden_sizes
        if self.architecture in UNETS and sizes is None:
            yield Problem("hidden_sizes", "null", f"a list with architecture {self.architecture}", "give [32, 64, 128]")
        if self.architecture not in UNETS and sizes is not None:
            yield Problem("hidden_sizes", str(list(sizes)), f"null with architecture {self.architecture}")
        if sizes is not None and any(size % 8 for size in sizes):
            yield Problem("hidden_sizes", str(list(sizes)), "multiples of 8 (the group count of GroupNorm)")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The training objective: a weighted sum of named terms."""

    kind: Literal["l1", "l2", "huber"]
    """Penalty on the standardised error."""
    cbf_weight: Annotated[float, Bounds(ge=0)]
    """Weight of the CBF error."""
    att_weight: Annotated[float, Bounds(ge=0)]
    """Weight of the ATT error; multiplied by att_scale."""
    att_scale: Annotated[float, Bounds(ge=0)]
    """Second factor on the ATT error (0.033 as published)."""
    variance_weight: Annotated[float, Bounds(ge=0)]
    """Weight of the penalty on predictions that vary less than the truth."""
    dc_weight: Annotated[float, Bounds(ge=0)]
    """Weight of the data-consistency term: signal of the predicted maps against the input."""
    nll_weight: Annotated[float, Bounds(ge=0)]
    """Weight of the negative log-likelihood; needs model.learned_variance."""
    mask_percentile: Annotated[float, Bounds(ge=0, lt=100)]
    """Voxels below this percentile of the image's mean absolute signal do not count."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Comparison with least squares on held-out phantoms, paired voxel by voxel."""

    phantoms: Annotated[int, Bounds(ge=2)]
    """Held-out phantoms per SNR."""
    snr: Annotated[tuple[float, ...], Bounds(gt=0, items=1)]
    """SNR levels; Gaussian noise without channel factors."""
    reference_snr: Positive
    """The level whose figures are the study's metrics; one of snr."""
    families: tuple[Literal["voronoi", "brain"], ...]
    """Phantom families: voronoi as trained on; brain is the digital reference object of asldro."""
    cbf_max: Annotated[float, Bounds(gt=0, le=200)]
    """Upper CBF bound of least squares, ml/100 g/min; every estimate is clamped to 200."""
    smoothing_sigma: Annotated[float, Bounds(gt=0)]
    """Standard deviation, pixels, of the smoothing in the spatial least-squares baseline."""
    bootstrap: Annotated[int, Bounds(ge=100)]
    """Resamples of phantoms for the 95 % intervals."""
    images: Annotated[int, Bounds(ge=0)]
    """Phantoms shown as pictures."""
    device: Annotated[Literal["auto", "cpu", "cuda"], Incidental()]
    """Where to evaluate; auto takes a GPU if there is one."""

    def conflicts(self) -> Iterator[Problem]:
        """A reference level that is not evaluated; a study without the phantoms it was trained on; repeats."""
        for key in ("snr", "families"):
            values = getattr(self, key)
            if len(set(values)) < len(values):
                yield Problem(key, str(list(values)), "each value once", "drop repeats")
        if self.reference_snr not in self.snr:
            yield Problem("reference_snr", f"{self.reference_snr:g}", f"one of evaluation.snr {list(self.snr)}")
        if "voronoi" not in self.families:
            yield Problem("families", str(list(self.families)), "a list that contains voronoi")


@dataclass(frozen=True, kw_only=True)
class SensitivityConfig:
    """Does the prediction follow the signal's amplitude?"""

    phantoms: Annotated[int, Bounds(ge=2)]
    """Held-out phantoms."""
    scales: Annotated[tuple[float, ...], Bounds(gt=0, lt=200, items=3)]
    """Factors on signal and noise; must contain 1. Voxels of CBF from 1 to 200 over the largest count."""
    snr: Positive
    """SNR at scale 1."""
    null_seeds: Annotated[int, Bounds(ge=1)]
    """Untrained networks that form the null."""

    def conflicts(self) -> Iterator[Problem]:
        """Scales without the reference, or out of order."""
        if 1 not in self.scales or list(self.scales) != sorted(set(self.scales)):
            yield Problem("scales", str(list(self.scales)), "increasing factors that contain 1")


@dataclass(frozen=True, kw_only=True)
class LegacyConfig:
    """Defects of the published study, each a switch, so that its numbers can be explained."""

    mispaired_evaluation: bool
    """Score least squares at every 10th voxel against the first voxels instead of the same ones."""
    weak_noise: bool
    """Train with noise a hundred times weaker than the SNR says."""
    inactive_randomisation: bool
    """Accept physics.randomise but do not apply it."""
    steps_per_epoch: Annotated[int, Bounds(ge=1)] | None
    """Cut or stretch an epoch to this many steps whatever the data size (1000 as published)."""
    published_sensitivity: bool
    """Also run the published amplitude test, which untrained networks pass."""
    published_statistics: bool
    """Standardise targets by uniform draws (CBF 20-100, ATT 500-3000) instead of the training data."""
    mismatched_consistency: bool
    """Compare signals that differ by a factor of ten in the data-consistency term."""


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """A trained model on measured data."""

    bids: Annotated[str, Incidental()] | None
    """BIDS ASL folder to read; needed by the predict stage."""
    output: Annotated[str, Incidental()] | None
    """Folder of BIDS derivatives to write; needed by the predict stage."""
    model: Annotated[str, Incidental()]
    """Folder of the trained model."""
