"""What a scan shows beside surface and tip: how large offsets, reliefs, steps, streaks, tilt and noise are."""

import pytest
import torch

from assay.studies.scanlines.artefacts import add_steps, add_streaks, line_offsets, relief
from assay.studies.scanlines.draw import Draw
from assay.studies.scanlines.generator import draw_scene, scan

COUNT = 2000


def draw(seed=0):
    return Draw(torch.Generator().manual_seed(seed))


def test_lines_differ_by_a_tilt_a_walk_and_a_jitter():
    """Variances add up: tilt 0.6 from -1 to 1, walk 0.05 a line, jitter uniform in 0.05 to 0.25."""
    offsets = line_offsets(COUNT, 64, draw())
    jitter = (0.25**3 - 0.05**3) / (3 * 0.2)
    neighbours, ends = offsets.diff(dim=1).square().mean(), (offsets[:, -1] - offsets[:, 0]).square().mean()
    assert float(neighbours) == pytest.approx(0.05**2 + 2 * jitter + (1.2 / 63) ** 2, rel=0.05)
    assert float(ends) == pytest.approx(1.2**2 + 63 * 0.05**2 + 2 * jitter, rel=0.1)


def test_a_relief_has_its_standard_deviation():
    line, pixel = relief(torch.full((COUNT,), 5.0), 32, 24, 6, draw())
    assert float((line @ pixel).square().mean().sqrt()) == pytest.approx(5, rel=0.05)


def test_a_quarter_of_the_images_has_a_step_of_1_to_2_and_a_half():
    images = torch.zeros(COUNT, 16, 24)
    add_steps(images, draw())
    stepped = images.amax((1, 2)) > 0
    assert float(stepped.float().mean()) == pytest.approx(0.25, abs=0.03)
    heights = images[stepped].amax((1, 2))
    assert float(heights.min()) >= 1 and 2.4 < float(heights.max()) <= 2.5
    assert float((images[stepped] == heights[:, None, None]).float().mean()) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("extra", [0, 3])
def test_streaks_are_as_many_as_long_and_as_high_as_they_should_be(extra):
    """Two in a hundred lines on the average, pieces of 8 points or more, N(0, 1.5)."""
    images = torch.zeros(COUNT, 128, 32)
    add_streaks(images, torch.full((COUNT,), extra), draw())
    lines = images.flatten(0, 1)
    hit = lines.abs().amax(1) > 0
    assert float(hit.sum() / COUNT) == pytest.approx(128 * 0.02 + extra, rel=0.06)  # some lines are hit twice
    lengths = (lines[hit] != 0).sum(1)
    assert int(lengths.min()) == 8 and int(lengths.max()) == 32
    assert float(lines[hit][lines[hit] != 0].std()) == pytest.approx(1.5, rel=0.1)


def test_noise_and_the_tilt_along_a_line_are_of_the_said_size():
    """Of scans without a surface. A tilt has no second difference; steps and streaks are too few for a median."""
    scene = draw_scene(400, 64, 64, draw())
    flat = {"series": scene.series * 0, "weights": scene.weights * 0, "relief": scene.relief * 0}
    images = scan(type(scene)(**{**vars(scene), **flat}), 64, 64, draw(1))
    noise = images.diff(n=2, dim=2).abs().flatten(1).median(1).values / 0.6745 / 6**0.5
    assert 0.14 < float(noise.min()) < 0.2 and 0.65 < float(noise.max()) < 0.75
    half = (images[:, :, 32:].mean(2) - images[:, :, :32].mean(2)).median(1).values  # a tilt of 1 makes 1.016 of it
    assert float(half.abs().median()) == pytest.approx(0.6745 * 0.25, rel=0.25)
