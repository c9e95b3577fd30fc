"""What one ASL image was acquired with, from sidecar and aslcontext; open it when metadata is refused.

BIDS has no value for velocity-selective labelling. The extension used here: the sidecar of a VSASL image has
`"AssayLabelingType": "VSASL"` and no `ArterialSpinLabelingType`, since any of its values would make other
software quantify the data with the wrong model; `PostLabelingDelay` is then the delay after the
velocity-selective module.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from assay.errors import DataError
from assay.studies.asl.bids.layout import inherited
from assay.studies.asl.bids.sidecar import Sidecar, read_lines, read_sidecar, short

LabellingKind = Literal["pcasl", "vsasl"]
M0Type = Literal["Separate", "Included", "Estimate"]

VOLUME_TYPES = ("control", "label", "deltam", "m0scan", "cbf", "noRF", "n/a")
PERFUSION_TYPES = ("control", "label", "deltam")
EXTENSION_KEY = "AssayLabelingType"


@dataclass(frozen=True, kw_only=True)
class Acquisition:
    """What the metadata says about one ASL image, checked against its number of volumes. Times in ms.

    `plds` has one entry per volume, NaN where the volume is no control, label or deltam. `label_duration` is
    None for VSASL, which has no bolus of fixed length. `slice_times` are delays of slices 0, 1, ... along the
    third axis.
    """

    kind: LabellingKind
    volume_types: tuple[str, ...]
    plds: tuple[float, ...]
    label_duration: float | None
    efficiency: float | None
    background_suppression_pulses: int | None
    slice_times: tuple[float, ...] | None
    m0_type: M0Type
    m0_estimate: float | None
    files: tuple[Path, ...]


def read_acquisition(image: Path, root: Path, *, volumes: int, slices: int) -> Acquisition:
    """Read and check the sidecar and aslcontext of an ASL image of `volumes` volumes and `slices` slices.

    Raises:
        DataError: anything missing, contradictory, out of range, in the wrong unit, or beyond the study's
            models.
    """
    sidecar = read_sidecar(image, root, suffix="asl")
    if not sidecar.files:
        raise DataError(f"{image}: no JSON sidecar; expected {image.name.partition('.')[0]}.json; add it")
    _refuse_look_locker(sidecar)
    context, volume_types = _read_context(image, root, volumes)
    kind = _labelling_kind(sidecar)
    m0_type = _m0_type(sidecar)
    return Acquisition(
        kind=kind,
        volume_types=volume_types,
        plds=_volume_plds(sidecar, volume_types),
        label_duration=_label_duration(sidecar, volume_types) if kind == "pcasl" else None,
        efficiency=sidecar.number("LabelingEfficiency", above=0.0, at_most=1.0),
        background_suppression_pulses=_suppression_pulses(sidecar),
        slice_times=_slice_times(sidecar, slices),
        m0_type=m0_type,
        m0_estimate=_m0_estimate(sidecar) if m0_type == "Estimate" else None,
        files=(*sidecar.files, context),
    )


def _labelling_kind(sidecar: Sidecar) -> LabellingKind:
    """CASL and PCASL share one kinetic model; VSASL needs the extension key, as BIDS has no value for it."""
    if EXTENSION_KEY not in sidecar.values:
        value = sidecar.required("ArterialSpinLabelingType", "PCASL, CASL")
        if value not in ("PCASL", "CASL"):
            fix = f'there is no {value} model here; for velocity-selective data give "{EXTENSION_KEY}": "VSASL"'
            raise sidecar.refusal("ArterialSpinLabelingType", value, "PCASL, CASL", fix)
        return "pcasl"
    sidecar.choice(EXTENSION_KEY, ("VSASL",))
    if "ArterialSpinLabelingType" in sidecar.values:
        got = sidecar.values["ArterialSpinLabelingType"]
        fix = "remove it: other software would quantify the velocity-selective data with that model"
        raise sidecar.refusal("ArterialSpinLabelingType", got, f"absent beside {EXTENSION_KEY} VSASL", fix)
    return "vsasl"


def _refuse_look_locker(sidecar: Sidecar) -> None:
    value = sidecar.values.get("LookLocker", False)
    if value is not False:
        raise sidecar.refusal("LookLocker", value, "false", "the kinetic models have no Look-Locker read-out")


def _m0_type(sidecar: Sidecar) -> M0Type:
    value = sidecar.required("M0Type", "Separate, Included, Estimate")
    if value == "Separate" or value == "Included" or value == "Estimate":
        return value
    fix = "CBF needs M0: add an m0scan image, or M0Estimate with M0Type Estimate"
    raise sidecar.refusal("M0Type", value, "Separate, Included, Estimate", fix)


def _m0_estimate(sidecar: Sidecar) -> float | None:
    sidecar.required("M0Estimate", "a number above 0 when M0Type is Estimate")
    return sidecar.number("M0Estimate", above=0.0)


def _suppression_pulses(sidecar: Sidecar) -> int | None:
    suppressed = sidecar.required("BackgroundSuppression", "true, false")
    if not isinstance(suppressed, bool):
        raise sidecar.refusal("BackgroundSuppression", suppressed, "true, false", "correct the sidecar")
    if not suppressed:
        return 0
    key = "BackgroundSuppressionNumberPulses"
    pulses = sidecar.values.get(key)
    if pulses is not None and (not isinstance(pulses, int) or isinstance(pulses, bool) or pulses < 0):
        raise sidecar.refusal(key, pulses, "a whole number from 0", "correct the sidecar")
    return pulses


def _per_volume(sidecar: Sidecar, key: str, volumes: int) -> list[float]:
    times = sidecar.milliseconds(key)
    if not isinstance(times, list):
        return [times] * volumes
    if len(times) != volumes:
        fix = "repeat the value of each volume in the order of aslcontext.tsv"
        got = f"a list of {len(times)}"
        raise sidecar.refusal(key, got, f"one number, or {volumes} (one per volume of the image)", fix)
    return times


def _volume_plds(sidecar: Sidecar, volume_types: tuple[str, ...]) -> tuple[float, ...]:
    key = "PostLabelingDelay"
    delays = _per_volume(sidecar, key, len(volume_types))
    perfused = [kind in PERFUSION_TYPES for kind in volume_types]
    if any(used and delay <= 0 for used, delay in zip(perfused, delays, strict=True)):
        raise sidecar.refusal(key, 0, "above 0 for control, label and deltam volumes", "correct the sidecar")
    return tuple(delay if used else math.nan for used, delay in zip(perfused, delays, strict=True))


def _label_duration(sidecar: Sidecar, volume_types: tuple[str, ...]) -> float:
    durations = _per_volume(sidecar, "LabelingDuration", len(volume_types))
    labelled = {duration for kind, duration in zip(volume_types, durations, strict=True) if kind in PERFUSION_TYPES}
    if len(labelled) != 1 or min(labelled) <= 0:
        fix = "split a series of several label durations into one image each"
        raise sidecar.refusal("LabelingDuration", sorted(labelled), "one duration above 0", fix)
    return labelled.pop()


def _slice_times(sidecar: Sidecar, slices: int) -> tuple[float, ...] | None:
    if "SliceTiming" not in sidecar.values:
        return None
    direction = sidecar.values.get("SliceEncodingDirection", "k")
    if direction not in ("k", "k-"):
        raise sidecar.refusal("SliceEncodingDirection", direction, "k, k-", "store slices on the third axis")
    times = sidecar.milliseconds("SliceTiming", "seconds: one per slice")
    if not isinstance(times, list) or len(times) != slices:
        got = f"a list of {len(times)}" if isinstance(times, list) else times
        raise sidecar.refusal("SliceTiming", got, f"a list of {slices}, one per slice", "correct it")
    return tuple(times if direction == "k" else times[::-1])


def _read_context(image: Path, root: Path, volumes: int) -> tuple[Path, tuple[str, ...]]:
    files = inherited(image, root, suffix="aslcontext", extension=".tsv")
    if not files:
        expected = image.name.partition(".")[0].removesuffix("asl") + "aslcontext.tsv"
        raise DataError(f"{image}: aslcontext is missing; expected {expected} with a volume_type per volume; add it")
    path = files[-1]
    header, *rows = read_lines(path) or [""]
    columns = header.split("\t")
    if "volume_type" not in columns:
        raise DataError(f"{path}: columns are {columns}; allowed: volume_type; name it in the first line")
    column = columns.index("volume_type")
    kinds = tuple((row.split("\t") + [""] * len(columns))[column].strip() for row in rows)
    if len(kinds) != volumes:
        raise DataError(
            f"{path}: {len(kinds)} rows for {volumes} volumes of {image.name}; allowed: one row per volume; "
            "add or remove rows, or convert the image again"
        )
    for row, kind in enumerate(kinds, start=2):
        if kind not in VOLUME_TYPES:
            raise DataError(
                f"{path}: volume_type is {short(kind)} in line {row}; allowed: {', '.join(VOLUME_TYPES)}; correct it"
            )
    if not set(kinds).intersection(PERFUSION_TYPES):
        raise DataError(f"{path}: no control, label or deltam volume; allowed: raw ASL; add the raw image")
    return path, kinds
