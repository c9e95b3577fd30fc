"""The burgers study at a size that takes a second: 12 trajectories of 11 frames on 32 cells, networks of one block."""

from collections.abc import Callable
from pathlib import Path

import pytest

from assay.config import load
from assay.studies.burgers.config import Params

PARAMS = Path(__file__).parents[3] / "studies/burgers/params.yaml"
TRAINED = ("autoencoder.train", "train", "corrector.train", "distillation.train")
BUDGET = ["steps=4", "batch_size=4", "log_every=2", "validate_every=2", "checkpoint_every=2", "device=cpu"]
TINY = [
    "data.training=6",
    "data.validation=2",
    "data.test=4",
    "data.cells=32",
    "data.cells_internal=64",
    "data.frames=11",
    "data.stride=2",
    "model.tokens=8",
    "model.latent_dim=8",
    "model.hidden_dim=8",
    "model.depth=[1]",
    "model.heads=2",
    "fno.modes=4",
    "fno.width=8",
    "fno.layers=1",
    "corrector.tokens=8",
    "corrector.hidden_dim=8",
    "corrector.depth=1",
    "corrector.heads=2",
    "corrector.sampler_steps=2",
    "corrector.members=2",
    "evaluation.coarse_cells=[8,16]",
    "evaluation.bootstrap=100",
    "evaluation.images=1",
    "evaluation.device=cpu",
    "search.trajectories=2",
    "search.candidates=2",
    "search.max_evaluations=50",
    *(f"{section}.{key}" for section in TRAINED for key in BUDGET),
]


@pytest.fixture
def make_params(tmp_path: Path, monkeypatch) -> Callable[..., Params]:
    """The committed parameters at a tiny size, with further `dotted.key=value` overrides; results go to `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def make(*overrides: str) -> Params:
        return load(Params, PARAMS, [*TINY, *overrides])

    return make
