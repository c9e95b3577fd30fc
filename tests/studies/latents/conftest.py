"""The latents study at a size that takes a second: 304 neurons, 700 time steps, networks of eight units."""

from collections.abc import Callable
from pathlib import Path

import pytest

from assay.config import load
from assay.studies.latents import simulate
from assay.studies.latents.config import Params
from assay.studies.latents.dataset import Recording

PARAMS = Path(__file__).parents[3] / "studies/latents/params.yaml"
DATA = [
    "data.preset=tiny",
    "data.steps=700",
    "data.training=[100,400]",
    "data.validation=[400,500]",
    "data.test=[500,700]",
]
TINY = [
    *DATA,
    "model.latent_dim=8",
    "model.autoencoder.hidden_dim=8",
    "model.evolver.hidden_dim=8",
    "model.stimulus.hidden_dim=8",
    "model.stimulus_dim=4",
    "train.steps=4",
    "train.batch_size=16",
    "train.validate_every=2",
    "train.checkpoint_every=2",
    "train.log_every=1",
    "train.device=cpu",
    "evaluation.horizons=3",
    "evaluation.rollout_steps=20",
    "evaluation.rollout_starts=3",
    "evaluation.ridge=[0.001,0.1]",
    "evaluation.stimulus_window=2",
    "evaluation.device=cpu",
]
PLAIN = "{kind: plain, hidden_layers: 3, hidden_dim: 8, activation: relu}"
LINEAR = "{kind: plain, hidden_layers: 0, hidden_dim: null, activation: null}"


@pytest.fixture
def make_params(tmp_path: Path, monkeypatch) -> Callable[..., Params]:
    """The committed parameters at a tiny size, with further `dotted.key=value` overrides; results go to `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def make(*overrides: str) -> Params:
        return load(Params, PARAMS, [*TINY, *overrides])

    return make


@pytest.fixture(scope="session")
def data_path(tmp_path_factory) -> str:
    """The folder of a recording with the tiny parameters, simulated once; not to be changed."""
    folder = tmp_path_factory.mktemp("latents") / "data"
    simulate.run(load(Params, PARAMS, [*TINY, f"data.path={folder}"]))
    return str(folder)


@pytest.fixture
def with_data(make_params, data_path) -> Callable[..., Params]:
    """Parameters whose recording is there."""
    return lambda *overrides: make_params(f"data.path={data_path}", *overrides)


@pytest.fixture
def recording(with_data) -> Recording:
    """That recording."""
    return Recording(with_data())
