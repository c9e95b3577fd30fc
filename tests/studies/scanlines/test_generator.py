"""The simulated scans: states, tips, tip changes and artefacts, and that image k is a function of its key."""

import math

import pytest
import torch

from assay.config import load
from assay.studies.scanlines.config import Params
from assay.studies.scanlines.dataset import BLOCK, simulate_block
from assay.studies.scanlines.draw import Draw
from assay.studies.scanlines.generator import draw_scene, scan
from assay.studies.scanlines.surface import COUNTS, GENERIC, PITCH, STATES, TIP_CHANGE, A, coefficients, harmonics

COUNT, LINES, POINTS = 3000, 16, 24


@pytest.fixture(scope="module")
def scene():
    return draw_scene(COUNT, LINES, POINTS, draw())


def draw(seed=0):
    return Draw(torch.Generator().manual_seed(seed))


def height(series, u, v):
    """The surface of Fourier coefficients (H,) at a point, nm."""
    waves = harmonics(torch.device("cpu"))
    return float((2 * series * torch.polar(torch.ones_like(waves.u), waves.u * u + waves.v * v)).real.sum())


def surface(state, seed=0):
    return coefficients(torch.tensor([STATES.index(state)]), draw(seed), harmonics(torch.device("cpu")))[0]


@pytest.mark.parametrize("state", STATES)
def test_a_surface_repeats_with_its_lattice_and_has_a_corrugation_of_sd_1(state):
    series = surface(state)
    assert height(series, 0.1, 0.2) == pytest.approx(height(series, 0.1 + PITCH, 0.2 + 2 * A), abs=1e-4)
    grid = [height(series, PITCH * i / 16, 2 * A * j / 16) for i in range(16) for j in range(16)]
    assert torch.tensor(grid).std() == pytest.approx(1, abs=0.01)


def test_the_states_differ_as_they_should():
    """Two equal atoms per dimer, two unequal ones, one in the middle, and ridges."""
    profile = {state: [height(surface(state), u, 0) for u in (-0.17, 0, 0.17)] for state in STATES}
    left, middle, right = profile["atoms"]
    assert left == pytest.approx(right, rel=1e-3) and middle < 0.5 * left
    assert profile["asymmetry"][2] > 1.5 * profile["asymmetry"][0]
    assert profile["dimer"][1] > max(profile["dimer"][0], profile["dimer"][2])
    along = [height(surface("rows"), 0, A * k / 8) for k in range(8)]
    assert max(along) - min(along) < 0.5 * max(along)


def test_half_of_the_asymmetric_surfaces_alternate_from_dimer_to_dimer():
    series = coefficients(torch.ones(400, dtype=torch.long), draw(), harmonics(torch.device("cpu")))
    odd = (harmonics(torch.device("cpu")).v * A / math.pi).round().long() % 2 == 1
    assert (series[:, odd].abs().sum(1) > 1e-3).float().mean() == pytest.approx(0.5, abs=0.08)


def test_classes_come_with_the_published_shares(scene):
    shares = torch.bincount(scene.label, minlength=6) / COUNT
    assert shares.tolist() == pytest.approx([count / sum(COUNTS) for count in COUNTS], abs=0.03)


def test_only_a_tip_change_has_a_switch_line_and_two_surfaces(scene):
    changed = scene.label == TIP_CHANGE
    assert (scene.switch[~changed] == LINES).all()
    assert ((scene.switch[changed] >= 0.2 * LINES - 1) & (scene.switch[changed] < 0.8 * LINES)).all()
    same = scene.states[:, 0] == scene.states[:, 1]
    assert same[~changed].all()
    assert same[changed].float().mean() == pytest.approx(0.3, abs=0.08)
    assert (scene.states[scene.label < 4, 0] == scene.label[scene.label < 4]).all()


def test_a_generic_defect_is_blunt_or_multiple_or_blurred_with_relief(scene):
    generic = scene.label == GENERIC
    blunt, multiple, mild = (
        scene.blur[:, 0] >= 0.22,
        scene.weights[:, 0, 1] >= 0.4,
        scene.relief > 0,
    )
    blunt &= ~mild
    assert (blunt.int() + multiple.int() + mild.int() == generic.int())[~(scene.label == TIP_CHANGE)].all()
    shares = [float(kind[generic].float().mean()) for kind in (blunt, multiple, mild)]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.06)


