"""The sections of the scanlines study's parameters but the network's, each with its own rules; open it for a key.

Field docstrings are the help text and the JSON Schema's descriptions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from assay.config.fields import Bounds, Incidental, Problem

FEWEST_POINTS = 16
"""Along a scan line."""
Share = Annotated[float, Bounds(ge=0, lt=1)]
Merge = Annotated[tuple[int, ...], Bounds(ge=0, items=2)]
SOURCES = {
    "simulated": ("images", "copies", "label_noise", "points"),
    "archive": ("file", "groups", "transpose"),
    "scans": ("file", "transpose", "points"),
}
"""The keys that each source of images reads; every other one must be null with it."""


def only_used(section: Any, uses: dict[str, tuple[str, ...]], name: str, kind: str) -> Iterator[Problem]:
    """Problems for keys that `kind` reads and that are null, and for those that it would ignore."""
    for key in sorted({key for keys in uses.values() for key in keys}):
        value = getattr(section, key)
        if key in uses[kind] and value is None:
            yield Problem(key, "null", f"a value with {name} {kind}", "choose one")
        if key not in uses[kind] and value is not None:
            yield Problem(key, str(value).lower(), f"null with {name} {kind}", "it would not be read")


def gaps(merge: tuple[int, ...]) -> Iterator[Problem]:
    """Problems of a merging that leaves a class empty, or one class alone."""
    if set(merge) != set(range(max(merge) + 1)):
        yield Problem("merge", str(list(merge)), "every number from 0 to the largest", "leave no class empty")
    elif max(merge) == 0:
        yield Problem("merge", str(list(merge)), "two classes or more", "of one alone every answer is right")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The images: where they come from, how they are labelled and split."""

    source: Literal["simulated", "archive", "scans"]
    """simulated: drawn here; archive: an npz file with `images` and `labels`; scans: microscope files in a table."""
    path: Annotated[str, Incidental()]
    """Folder of the data set that the simulate stage writes."""
    file: str | None
    """The npz file (archive), or a csv table with the columns file, label, group (scans)."""
    groups: str | None
    """Name of the npz file's array with the parent scan of each image (archive)."""
    transpose: bool | None
    """The file's scan lines are the columns of its images (archive, scans)."""
    images: Annotated[int, Bounds(ge=8)] | None
    """Images in the data set (simulated)."""
    copies: Annotated[int, Bounds(ge=1)] | None
    """Images of each parent scan, which differ in noise alone (simulated)."""
    label_noise: Share | None
    """Share of parents with a label drawn at random from the priors, of all but the test part (simulated)."""
    lines: Annotated[int, Bounds(ge=16)]
    """Scan lines of an image."""
    points: Annotated[int, Bounds(ge=FEWEST_POINTS)] | None
    """Points of a line; scans are averaged down to it (simulated, scans)."""
    seed: Annotated[int, Bounds(ge=0)]
    """Replicate of images, label noise and split; the same for every arm."""
    validation_fraction: Annotated[float, Bounds(gt=0, lt=1)]
    """Share of the groups on which checkpoints are chosen."""
    test_fraction: Annotated[float, Bounds(gt=0, lt=1)]
    """Share of the groups that only the validate stage sees, with clean labels."""
    split: Literal["group", "image"]
    """group: all images of a parent in one part; image: as published, copies of one scan on both sides."""
    merge: Merge
    """New label of each label of the file: [0, 1, 1, 2, 3, 3] merges six classes to four."""

    def conflicts(self) -> Iterator[Problem]:
        """Keys of other sources, parts that leave nothing, gaps in the classes."""
        yield from only_used(self, SOURCES, "source", self.source)
        held_out = self.validation_fraction + self.test_fraction
        if held_out >= 1:
            allowed = "less than 1 together with validation_fraction"
            yield Problem("test_fraction", f"{self.test_fraction:g}", allowed, "nothing would be left to train on")
        yield from gaps(self.merge)
        if self.split == "image" and self.copies == 1:
            remedy = "each image is a parent of its own"
            yield Problem("split", "image", "group with copies 1", remedy)
        if self.source == "simulated" and len(self.merge) != 6:
            yield Problem("merge", f"{len(self.merge)} labels", "6 with source simulated", "give [0, 1, 1, 2, 3, 3]")
        if self.images is not None and self.copies is not None and self.images % self.copies:
            yield Problem("copies", str(self.copies), f"divisors of images {self.images}")

    @property
    def classes(self) -> int:
        """Number of classes after merging: the network's outputs."""
        return max(self.merge) + 1


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """What training images go through; validation and test images stay as they are."""

    redraw: bool
    """Train on images that are simulated anew for every batch, on the training device; of the stored training images
    only the class counts are used then (source simulated)."""
    flip_horizontal: bool
    """Mirror every line with probability 0.5."""
    flip_vertical: bool
    """Reverse the order of the lines with probability 0.5; not for models that read them in order."""
    crop: Annotated[float, Bounds(ge=0, le=0.5)]
    """Largest share of each edge that is cut off, at random; the rest is stretched to the old size."""
    noise: Annotated[float, Bounds(ge=0)]
    """Largest sd of added white noise, in standard deviations of the line."""
    line_dropout: Share
    """Probability that a line is lost: it becomes constant."""
    line_gain: Annotated[float, Bounds(ge=0)]
    """sd of the logarithm of a gain per line."""
    line_offset: Annotated[float, Bounds(ge=0)]
    """sd of an offset per line, in standard deviations of the image."""
    truncate: Annotated[int, Bounds(ge=2)] | None
    """Least lines of a random truncation, the others being 0, as in the PyTorch reference; null for whole images."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The training objective."""

    class_weights: bool
    """Weight samples by N / (K n_k), from the counts of the training part."""
    label_smoothing: Share
    """Share of a label that is spread over all classes."""
    logit_adjustment: Annotated[float, Bounds(ge=0)]
    """Times the log prior is added to the logits while training (Menon et al. 2020, arXiv 2007.07314); 0 for none."""
    first_line: Annotated[int, Bounds(ge=1)] | None
    """Lines after which a read-out counts, for models that read out after each line; null for the others."""
    rising: bool | None
    """Weight of a read-out grows with its line; null for models with one read-out."""
    line_targets: Literal["image", "switch"] | None
    """Target of a read-out: the image's class, or the first surface's class until the tip changes; null with one."""

    def conflicts(self) -> Iterator[Problem]:
        """Two corrections for the same imbalance."""
        if self.class_weights and self.logit_adjustment > 0:
            given, allowed = f"{self.logit_adjustment:g}", "0 with class_weights true"
            yield Problem("logit_adjustment", given, allowed, "they correct the same imbalance")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Judgement on the test part, with clean labels where there are some."""

    lines_seen: Annotated[tuple[int, ...], Bounds(ge=2, items=1)]
    """Numbers of lines at which the curve is evaluated; the last is data.lines."""
    reference_lines: Annotated[int, Bounds(ge=2)]
    """The early point of the curve that is a metric of its own; one of lines_seen."""
    padding: Literal["zero", "tile"]
    """What fills the lines that a whole-image model has not seen: 0, or the seen ones again."""
    merge: Merge
    """Judged class of each of the network's: [0, 1, 1, 2, 3, 3] compares six outputs with four."""
    vote: Literal["mean", "majority"]
    """How the members of an ensemble decide: mean probability, or one vote each."""
    batch_size: Annotated[int, Bounds(ge=1), Incidental()]
    """Images per forward pass."""
    bins: Annotated[int, Bounds(ge=2)]
    """Confidence bins of the expected calibration error."""
    bootstrap: Annotated[int, Bounds(ge=100)]
    """Resamples of the test groups for 95 % intervals."""
    tolerance: Annotated[int, Bounds(ge=0)]
    """Lines between a reported and a true tip change that still count as a hit."""
    hold: Annotated[int, Bounds(ge=1)]
    """Lines for which a new state must stay before a change is reported."""
    change_from: Annotated[int, Bounds(ge=1)]
    """Lines that are read before a change can be reported."""
    template_angles: Annotated[int, Bounds(ge=1)]
    """Orientations of each reference image in the template-matching baseline, spread over 180 degrees."""
    device: Annotated[Literal["auto", "cpu", "cuda"], Incidental()]
    """Where to evaluate."""

    def conflicts(self) -> Iterator[Problem]:
        """Gaps in the judged classes; a curve out of order, or without its reference."""
        yield from gaps(self.merge)
        if list(self.lines_seen) != sorted(set(self.lines_seen)):
            yield Problem("lines_seen", str(list(self.lines_seen)), "numbers that increase", "sort them, drop repeats")
        if self.reference_lines not in self.lines_seen:
            allowed = f"one of lines_seen {list(self.lines_seen)}"
            yield Problem("reference_lines", str(self.reference_lines), allowed)


@dataclass(frozen=True, kw_only=True)
class LegacyConfig:
    """Published defects as switches, off by default."""

    weights_from_all: bool
    """Class weights from the labels of all parts: the test part's prevalence leaks."""


@dataclass(frozen=True, kw_only=True)
class WatchConfig:
    """Reading a scan while it is made."""

    model: Annotated[str, Incidental()]
    """Trained model."""
    lines_from: Annotated[str, Incidental()]
    """A text file that grows, a scan line of numbers per line; - for standard input."""
    idle_s: Annotated[float, Bounds(gt=0), Incidental()] | None
    """Seconds without a new line in the file after which the scan counts as finished; null: at the file's end."""
    confident: Annotated[float, Bounds(ge=0, le=1), Incidental()]
    """Least probability of a line's class to count for a change of state; a line below it begins the count anew."""
    hold: Annotated[int, Bounds(ge=1), Incidental()]
    """Lines for which a new state must stay before a tip change is reported."""
