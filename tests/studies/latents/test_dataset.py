"""The recording on disk: reproducible, checked when read, never half written."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from assay.errors import DataError, Unfinished
from assay.studies.latents import simulate
from assay.studies.latents.dataset import Recording, Source, write_recording
from assay.studies.latents.simulator import Rows


def made(steps: int, neurons: int = 304, bad: float | None = None) -> Source:
    """A recording without a simulation: 500 rows a chunk, one bad value if wanted."""
    rows = []
    for first in range(0, steps, 500):
        n = min(500, steps - first)
        activity = torch.full((n, neurons), float(first))
        if bad is not None and first:
            activity[7, 3] = bad
        rows.append(Rows(activity, torch.ones(n, 4), None))
    return Source(iter(rows), np.zeros(neurons, dtype=np.int64), None)


@pytest.fixture
def params(make_params):
    return make_params()


@pytest.fixture
def folder(params) -> Path:
    """A recording that a test may damage."""
    write_recording(params, made(700))
    return Path(params.data.path)


def test_what_is_read_is_what_was_simulated(with_data, recording):
    rows = list(simulate.source(with_data()).rows)
    for name in ("activity", "stimulus", "mean"):
        whole = torch.cat([getattr(part, name) for part in rows])
        assert torch.equal(recording.rows(name, 0, 700), whole)
        assert torch.equal(recording.rows(name, 450, 600), whole[450:600])
    assert (recording.neurons, recording.channels) == (304, 19)
    assert recording.types.bincount().tolist() == [19] * 16 and recording.connections.shape[0] == 2


def test_a_replayed_recording_repeats_the_scenes_of_training(make_params):
    params = make_params("data.scenes=replayed", "data.training=[0,100]", "data.validation=[100,200]")
    simulate.run(params)
    stimulus = Recording(params).rows("stimulus", 0, 400)
    assert torch.equal(stimulus[:100], stimulus[100:200]) and torch.equal(stimulus[:200], stimulus[200:])


def test_a_replay_shows_no_scene_from_before_the_training_range(make_params):
    params = make_params("data.scenes=replayed")
    simulate.run(params)
    stimulus = Recording(params).rows("stimulus", 0, 700)
    assert torch.equal(stimulus[400:700], stimulus[100:400])


def test_a_recording_without_simulator_has_no_mean_and_no_connections(params, folder):
    found = Recording(params)
    assert not found.has_mean and found.connections is None
    assert found.rows("activity", 499, 501)[:, 0].tolist() == [0, 500]


def test_a_value_that_is_not_finite_is_refused_with_its_place(params):
    words = r"activity: value at time step 507, column 3 is nan; allowed: finite numbers; repair or shorten"
    with pytest.raises(DataError, match=words):
        write_recording(params, made(700, bad=float("nan")))
    assert not Path(params.data.path).exists()


def test_a_changed_value_is_found_when_it_is_read(params, folder):
    with (folder / "activity.npy").open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(np.float32(1).tobytes())
    found = Recording(params)
    assert len(found.rows("activity", 0, 500)) == 500
    with pytest.raises(DataError, match=r"activity\.npy: hash of time steps from 500 does not match; run the simulate"):
        found.rows("activity", 499, 501)


def test_files_that_are_missing_truncated_or_changed_are_refused(params, folder):
    np.save(folder / "types.npy", np.ones(304, dtype=np.int64))
    with pytest.raises(DataError, match=r"types\.npy: hash does not match; run the simulate stage again"):
        Recording(params)
    (folder / "activity.npy").write_bytes((folder / "activity.npy").read_bytes()[:5000])
    with pytest.raises(DataError, match=r"activity\.npy: truncated or damaged"):
        Recording(params)
    np.save(folder / "activity.npy", np.zeros((3, 2, 1), dtype=np.float32))
    with pytest.raises(DataError, match=r"activity\.npy: got \(3, 2, 1\) float32; allowed: \(700, columns\) float32"):
        Recording(params)
    (folder / "activity.npy").unlink()
    with pytest.raises(DataError, match=r"activity\.npy: no such file; run the simulate stage again"):
        Recording(params)


def test_manifests_that_are_missing_broken_or_of_other_parameters_are_refused(params, folder, make_params):
    with pytest.raises(DataError, match=r"made with data\.seed 0, not 1; run the simulate stage again"):
        Recording(make_params("data.seed=1"))
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 0}))
    with pytest.raises(DataError, match="got schema 0; allowed: 1; run the simulate stage again"):
        Recording(params)
    path.write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        Recording(params)
    path.unlink()
    with pytest.raises(DataError, match=r"manifest\.json: no such file; run the simulate stage"):
        Recording(params)


def test_a_folder_with_other_files_is_left_alone(params):
    path = Path(params.data.path)
    path.mkdir(parents=True)
    (path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="holds other files than a recording; allowed: a new folder"):
        write_recording(params, made(700))
    assert (path / "thesis.tex").read_text() == "years of work"


def test_a_recording_stands_until_the_new_one_is_complete(params, folder):
    before = (folder / "manifest.json").read_bytes()
    source = made(700)

    def stopped():
        for rows in source.rows:
            os.kill(os.getpid(), signal.SIGTERM)
            yield rows

    with pytest.raises(Unfinished, match="simulate: stopped at 500 of 700 time steps"):
        write_recording(params, source._replace(rows=stopped()))
    assert (folder / "manifest.json").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_disk_that_is_full_is_named(params):
    def full():
        raise OSError(28, "No space left on device")
        yield

    with pytest.raises(
        DataError, match=r"cannot be written \(.*No space left on device\); make room or choose another"
    ):
        write_recording(params, made(700)._replace(rows=full()))


def test_a_model_larger_than_a_published_recording_is_refused(params, folder):
    from assay.studies.latents.task import LatentsTask

    larger = dataclasses.replace(params, model=dataclasses.replace(params.model, latent_dim=305))
    with pytest.raises(DataError, match=r"model\.latent_dim: got 305; allowed: <= 304, the neurons recorded; lower it"):
        LatentsTask(larger, Recording(params), torch.device("cpu"))
