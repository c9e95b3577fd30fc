"""What noise promises: the SNR that was asked for, in the signal's unit, and samples independent of their batch."""

import math

import pytest
import torch

from assay.errors import ConfigError
from assay.studies.asl.noise import NoiseModel, channel_factors, standard_normal, uniform
from assay.studies.asl.physics import Physics, reference_signal

PLDS = (500.0, 1000.0, 1500.0, 2000.0, 2500.0, 3000.0)
REFERENCE = reference_signal(Physics()).item()


def noise(**changes):
    """Thermal noise alone, at SNR 10."""
    defaults = {
        "model": "gaussian",
        "snr": (10.0, 10.0),
        "snr_per": "image",
        "channel_factor": "none",
        "physio": (0.0, 0.0),
        "drift": 0.0,
        "spike_probability": 0.0,
        "spike_magnitude": (2.0, 5.0),
    }
    return NoiseModel(**{**defaults, **changes})


def generators(*seeds):
    """One generator for each sample."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


# 98,304 samples: the standard error of the measured sd is 0.23 %, so 2 % is more than eight of them.
@pytest.mark.parametrize("model", ["gaussian", "rician", "control_label"])
@pytest.mark.parametrize("snr", [5.0, 25.0])
def test_measured_snr_is_the_requested_one(model, snr):
    signal = torch.full((2, 12, 64, 64), 4 * REFERENCE)
    noisy, sigma = noise(model=model, snr=(snr, snr))(signal, REFERENCE, generators(0, 1), PLDS)
    assert REFERENCE / (noisy - signal).std().item() == pytest.approx(snr, rel=0.02)
    assert sigma.flatten().tolist() == pytest.approx([REFERENCE / snr] * 2)


@pytest.mark.parametrize(("model", "biased"), [("gaussian", False), ("control_label", False), ("rician", True)])
def test_only_rician_noise_on_the_difference_lifts_an_empty_voxel(model, biased):
    signal = torch.zeros(1, 12, 64, 64)
    noisy, sigma = noise(model=model)(signal, REFERENCE, generators(0), PLDS)
    mean = (noisy.mean() / sigma).item()  # a Rayleigh variable has mean sqrt(pi/2); the standard error is 0.0045
    assert mean == pytest.approx(math.sqrt(math.pi / 2) if biased else 0.0, abs=0.02)


def test_snr_is_drawn_per_image_or_per_voxel():
    signal = torch.zeros(2, 12, 8, 8)
    _, image = noise(snr=(2.0, 25.0))(signal, REFERENCE, generators(0, 1), PLDS)
    _, voxel = noise(snr=(2.0, 25.0), snr_per="voxel")(signal, REFERENCE, generators(0, 1), PLDS)
    assert image.shape == (2, 1, 1, 1)
    assert voxel.shape == (2, 1, 8, 8)
    for sigma in (image, voxel):
        assert ((REFERENCE / sigma >= 2) & (REFERENCE / sigma <= 25)).all()
        assert sigma.unique().numel() == sigma.numel()


def test_reference_may_differ_between_images():
    reference = torch.tensor([REFERENCE, 2 * REFERENCE], dtype=torch.float64)
    signal = torch.zeros(2, 12, 8, 8)
    noisy, sigma = noise()(signal, reference, generators(4, 4), PLDS)
    assert noisy.dtype == torch.float32
    assert torch.equal(2 * sigma[0], sigma[1])
    assert torch.equal(2 * noisy[0], noisy[1])


@pytest.mark.parametrize("model", ["gaussian", "rician", "control_label"])
def test_a_sample_is_the_same_in_any_batch(model):
    everything = noise(
        model=model,
        snr=(2.0, 25.0),
        snr_per="voxel",
        channel_factor="scan_time",
        physio=(0.03, 0.15),
        drift=0.03,
        spike_probability=0.05,
    )
    signal = torch.rand(3, 12, 8, 8) * 0.01
    batch, _ = everything(signal, REFERENCE, generators(5, 6, 7), PLDS)
    alone, _ = everything(signal[2:], REFERENCE, generators(7), PLDS)
    assert torch.equal(batch[2], alone[0])


def test_generators_give_each_sample_its_own_numbers():
    normal = standard_normal((12, 4, 4), generators(1, 2))
    assert normal.shape == (2, 12, 4, 4)
    assert torch.equal(normal[1], torch.randn(12, 4, 4, generator=torch.Generator().manual_seed(2)))
    values = uniform((2.0, 3.0), (500,), generators(1))
    assert 2.0 <= values.min() < 2.01 < 2.99 < values.max() <= 3.0


def test_channel_factors_follow_the_scan_time():
    assert channel_factors(PLDS, "none").tolist() == [1.0] * 12
    shorter, inverse = channel_factors(PLDS, "scan_time"), channel_factors(PLDS, "inverse")
    assert [round(shorter[channel].item(), 3) for channel in (0, 5, 6, 11)] == [0.396, 0.396, 0.399, 0.399]
    assert inverse[0].item() == pytest.approx(math.sqrt(25500 / 4500))
    assert inverse[6].item() == pytest.approx(math.sqrt(25116 / 4500))


def test_channel_factor_scales_the_thermal_noise():
    signal = torch.zeros(1, 12, 32, 32)
    plain, _ = noise()(signal, REFERENCE, generators(0), PLDS)
    scaled, _ = noise(channel_factor="inverse")(signal, REFERENCE, generators(0), PLDS)
    torch.testing.assert_close(scaled, plain * channel_factors(PLDS, "inverse").view(1, -1, 1, 1))


@pytest.mark.parametrize("model", ["gaussian", "control_label"])
@pytest.mark.parametrize("factor", ["none", "scan_time", "inverse"])
@pytest.mark.parametrize("snr_per", ["image", "voxel"])
def test_the_sd_that_is_told_is_that_of_the_noise_whatever_the_channel_factor(model, factor, snr_per):
    """What a network reads in training is then what it reads in validation: the sd that the images have."""
    signal = torch.full((2, 12, 64, 64), 4 * REFERENCE)
    drawn = noise(model=model, channel_factor=factor, snr=(5.0, 25.0), snr_per=snr_per)
    noisy, sigma = drawn(signal, REFERENCE, generators(0, 1), PLDS)
    assert ((noisy - signal) / sigma).square().mean().sqrt().item() == pytest.approx(1.0, rel=0.02)


def artefact(**changes):
    """What an artefact adds to the thermal noise, in thermal standard deviations (12, 64, 64)."""
    signal = torch.zeros(1, 12, 64, 64, dtype=torch.float64)
    plain, sigma = noise()(signal, REFERENCE, generators(0), PLDS)
    noisy, _ = noise(**changes)(signal, REFERENCE, generators(0), PLDS)
    return ((noisy - plain) / sigma)[0]


def test_drift_is_a_ramp_over_the_channels():
    ramp = artefact(drift=0.05)
    torch.testing.assert_close(ramp.diff(dim=0).std(dim=0), torch.zeros(64, 64, dtype=torch.float64), atol=1e-6, rtol=0)
    assert 0.045 < ramp[-1].abs().max() <= 0.05
    torch.testing.assert_close(ramp[0], -ramp[-1], atol=1e-6, rtol=0)


def test_physio_is_a_sinusoid_within_its_amplitude():
    wave = artefact(physio=(0.1, 0.2))
    assert 0.18 < wave.abs().max() <= 0.2 + 1e-6
    # A mean square of half the mean squared amplitude (0.0233), over phases drawn anew in 4096 voxels.
    assert wave.square().mean().item() == pytest.approx(0.0233 / 2, rel=0.03)


def test_spikes_are_rare_positive_and_of_one_height_in_a_voxel():
    spikes = artefact(spike_probability=0.05, spike_magnitude=(2.0, 8.0))
    hit = spikes > 1e-6
    assert hit.double().mean().item() == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / hit.numel()))
    assert spikes.min() > -1e-6
    assert 2 - 1e-6 <= spikes[hit].min() <= spikes.max() <= 8 + 1e-6
    lowest = spikes.masked_fill(~hit, 9.0).amin(0)
    torch.testing.assert_close(spikes.amax(0)[hit.any(0)], lowest[hit.any(0)], atol=1e-6, rtol=0)


def test_wrong_options_are_refused():
    with pytest.raises(ConfigError, match=r"noise.model: got 'pink', allowed are gaussian, rician, control_label"):
        noise(model="pink")
    with pytest.raises(ConfigError, match=r"noise.snr: got \[0.0, 5.0\], allowed is 0 < low <= high"):
        noise(snr=(0.0, 5.0))
    with pytest.raises(ConfigError, match=r"noise.channel_factor: got 'odd', allowed are none, scan_time, inverse"):
        channel_factors(PLDS, "odd")
    with pytest.raises(ConfigError, match=r"got 1 generators, 6 delays, signal \(2, 12, 4, 4\)"):
        noise()(torch.zeros(2, 12, 4, 4), REFERENCE, generators(0), PLDS)
