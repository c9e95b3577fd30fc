"""Training windows: what a batch holds, and that it is a function of seed and position."""

import pytest
import torch

from assay.studies.burgers import simulate
from assay.studies.burgers.config import describe
from assay.studies.burgers.networks import open_data
from assay.studies.burgers.sections import AugmentationConfig
from assay.studies.burgers.windows import Windows

PLAIN = AugmentationConfig(shifts=False, reflections=False)
EVERY = AugmentationConfig(shifts=True, reflections=True)
CPU = torch.device("cpu")


@pytest.fixture
def data(make_params):
    params = make_params("data.viscosities=[0.01,0.1]", "evaluation.viscosities=[0.01]", "model.viscosity=true")
    simulate.run(params)
    return params.data, open_data(params)


def test_a_window_is_a_run_of_frames_a_step_apart_with_its_own_viscosity(data):
    config, trajectories = data
    windows = Windows(trajectories, config, "training", 3, CPU)
    starts = config.frames - 2 * config.stride
    assert windows.numbers == 2 * config.training * starts
    number = starts * (config.training + 2) + 4  # second viscosity, third row, fifth start
    window = windows.window(torch.tensor([number]))
    assert torch.equal(window.fields[0], trajectories.split("training", 0.1)[2, [4, 6, 8]])
    assert float(window.nu) == pytest.approx(0.1) and float(window.dt) == pytest.approx(2 * config.interval)


def test_an_epoch_is_described_as_long_as_it_is(data, make_params):
    """Windows begin at every stored frame, not only at multiples of the stride."""
    params = make_params("train.steps=10", "train.batch_size=6")
    windows = Windows(data[1], params.data, "training", params.loss.window, CPU)
    assert describe(params).endswith(f"60 samples, {60 / windows.numbers:.3g} epochs, seed 0")


def test_every_window_comes_once_an_epoch_in_an_order_of_the_seed(data):
    config, trajectories = data
    windows = Windows(trajectories, config, "training", 6, CPU)
    batches = windows.batches(0, 0, 4, PLAIN)
    epoch = torch.cat([next(batches).fields for _ in range(windows.numbers // 4)])
    every = windows.window(torch.arange(windows.numbers)).fields
    assert sorted(map(bytes, epoch.flatten(1).numpy())) == sorted(map(bytes, every.flatten(1).numpy()))
    assert not torch.equal(epoch, every)
    assert not torch.equal(next(windows.batches(1, 0, 4, PLAIN)).fields, epoch[:4])


def test_batches_from_a_cursor_on_are_those_of_an_undisturbed_run(data):
    config, trajectories = data
    windows = Windows(trajectories, config, "training", 2, CPU)
    whole = windows.batches(0, 0, 5, EVERY)
    seen = [next(whole).fields for _ in range(30)]  # beyond the first epoch
    resumed = windows.batches(0, 23, 5, EVERY)
    assert all(torch.equal(next(resumed).fields, seen[k]) for k in range(23, 30))


def test_augmented_windows_are_solutions_too(data):
    """Turned and mirrored with their sign as a whole, so that frames go on belonging together."""
    config, trajectories = data
    windows = Windows(trajectories, config, "training", 2, CPU)
    plain, changed = (next(windows.batches(0, 0, 16, kind)).fields for kind in (PLAIN, EVERY))
    assert not torch.equal(plain, changed)
    mirrored = 0
    for before, after in zip(plain, changed, strict=True):
        turns = [
            (sign, shift)
            for sign, base in ((1, before), (-1, -before.flip(-1)))
            for shift in range(config.cells)
            if torch.equal(base.roll(-shift, -1), after) or torch.equal(base.roll(shift, -1), after)
        ]
        assert turns
        mirrored += turns[0][0] < 0
    assert 0 < mirrored < 16
