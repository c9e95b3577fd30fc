"""The asl study at a size that takes a second, and a small BIDS data set of known truth."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from assay.config import load
from assay.studies.asl.config import Params
from assay.studies.asl.physics import pcasl_signal, vsasl_signal

PARAMS = Path(__file__).parents[3] / "params.yaml"
# 32 phantoms of 16 x 16, a small network, few steps
TINY = [
    "data.phantoms=32",
    "data.validation_phantoms=4",
    "data.image_size=16",
    "model.hidden_sizes=[8,16]",
    "train.steps=4",
    "train.batch_size=4",
    "train.log_every=2",
    "train.validate_every=2",
    "train.checkpoint_every=2",
    "train.device=cpu",
    "evaluation.phantoms=3",
    "evaluation.snr=[5,10]",
    "evaluation.bootstrap=100",
    "evaluation.families=[voronoi]",
    "evaluation.images=1",
    "evaluation.device=cpu",
    "sensitivity.phantoms=2",
    "sensitivity.null_seeds=2",
]


@pytest.fixture
def make_params(tmp_path: Path) -> Callable[..., Params]:
    """The committed parameters at a tiny size, with further `dotted.key=value` overrides."""

    def make(*overrides: str) -> Params:
        return load(Params, PARAMS, [*TINY, f"data.path={tmp_path / 'data'}", *overrides])

    return make


BIDS_PLDS = (500.0, 1500.0, 2500.0)
BIDS_SHAPE = (6, 5, 4)
BIDS_AFFINE = np.array([[3.0, 0, 0, -9], [0, 3.0, 0, 7], [0, 0, 5.0, 1], [0, 0, 0, 1]])


def ramp(low: float, high: float) -> np.ndarray:
    """A map (6, 5, 4) of which every voxel differs."""
    return np.linspace(low, high, math.prod(BIDS_SHAPE)).reshape(BIDS_SHAPE)


@dataclass
class BidsDataset:
    """Writes ASL images whose dM/M0 is the model signal of `cbf` and `att`; a test may spoil them."""

    root: Path
    plds: tuple[float, ...] = BIDS_PLDS
    repeats: int = 1
    volumes: str = "label first"
    m0: str = "Separate"
    cbf: np.ndarray = field(default_factory=lambda: ramp(20, 90))
    att: np.ndarray = field(default_factory=lambda: ramp(2200, 700))
    m0_map: np.ndarray = field(default_factory=lambda: ramp(800, 1200))

    def signal(self, kind: str) -> np.ndarray:
        """True dM/M0 (X, Y, Z, P)."""
        model = {"pcasl": pcasl_signal, "vsasl": vsasl_signal}[kind]
        return model(torch.from_numpy(self.cbf)[..., None], torch.from_numpy(self.att)[..., None], self.plds).numpy()

    def write(self, kind: str = "pcasl", *, stem: str = "sub-01", folder: str = "sub-01/perf", **sidecar: Any) -> Path:
        """Write one ASL image with sidecar, context and M0; a sidecar value of None removes the key."""
        perf = self.root / folder
        data, context, delays = self._volumes(kind)
        self.write_image(perf / f"{stem}_asl.nii.gz", data)
        (perf / f"{stem}_aslcontext.tsv").write_text("\n".join(["volume_type", *context]) + "\n")
        values = self._sidecar(kind, delays) | sidecar
        kept = {key: value for key, value in values.items() if value is not None}
        (perf / f"{stem}_asl.json").write_text(json.dumps(kept))
        if self.m0 == "Separate":
            self.write_image(perf / f"{stem}_m0scan.nii.gz", np.stack([self.m0_map * 0.9, self.m0_map * 1.1], -1))
            intended = {"IntendedFor": f"bids::{folder}/{stem}_asl.nii.gz"}
            (perf / f"{stem}_m0scan.json").write_text(json.dumps(intended))
        return perf

    def write_joint(self, *, folder: str = "sub-01/perf", subject: str = "sub-01") -> Path:
        """A PCASL and a VSASL image of the same subject."""
        self.write("pcasl", stem=f"{subject}_acq-pcasl", folder=folder)
        return self.write("vsasl", stem=f"{subject}_acq-vsasl", folder=folder)

    def write_image(self, path: Path, data: np.ndarray, affine: np.ndarray = BIDS_AFFINE) -> None:
        """Write a NIfTI image in double precision."""
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(np.asarray(data, dtype=np.float64), affine), path)

    def edit(self, path: Path, **changes: Any) -> None:
        """Change keys of a JSON file."""
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    def _volumes(self, kind: str) -> tuple[np.ndarray, list[str], list[float]]:
        """Volumes with the longest delay first, once per repeat, and their types and delays (s)."""
        m0 = self.m0_map * (0.9 if self.m0 == "Estimate" else 1.0)
        signal = self.signal(kind) * m0[..., None]
        pair = {"label first": ("label", "control"), "control first": ("control", "label")}
        images, context, delays = [], [], []
        if self.m0 == "Included":
            images, context, delays = [self.m0_map], ["m0scan"], [0.0]
        for repeat in range(self.repeats):
            wobble = 1.0 + 0.1 * (repeat - (self.repeats - 1) / 2)  # averages to one over the repeats
            for index in reversed(range(len(self.plds))):
                deltam = wobble * signal[..., index]
                volumes = {"control": m0 * 0.4, "label": m0 * 0.4 - deltam, "deltam": deltam}
                for name in pair.get(self.volumes, ("deltam",)):
                    images.append(volumes[name])
                    context.append(name)
                    delays.append(self.plds[index] / 1000)
        return np.stack(images, -1), context, delays

    def _sidecar(self, kind: str, delays: list[float]) -> dict[str, Any]:
        values: dict[str, Any] = {
            "PostLabelingDelay": delays,
            "BackgroundSuppression": True,
            "BackgroundSuppressionNumberPulses": 2,
            "M0Type": self.m0,
            "LabelingEfficiency": {"pcasl": 0.85, "vsasl": 0.56}[kind],
        }
        if self.m0 == "Estimate":
            values["M0Estimate"] = 1000.0
        if kind == "vsasl":
            return values | {"AssayLabelingType": "VSASL"}
        return values | {"ArterialSpinLabelingType": "PCASL", "LabelingDuration": 1.8}


@pytest.fixture
def bids_dataset(tmp_path: Path) -> Callable[..., BidsDataset]:
    """A factory of BIDS data sets with known truth, in the `raw` folder of the test's temporary folder."""

    def make(**options: Any) -> BidsDataset:
        root = tmp_path / "raw"
        root.mkdir(exist_ok=True)
        (root / "dataset_description.json").write_text('{"Name": "known truth", "BIDSVersion": "1.10.0"}')
        return BidsDataset(root=root, **options)

    return make
