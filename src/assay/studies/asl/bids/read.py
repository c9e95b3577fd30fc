"""Reads a BIDS folder of ASL data into series of dM/M0; open it to see what is joined and what is refused."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from assay.errors import ConfigError, DataError
from assay.studies.asl.bids.acquisition import Acquisition, read_acquisition
from assay.studies.asl.bids.images import (
    Calibration,
    Image,
    Perfusion,
    average_pairs,
    calibrate,
    read_image,
    require_same_grid,
    sha256_of,
)
from assay.studies.asl.bids.layout import AslGroup, find_groups, parse_name
from assay.studies.asl.bids.series import AslSeries, Labelling, Source


@dataclass(frozen=True, kw_only=True, eq=False)
class _Measurement:
    """One ASL image with everything needed to quantify it."""

    image: Image
    acquisition: Acquisition
    perfusion: Perfusion
    calibration: Calibration

    def difference(self) -> NDArray[np.float64]:
        return self.perfusion.difference / self.calibration.divisor[..., np.newaxis]

    def noise_variance(self) -> float | None:
        """Mean variance of dM/M0 over the mask and the delays, from the spread of repeats."""
        if self.perfusion.variance is None:
            return None
        relative = self.perfusion.variance / self.calibration.divisor[..., np.newaxis] ** 2
        return float(relative[self.calibration.mask].mean())

    def labelling(self) -> Labelling:
        return Labelling(
            kind=self.acquisition.kind,
            plds=self.perfusion.plds,
            label_duration=self.acquisition.label_duration,
            efficiency=self.acquisition.efficiency,
            background_suppression_pulses=self.acquisition.background_suppression_pulses,
            slice_times=self.acquisition.slice_times,
            repeats=self.perfusion.repeats,
        )

    def files(self) -> tuple[Path, ...]:
        return (self.image.path, *self.acquisition.files, *self.calibration.files)


def read_asl(folder: Path, *, mask_threshold: float = 0.2) -> list[AslSeries]:
    """Read every ASL series of a BIDS data set, or of one subject, session or perf folder.

    An `acq-pcasl` and an `acq-vsasl` image of the same session and run are joined into one series, PCASL
    channels first. Repeats at the same PLD are averaged. `mask_threshold` is the share of the robust maximum
    of M0 above which a voxel belongs to the head.

    Raises:
        DataError: anything missing, damaged, contradictory or beyond the study's models; one line each.
        ConfigError: `mask_threshold` is not between 0 and 1.
    """
    if not 0.0 < mask_threshold < 1.0:
        raise ConfigError(f"mask_threshold is {mask_threshold}; allowed: above 0 and below 1; correct it")
    return [_read_group(group, mask_threshold) for group in find_groups(folder)]


def _read_group(group: AslGroup, mask_threshold: float) -> AslSeries:
    measurements = [_measure(path, group.root, mask_threshold) for path in group.images]
    first = measurements[0]
    for other in measurements[1:]:
        _require_joinable(other, first)
    mask = np.logical_and.reduce([each.calibration.mask for each in measurements])
    if not mask.any():
        raise DataError(f"{group.images[0]}: the mask is empty; allowed: a head in view; check M0")
    signal = np.concatenate([each.difference() for each in measurements], axis=-1)
    return AslSeries(
        root=group.root,
        folder=group.folder,
        name=group.name,
        difference=signal.astype(np.float32),
        noise=_noise(measurements),
        labellings=tuple(each.labelling() for each in measurements),
        m0=first.calibration.m0.astype(np.float32),
        mask=mask,
        affine=first.image.affine,
        header=first.image.header,
        sources=_sources(measurements, group.root),
    )


def _measure(path: Path, root: Path, mask_threshold: float) -> _Measurement:
    image = read_image(path)
    *_, slices, volumes = image.data.shape
    acquisition = read_acquisition(path, root, volumes=volumes, slices=slices)
    _require_named_kind(path, acquisition)
    return _Measurement(
        image=image,
        acquisition=acquisition,
        perfusion=average_pairs(image, acquisition),
        calibration=calibrate(image, acquisition, root, mask_threshold=mask_threshold),
    )


def _require_named_kind(path: Path, acquisition: Acquisition) -> None:
    name = parse_name(path.name)
    named = name.get("acq") if name else None
    if named in ("pcasl", "vsasl") and named != acquisition.kind:
        fix = 'rename it, or give "AssayLabelingType": "VSASL" if it is velocity-selective'
        raise DataError(f"{path}: acq-{named} but the sidecar says {acquisition.kind}; allowed: the same; {fix}")


def _require_joinable(other: _Measurement, first: _Measurement) -> None:
    require_same_grid(other.image, first.image)
    if other.perfusion.plds != first.perfusion.plds:
        raise DataError(
            f"{other.image.path}: PostLabelingDelay gives {list(other.perfusion.plds)} ms; allowed: "
            f"{list(first.perfusion.plds)} ms as {first.image.path.name}; leave out delays of only one"
        )


def _noise(measurements: list[_Measurement]) -> float | None:
    variances = [each.noise_variance() for each in measurements]
    known = [variance for variance in variances if variance is not None]
    return float(np.sqrt(np.mean(known))) if len(known) == len(variances) else None


def _sources(measurements: list[_Measurement], root: Path) -> tuple[Source, ...]:
    paths = dict.fromkeys(path for each in measurements for path in each.files())
    return tuple(Source(path=path.relative_to(root).as_posix(), sha256=sha256_of(path)) for path in paths)