def test_the_image_changes_at_the_switch_line(scene):
    """With the same noise, the lines before it are those of the scan without a change."""
    changed = (scene.label == TIP_CHANGE).nonzero()[:, 0]
    some = type(scene)(**{name: value[changed][:20] for name, value in vars(scene).items()})
    unchanged = type(scene)(**{**vars(some), "switch": torch.full_like(some.switch, LINES)})
    image, other = (scan(each, LINES, POINTS, draw(3)) for each in (some, unchanged))
    for row, switch in enumerate(some.switch.tolist()):
        torch.testing.assert_close(image[row, :switch], other[row, :switch], rtol=0, atol=1e-4)
        assert (image[row, switch:] - other[row, switch:]).abs().amax() > 0.1


def test_an_image_is_the_surface_where_nothing_disturbs_it(scene):
    """Against the Fourier series summed point by point, for a sharp tip without drift."""
    waves, row = harmonics(torch.device("cpu")), int((scene.label == 0).nonzero()[0, 0])
    one = {name: value[row : row + 1].clone() for name, value in vars(scene).items()}
    one |= {"drift": torch.zeros(1, 2), "stretch": torch.ones(1), "spots": torch.zeros_like(one["spots"])}
    one["spots"][:, :, 2] = 0.2
    one["weights"] = torch.tensor([[[1.0, 0, 0]] * 2])
    image = scan(type(scene)(**one), LINES, POINTS, Quiet(torch.Generator()))[0]
    angle, field = float(one["angle"]), float(one["field"])
    for line, point in ((0, 0), (3, 5), (15, 23)):
        x = point / POINTS * field + float(one["origin"][0, 0])
        y = line / LINES * field + float(one["origin"][0, 1])
        u, v = x * math.cos(angle) + y * math.sin(angle), -x * math.sin(angle) + y * math.cos(angle)
        phase = waves.u * u + waves.v * v
        wanted = (2 * one["series"][0, 0] * torch.polar(torch.ones_like(phase), phase)).real.sum()
        assert float(image[line, point]) == pytest.approx(float(wanted), abs=2e-3)


class Quiet(Draw):
    """Draws without noise, tilt, steps and streaks."""

    def normal(self, sd, *shape):
        return torch.zeros(shape)

    def uniform(self, low, high, *shape):
        return torch.full(shape, 1e-9 if low == 0.15 else 1.0)

    def poisson(self, rate):
        return torch.zeros_like(rate, dtype=torch.long)


def test_a_blunt_tip_lowers_the_corrugation(scene):
    blunt = (scene.label == GENERIC) & (scene.blur[:, 0] > 0.3) & (scene.relief == 0)
    some = type(scene)(**{name: value[blunt][:30].clone() for name, value in vars(scene).items()})
    some.spots[:, :, 3] = 0
    sharp = type(scene)(**{**vars(some), "blur": torch.zeros_like(some.blur)})
    blurred, wanted = (scan(each, LINES, POINTS, Quiet(torch.Generator())).std((1, 2)) for each in (some, sharp))
    assert (blurred < 0.2 * wanted).all()


def test_an_image_depends_on_its_block_and_seed_alone(make_params):
    few, many = make_params("data.images=32").data, make_params("data.images=64").data
    first, scene = simulate_block(few, 1)
    again, _ = simulate_block(many, 1)
    assert torch.equal(first, again) and first.isfinite().all()
    other, _ = simulate_block(make_params("data.seed=1").data, 1)
    assert not torch.equal(first, other)
    assert first.shape == (BLOCK, 16, 24) and len(scene.label) == BLOCK


def test_copies_of_a_parent_differ_in_noise_alone(make_params):
    images, scene = simulate_block(make_params("data.images=64", "data.copies=4").data, 0)
    assert images.shape[0] == 4 * BLOCK
    assert (scene.series.view(BLOCK, 4, 2, -1) == scene.series.view(BLOCK, 4, 2, -1)[:, :1]).all()
    assert not torch.equal(images[0], images[1])


def test_the_committed_scale_is_that_of_the_reference(make_params):
    params = load(Params, make_params.__globals__["PARAMS"])
    assert (params.data.lines, params.data.points) == (128, 128)
