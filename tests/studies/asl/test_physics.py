"""What the forward model promises: the closed forms, continuity, shapes, and gradients."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from assay.errors import ConfigError
from assay.studies.asl.physics import (
    RANGES,
    Physics,
    joint_signal,
    macrovascular_signal,
    pcasl_signal,
    randomise_physics,
    reference_signal,
    vsasl_signal,
)

PLDS = (500.0, 1000.0, 1500.0, 2000.0, 2500.0, 3000.0)
RANDOMISED = ("t1_artery", "alpha_pcasl", "alpha_vsasl", "alpha_bs", "label_duration")
cbfs = st.floats(0.0, 200.0)
atts = st.floats(100.0, 6000.0)
delays = st.floats(0.0, 5000.0)
t1s = st.floats(1400.0, 2300.0)
efficiencies = st.floats(0.3, 1.0)


def pcasl_by_cases(cbf, att, pld, t1, alpha, b, tau, k, partition):  # noqa: PLR0913
    """The three cases of the general kinetic model, one number at a time."""
    amplitude = 2 * cbf / 6000 * alpha * b**4 * k / partition * t1 / 1000
    if pld < att - tau:
        return 0.0
    if pld < att:
        return amplitude * (math.exp(-att / t1) - math.exp(-(tau + pld) / t1))
    return amplitude * math.exp(-pld / t1) * (1 - math.exp(-tau / t1))


def vsasl_by_cases(cbf, att, pld, t1, alpha, b, k, partition, recovery):  # noqa: PLR0913
    """The velocity-selective curve, one number at a time."""
    bolus = pld if pld < att else att
    return 2 * cbf / 6000 * alpha * b**3 * k * recovery / partition * bolus / 1000 * math.exp(-pld / t1)


@given(cbfs, atts, delays, t1s, efficiencies, efficiencies, st.floats(1000.0, 2200.0))
def test_pcasl_equals_its_closed_form(cbf, att, pld, t1, alpha, b, tau):  # noqa: PLR0913
    signal = pcasl_signal(
        cbf,
        att,
        (pld,),
        t1_artery=t1,
        alpha=alpha,
        alpha_bs=b,
        label_duration=tau,
        t2_factor=0.78,
        partition=0.95,
    )
    assert signal.item() == pytest.approx(pcasl_by_cases(cbf, att, pld, t1, alpha, b, tau, 0.78, 0.95), abs=1e-9)


@given(cbfs, atts, delays, t1s, efficiencies, efficiencies)
def test_vsasl_equals_its_closed_form(cbf, att, pld, t1, alpha, b):
    signal = vsasl_signal(
        cbf, att, (pld,), t1_artery=t1, alpha=alpha, alpha_bs=b, t2_factor=0.78, partition=0.95, recovery=0.7
    )
    assert signal.item() == pytest.approx(vsasl_by_cases(cbf, att, pld, t1, alpha, b, 0.78, 0.95, 0.7), abs=1e-9)


def test_vsasl_reproduces_the_laboratory_note():
    signal = vsasl_signal(60.0, 1600.0, PLDS, t1_artery=1850.0, alpha=0.56)
    assert [round(value, 4) for value in signal.tolist()] == [0.0047, 0.0072, 0.0083, 0.0068, 0.0052, 0.0039]


@given(st.floats(300.0, 3000.0))
def test_pcasl_is_continuous_where_its_cases_meet(pld):
    step = 1e-6
    for breakpoint in (pld, pld + 1800.0):
        before, after = (pcasl_signal(60.0, breakpoint + side, (pld,)) for side in (-step, step))
        assert before.item() == pytest.approx(after.item(), abs=1e-9)


def test_macrovascular_signal_vanishes_once_the_bolus_has_passed():
    signal = macrovascular_signal(0.01, 1200.0, (500.0, 1000.0, 1200.0, 2000.0), alpha=0.9, alpha_bs=0.95)
    expected = [2 * 0.01 * 0.9 * 0.95**4 * math.exp(-pld / 1850) for pld in (500.0, 1000.0)]
    assert signal.tolist() == pytest.approx([*expected, 0.0, 0.0], abs=1e-12)


@pytest.mark.parametrize("signal", [pcasl_signal, vsasl_signal, macrovascular_signal])
def test_maps_delays_and_constants_broadcast_as_tensors_do(signal):
    cbf, att, plds = torch.full((3, 1, 1), 0.01), torch.full((4, 1), 900.0), torch.tensor(PLDS)
    assert signal(cbf, att, plds).shape == (3, 4, 6)
    assert signal(cbf, att, 1500.0).shape == (3, 4, 1)
    assert signal(cbf, att, plds, t1_artery=torch.full((3, 1, 1), 1650.0)).shape == (3, 4, 6)
    assert signal(0.01, 900.0, plds, t1_artery=torch.full((3, 1), 1650.0)).shape == (3, 6)
    assert signal(torch.full((6,), 0.01), torch.full((6,), 900.0), plds).shape == (6,)


def test_label_durations_of_several_images_broadcast():
    durations = torch.tensor([[1600.0], [1800.0]])
    signal = pcasl_signal(60.0, 900.0, torch.tensor(PLDS), label_duration=durations)
    torch.testing.assert_close(signal[1], pcasl_signal(60.0, 900.0, torch.tensor(PLDS)))
    assert signal.shape == (2, 6) and (signal[0] < signal[1]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_of_the_maps_is_kept(dtype):
    maps = torch.full((2, 3, 3), 900.0, dtype=dtype)
    constants = Physics(t1_artery=torch.tensor([1650.0, 1850.0], dtype=torch.float64))
    assert joint_signal(maps, maps, PLDS, constants).dtype == dtype
    assert pcasl_signal(maps[..., None], 900.0, PLDS).dtype == dtype


def test_joint_signal_stacks_pcasl_then_vsasl_with_the_constants_of_each_image():
    generator = torch.Generator().manual_seed(3)
    cbf = 100 * torch.rand(4, 5, 3, generator=generator, dtype=torch.float64)
    att = 100 + 5000 * torch.rand(4, 5, 3, generator=generator, dtype=torch.float64)
    physics = randomise_physics(Physics(t2_factor=0.78, recovery=0.7), "extended", 4, generator)
    joint = joint_signal(cbf, att, PLDS, physics)
    for index in range(4):
        p = physics.image(index)
        common = {
            "t1_artery": p.t1_artery,
            "alpha_bs": p.alpha_bs,
            "t2_factor": p.t2_factor,
            "partition": p.partition,
        }
        pcasl = pcasl_signal(
            cbf[index, ..., None],
            att[index, ..., None],
            PLDS,
            alpha=p.alpha_pcasl,
            label_duration=p.label_duration,
            **common,
        )
        vsasl = vsasl_signal(
            cbf[index, ..., None], att[index, ..., None], PLDS, alpha=p.alpha_vsasl, recovery=p.recovery, **common
        )
        torch.testing.assert_close(joint[index], torch.cat((pcasl, vsasl), -1).movedim(-1, 0), rtol=1e-12, atol=0)


def test_joint_signal_written_into_a_tensor_is_the_same():
    cbf, att = 100 * torch.rand(9, 48, 48), 3000 * torch.rand(9, 48, 48)
    for physics in (Physics(), randomise_physics(Physics(), "baseline", 9, torch.Generator())):
        out = torch.empty(9, 12, 48, 48)
        assert joint_signal(cbf, att, PLDS, physics, out=out) is out
        assert torch.equal(out, joint_signal(cbf, att, PLDS, physics))


def test_joint_signal_of_many_images_is_that_of_each_image():
    cbf, att = 100 * torch.rand(40, 48, 48), 3000 * torch.rand(40, 48, 48)
    physics = randomise_physics(Physics(), "baseline", 40, torch.Generator())
    out = joint_signal(cbf, att, PLDS, physics, out=torch.empty(40, 12, 48, 48))
    for index in (0, 13, 14, 39):
        one = slice(index, index + 1)
        alone = joint_signal(cbf[one], att[one], PLDS, physics.map(lambda value, one=one: value[one]))
        torch.testing.assert_close(out[one], alone, rtol=1e-6, atol=0)


@pytest.mark.parametrize("written", [False, True])
def test_joint_signal_before_labelling_is_zero(written):
    cbf, att = torch.full((1, 2, 2), 60.0), torch.full((1, 2, 2), 2500.0)
    out = torch.empty(1, 2, 2, 2) if written else None
    assert not joint_signal(cbf, att, (-100.0,), Physics(), out=out).any()


def test_joint_signal_has_exact_gradients():
    cbf = torch.tensor([[[20.0, 60.0, 5.0]]], dtype=torch.float64, requires_grad=True)
    att = torch.tensor([[[760.0, 1710.0, 3390.0]]], dtype=torch.float64, requires_grad=True)
    physics = Physics(t1_artery=torch.tensor([1650.0], dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda c, a: joint_signal(c, a, PLDS, physics), (cbf, att), eps=1e-4)


@given(st.sampled_from([0.25, 0.5, 2.0, 8.0]))
def test_joint_signal_is_proportional_to_perfusion(scale):
    cbf, att = torch.rand(1, 4, 4) * 80, torch.rand(1, 4, 4) * 3000
    assert torch.equal(joint_signal(scale * cbf, att, PLDS, Physics()), scale * joint_signal(cbf, att, PLDS, Physics()))


@pytest.mark.parametrize("ranges", ["baseline", "extended"])
def test_randomised_physics_stays_inside_its_ranges_and_fills_them(ranges):
    physics = randomise_physics(Physics(partition=0.95), ranges, 2000, torch.Generator().manual_seed(0))
    for name in RANDOMISED:
        low, high = RANGES[ranges][name]
        values = getattr(physics, name) / (1800.0 if name == "label_duration" else 1.0)
        assert values.shape == (2000,)
        assert low - 1e-6 <= values.min() < low + 0.01 * (high - low)
        assert high + 1e-6 >= values.max() > high - 0.01 * (high - low)
    assert torch.equal(physics.partition, torch.full((2000,), 0.95, dtype=torch.float64))


def test_two_images_with_equal_maps_and_different_physics_differ():
    physics = randomise_physics(Physics(), "baseline", 2, torch.Generator().manual_seed(0))
    maps = torch.full((2, 4, 4), 60.0), torch.full((2, 4, 4), 1300.0)
    first, second = joint_signal(*maps, PLDS, physics)
    assert (first - second).abs().max() > 0.01 * first.abs().max()


def test_reference_signal_is_pcasl_of_slow_white_matter():
    expected = pcasl_by_cases(20, 1500, 2000, 1850, 0.85, 1, 1800, 1, 0.9)
    assert reference_signal(Physics()).item() == pytest.approx(expected, rel=1e-12)
    assert reference_signal(Physics(t1_artery=torch.tensor([1650.0, 1850.0]))).shape == (2,)


def test_delays_that_are_no_list_are_refused():
    maps = torch.ones(1, 2, 2)
    with pytest.raises(ConfigError, match=r"plds: got shape \(\), allowed is a list of delays in ms"):
        joint_signal(maps, maps, torch.tensor(500.0), Physics())


def test_unknown_ranges_are_refused():
    with pytest.raises(ConfigError, match="randomise: got 'wild', allowed are baseline, extended"):
        randomise_physics(Physics(), "wild", 2, torch.Generator())
