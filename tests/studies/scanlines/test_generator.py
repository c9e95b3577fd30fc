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


@pytest.mark.parametrize("seed", range(4))
def test_a_ridge_is_as_wide_as_a_normal_curve_of_a_fifth_of_a_nanometre(seed):
    """0.15 nm from its top it has lost what a normal curve of sd 0.15 to 0.22 nm loses there."""
    top, flank, valley = (
        sum(height(surface("rows", seed), u, A * k / 8) for k in range(8)) for u in (0.0, 0.15, PITCH / 2)
    )
    assert 1 - math.exp(-0.5 * (0.15 / 0.22) ** 2) < (top - flank) / (top - valley) < 1 - math.exp(-0.5) + 0.03


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


def test_an_adsorbate_is_a_round_normal_hill(scene):
    one = {name: value[:1].clone() for name, value in vars(scene).items()}
    zero = ("series", "spots", "shift", "blur", "drift", "relief", "jump")
    one |= {name: torch.zeros_like(one[name]) for name in zero}
    one |= {
        "field": torch.full_like(one["field"], 4.8),
        "stretch": torch.ones(1),
        "weights": torch.tensor([[[1.0, 0, 0]] * 2]),
    }
    one["spots"][:, :, 2] = 1.0  # of no height
    one["spots"][0, 0] = torch.tensor([2.0, 2.0, 0.4, 0.3])  # centre, radius and height, nm
    image = scan(type(scene)(**one), 24, 24, Quiet(torch.Generator()))[0]
    torch.testing.assert_close(image, image.T, rtol=0, atol=2e-3)
    assert float(image[10, 10]) == pytest.approx(0.3, abs=2e-3)
    assert image[10, [8, 12]].tolist() == pytest.approx([0.3 * math.exp(-0.5)] * 2, abs=2e-3)


def test_a_blunt_tip_lowers_the_corrugation(scene):
    blunt = (scene.label == GENERIC) & (scene.blur[:, 0] > 0.3) & (scene.relief == 0)
    some = type(scene)(**{name: value[blunt][:30].clone() for name, value in vars(scene).items()})
    some.spots[:, :, 3] = 0
    sharp = type(scene)(**{**vars(some), "blur": torch.zeros_like(some.blur)})
    blurred, wanted = (scan(each, LINES, POINTS, Quiet(torch.Generator())).std((1, 2)) for each in (some, sharp))
    assert (blurred < 0.2 * wanted).all()


def test_scenes_are_drawn_from_the_said_ranges(scene):
    """Lengths in nm; a new tip blurs by 1 to 3 points, and adsorbates are in units of a corrugation of 0.3."""
    changed, generic, resolved = scene.label == TIP_CHANGE, scene.label == GENERIC, scene.label < len(STATES)

    def within(values, low, high):
        spread = (high - low) / 10
        return low <= float(values.min()) < low + spread and high - spread < float(values.max()) <= high

    assert within(scene.field, 4, 13) and within(scene.angle, 0, math.pi)
    assert float(scene.drift.std()) == pytest.approx(0.0012, rel=0.05)
    assert float(scene.stretch.std()) == pytest.approx(0.02, rel=0.05) and float(scene.stretch.mean()) > 0.99
    assert within(scene.relief[scene.relief > 0], 4, 9)
    assert float(scene.jump[changed].std()) == pytest.approx(0.6, rel=0.15)
    assert within(scene.weights[changed, 1, 1], 0.5, 1.2) and not scene.weights[changed, 1, 0].any()
    blurred = scene.blur[:, 1] > 0
    assert within((scene.blur[:, 1] / (scene.field / POINTS))[blurred], 1, 3) and not blurred[~changed].any()
    assert float(blurred[changed].float().mean()) == pytest.approx(0.4, abs=0.1)
    assert float(scene.shift[changed, 1].std()) == pytest.approx(0.35, rel=0.1)
    assert float(scene.shift[~changed, 1].std()) == pytest.approx(0.7, rel=0.05)
    ghost = scene.weights[resolved, 0, 1]
    assert within(ghost[ghost > 0], 0.05, 0.2) and float((ghost > 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    present = scene.spots[:, :, 3] != 0
    assert float(present.sum(1).float().mean()) == pytest.approx(1.5, rel=0.05)
    assert within(scene.spots[:, :, 3][present].abs() * 0.3, 0.4, 1.4) and within(scene.spots[:, :, 2], 0.18, 0.35)
    assert [int(scene.extra_streaks[rows].max()) for rows in (changed, generic, resolved)] == [7, 9, 0]


def test_ridges_are_modulated_with_the_distance_of_dimers():
    """Half the period of the cell, which alternating dimers fill."""
    series = surface("rows")
    heights = [height(series, 0, A * k / 8) for k in range(16)]
    assert heights[:8] == pytest.approx(heights[8:], abs=1e-4) and max(heights) - min(heights) > 0.01


def test_an_apex_shows_lattice_and_adsorbates_at_its_own_place(scene):
    """An apex that is shifted and blunt shows what one in the middle shows of a surface that is shifted."""
    one = {name: value[:20].clone() for name, value in vars(scene).items()}
    one["relief"] *= 0
    shift, blur = torch.tensor([0.3, -0.2]), 0.15
    aside = {"shift": torch.zeros(20, 3, 2), "blur": torch.zeros(20, 3), "weights": torch.zeros(20, 2, 3)}
    middle = {name: value.clone() for name, value in aside.items()} | {"spots": one["spots"].clone()}
    aside["shift"][:, 1], aside["blur"][:, 1], aside["weights"][:, :, 1] = shift, blur, 1
    middle["blur"][:, 0], middle["weights"][:, :, 0] = blur, 1
    middle["origin"] = one["origin"] - shift
    middle["spots"][:, :, :2] += shift
    images = [scan(type(scene)(**{**one, **each}), LINES, POINTS, Quiet(torch.Generator())) for each in (aside, middle)]
    torch.testing.assert_close(*images, rtol=0, atol=2e-3)


def test_a_blunt_tip_spreads_an_adsorbate_and_keeps_its_volume(scene):
    """2 pi times radius squared times height, whatever the blur."""
    one = {name: value[:1].clone() for name, value in vars(scene).items()}
    one |= {name: one[name] * 0 for name in ("series", "shift", "weights", "blur", "relief", "jump")}
    one |= {"field": torch.tensor([6.0]), "stretch": torch.ones(1), "spots": torch.zeros(1, 5, 4)}
    one["weights"][:, :, 0] = 1
    one["spots"][:, :, 2] = 0.3
    one["spots"][0, 0] = torch.tensor([3.0, 3.0, 0.3, 2.0])
    for blur in (0.0, 0.5):
        image = scan(type(scene)(**{**one, "blur": torch.full((1, 3), blur)}), 60, 60, Quiet(torch.Generator()))[0]
        assert float(image.sum() * 0.1**2) == pytest.approx(2 * math.pi * 0.3**2 * 2, rel=0.01)


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
