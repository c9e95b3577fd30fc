"""The scanlines study at a size that takes a second: 64 scans of 16 lines, a causal encoder of one block."""

from collections.abc import Callable
from pathlib import Path

import pytest

from assay.config import load
from assay.studies.scanlines.config import Params

PARAMS = Path(__file__).parents[3] / "studies/scanlines/params.yaml"
TINY = [
    "data.images=64",
    "data.lines=16",
    "data.points=24",
    "data.validation_fraction=0.2",
    "data.test_fraction=0.3",
    "model.d_model=8",
    "model.layers=1",
    "model.heads=2",
    "model.ffn_dim=8",
    "loss.first_line=4",
    "train.steps=6",
    "train.batch_size=8",
    "train.log_every=2",
    "train.validate_every=2",
    "train.checkpoint_every=2",
    "train.device=cpu",
    "evaluation.lines_seen=[2,8,16]",
    "evaluation.reference_lines=8",
    "evaluation.bootstrap=100",
    "evaluation.change_from=4",
    "evaluation.template_angles=2",
    "evaluation.device=cpu",
]
NO_TOKENS = [
    f"model.{key}=null"
    for key in ("tokenizer", "d_model", "layers", "heads", "ffn_dim", "positions", "line_statistics", "backend")
]
ARCHIVE = [
    "data.source=archive",
    "data.file=own.npz",
    "data.groups=parent",
    "data.transpose=false",
    "data.images=null",
    "data.copies=null",
    "data.label_noise=null",
    "data.points=null",
    "data.merge=[0,1,2]",
    "evaluation.merge=[0,1,2]",
    "loss.line_targets=image",
]
ONE_LABEL = ["loss.first_line=null", "loss.rising=null", "loss.line_targets=null"]
ARCHITECTURES = {
    "causal": [],
    "line_encoder": ["model.tokenizer=linear", "model.mask_padding=true", "model.positions=learned", *ONE_LABEL],
    "cnn": [*NO_TOKENS, "model.widths=[4,8]", *ONE_LABEL],
    "paper_cnn": [*NO_TOKENS, *ONE_LABEL],
    "single_line": [*NO_TOKENS, "model.widths=[4,8]"],
    "lrcn": [
        *NO_TOKENS,
        "model.widths=[4,8]",
        "model.window=6",
        "model.window_stride=2",
        "model.read_out=lstm",
    ],
}


def choose(architecture: str) -> list[str]:
    """The overrides that make the tiny parameters those of an architecture."""
    return [f"model.architecture={architecture}", *ARCHITECTURES[architecture]]


@pytest.fixture
def make_params(tmp_path: Path, monkeypatch) -> Callable[..., Params]:
    """The committed parameters at a tiny size, with further `dotted.key=value` overrides; results go to `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def make(*overrides: str) -> Params:
        return load(Params, PARAMS, [*TINY, *overrides])

    return make
