"""Held-out phantoms, their scans, the controls, and what a row of the score table says."""

import pytest
import torch
from scipy.ndimage import uniform_filter
from torchmetrics.functional.image import structural_similarity_index_measure

from assay.engine.train import Trained
from assay.errors import CheckpointError, DataError
from assay.studies.asl.bootstrap import resamples
from assay.studies.asl.dataset import nominal_physics
from assay.studies.asl.estimators import baselines, clamped, constant, estimate_all, least_squares, load_for
from assay.studies.asl.evaluation import ALL, Scores, local_similarity, score_maps
from assay.studies.asl.heldout import OUTSIDE, STRATA, brain, scan, voronoi
from assay.studies.asl.model import PUBLISHED_STATISTICS, build
from assay.studies.asl.physics import reference_signal
from assay.studies.asl.trained import Maps, save_trained

CPU = torch.device("cpu")
PLACE = ("voronoi", 10.0, ALL)


def truth_maps(phantoms) -> Maps:
    return Maps(phantoms.clean.cbf, phantoms.clean.att, None, None)


def scores_of(phantoms, **maps: Maps) -> Scores:
    """Scores of maps beside least squares that are off by 1 and smoothed ones that are off by 2."""
    truth = truth_maps(phantoms)
    rivals = {
        "least_squares": truth._replace(cbf=truth.cbf + 1, att=truth.att + 1),
        "smoothed_least_squares": truth._replace(cbf=truth.cbf + 2, att=truth.att + 2),
    }
    measured = scan(phantoms, 10.0, "test")
    return Scores(score_maps(phantoms, measured, 10.0, maps | rivals, resamples(len(phantoms.number), 100)))


# Held-out phantoms


def test_phantoms_do_not_depend_on_the_seed_or_on_their_number(make_params):
    one = voronoi(make_params("seed=0"), 2, "test")
    other = voronoi(make_params("seed=5"), 4, "test")
    assert torch.equal(one.clean.cbf, other.clean.cbf[:2])
    assert torch.equal(one.clean.signal, other.clean.signal[:2])


def test_purposes_have_phantoms_of_their_own(make_params):
    params = make_params()
    assert not torch.equal(voronoi(params, 2, "one").clean.cbf, voronoi(params, 2, "other").clean.cbf)


def test_noise_has_the_requested_snr(make_params):
    phantoms = voronoi(make_params("data.image_size=64"), 3, "test")
    measured = scan(phantoms, 10.0, "test")
    sd = (measured.signal - phantoms.clean.signal).std()
    assert float(reference_signal(phantoms.clean.physics) / sd) == pytest.approx(10, rel=0.02)
    assert torch.allclose(measured.sigma, reference_signal(phantoms.clean.physics).float() / 10)


def test_noise_is_keyed_by_family_phantom_and_snr(make_params):
    params = make_params()
    noise = {}
    for count, snr in ((2, 10.0), (3, 10.0), (2, 5.0)):
        phantoms = voronoi(params, count, "test")
        measured = scan(phantoms, snr, "test")
        noise[count, snr] = ((measured.signal - phantoms.clean.signal) / measured.sigma)[:2]
    assert torch.equal(noise[2, 10.0], noise[3, 10.0])
    assert not torch.allclose(noise[2, 10.0], noise[2, 5.0], atol=0.1)


def test_strata_are_disjoint_and_leave_out_what_has_no_perfusion(make_params):
    phantoms = voronoi(make_params("data.image_size=64"), 6, "test")
    assert torch.equal(phantoms.mask, phantoms.clean.cbf > 1)
    assert set(phantoms.strata.unique().tolist()) == {*range(len(STRATA)), OUTSIDE}


def test_randomised_physics_differs_between_phantoms_unless_inactive(make_params):
    params = make_params("physics.randomise=baseline")
    assert voronoi(params, 3, "test").clean.physics.t1_artery.unique().numel() == 3
    inactive = make_params("physics.randomise=baseline", "legacy.inactive_randomisation=true")
    assert voronoi(inactive, 3, "test").clean.physics == nominal_physics(inactive)


def test_the_brain_is_judged_inside_its_mask(make_params):
    phantoms = brain(make_params(), "test")
    assert phantoms.family == "brain"
    assert 0.2 < phantoms.mask.float().mean() < 0.8
    assert (phantoms.clean.cbf[phantoms.mask] > 1).all()


# Controls


def test_least_squares_recovers_noise_free_maps(make_params):
    params = make_params()
    phantoms = voronoi(params, 2, "test")
    measured = scan(phantoms, 1e9, "test")
    maps = clamped(least_squares(params)(measured))
    assert torch.allclose(maps.cbf[phantoms.mask].float(), phantoms.clean.cbf[phantoms.mask], rtol=1e-3)


def test_only_true_physics_is_unbiased_when_physics_varies(make_params):
    params = make_params("physics.randomise=extended", "data.image_size=32")
    phantoms = voronoi(params, 3, "test")
    maps = estimate_all(baselines(params), scan(phantoms, 100.0, "test"), CPU)
    error = {name: float((each.cbf - phantoms.clean.cbf)[phantoms.mask].abs().mean()) for name, each in maps.items()}
    assert error["least_squares_nominal"] > 10 * error["least_squares"]


def test_nominal_rows_exist_only_where_physics_varies(make_params):
    assert list(baselines(make_params())) == ["least_squares", "smoothed_least_squares"]
    assert len(baselines(make_params("physics.randomise=baseline"))) == 4
    assert len(baselines(make_params("physics.randomise=baseline", "legacy.inactive_randomisation=true"))) == 2


def test_the_constant_predictor_is_the_training_mean(make_params):
    measured = scan(voronoi(make_params(), 2, "test"), 10.0, "test")
    maps = constant(PUBLISHED_STATISTICS)(measured)
    assert maps.cbf.unique().tolist() == [60.0] and maps.att.unique().tolist() == [1750.0]


def test_every_estimator_is_clamped_alike_and_failures_stay_visible():
    maps = clamped(Maps(torch.tensor([[-5.0, 500.0, torch.nan]]), torch.tensor([[-5.0, 9000.0, 1.0]]), None, None))
    assert maps.cbf[0, :2].tolist() == [0, 200] and maps.cbf[0, 2].isnan()
    assert maps.att.tolist() == [[0, 5000, 1]]


OTHER_PHYSICS = {
    "physics.plds=[500,1000]": r"physics\.plds: got \[500\.0, 1000\.0\]; allowed: \[500\.0, .* 3000\.0\], with which",
    "physics.t1_artery=1650": r"physics\.t1_artery: got 1650; allowed: 1850, with which the model in .* or train again",
}


@pytest.mark.parametrize("override", OTHER_PHYSICS)
def test_a_model_of_another_signal_model_is_refused(override, make_params, tmp_path):
    params = make_params()
    physics, plds = nominal_physics(params), params.physics.plds
    module = build(params.model, plds=plds, physics=physics, statistics=PUBLISHED_STATISTICS)
    state = {name: value[None] for name, value in module.state_dict().items()}
    fields = {"best_value": [0.0], "best_step": [0], "steps": 0, "samples": 0, "epochs": 0.0, "rows": []}
    save_trained(tmp_path, Trained(best=state, last=state, **fields), params, PUBLISHED_STATISTICS, "some run")
    for judged in (params, make_params("physics.randomise=baseline")):
        assert load_for(judged, tmp_path, CPU).members == 1
    with pytest.raises(CheckpointError, match=OTHER_PHYSICS[override]):
        load_for(make_params(override), tmp_path, CPU)


# Scores


def test_the_truth_scores_perfectly_and_wins_every_voxel(make_params):
    phantoms = voronoi(make_params(), 3, "test")
    scores = scores_of(phantoms, network=truth_maps(phantoms))
    for quantity in ("cbf", "att"):
        perfect = {"mae": 0, "r2": 1, "win_rate": 1, "mae_ratio": 0, "mae_ratio_smoothed": 0, "ssim": 1}
        for metric, value in perfect.items():
            assert scores.value(PLACE, "network", quantity, metric) == pytest.approx(value, abs=1e-6)
        assert scores.value(PLACE, "least_squares", quantity, "win_rate") == 0
        assert scores.value(PLACE, "least_squares", quantity, "mae") == pytest.approx(1, rel=1e-4)
        assert scores.value(PLACE, "least_squares", quantity, "mae_ratio_smoothed") == pytest.approx(0.5, rel=1e-4)


def test_strata_add_up_to_all_voxels(make_params):
    phantoms = voronoi(make_params("data.image_size=64"), 3, "test")
    noisy = truth_maps(phantoms)._replace(cbf=phantoms.clean.cbf + torch.randn(3, 64, 64))
    scores = scores_of(phantoms, network=noisy)
    parts = [scores.get((*PLACE[:2], kind), "network", "cbf", "mae") for kind in STRATA]
    whole = scores.get(PLACE, "network", "cbf", "mae")
    assert sum(part.n_voxels for part in parts if part) == whole.n_voxels == int(phantoms.mask.sum())
    mean = sum(part.value * part.n_voxels for part in parts if part) / whole.n_voxels
    assert mean == pytest.approx(whole.value)
    assert whole.low < whole.value < whole.high


def test_an_error_in_lesions_shows_in_their_stratum_alone(make_params):
    phantoms = voronoi(make_params("data.image_size=64"), 6, "test")
    where = phantoms.strata == STRATA.index("lesion")
    maps = truth_maps(phantoms)._replace(cbf=phantoms.clean.cbf + 10 * where)
    scores = scores_of(phantoms, network=maps)
    assert scores.value((*PLACE[:2], "lesion"), "network", "cbf", "mae") == pytest.approx(10, rel=1e-5)
    assert scores.value((*PLACE[:2], "grey"), "network", "cbf", "mae") == 0


def test_a_scan_of_other_phantoms_is_refused(make_params):
    phantoms = voronoi(make_params(), 3, "test")
    measured = scan(phantoms, 10.0, "test")._replace(number=torch.tensor([0, 2, 1]))
    maps = dict.fromkeys(("least_squares", "smoothed_least_squares"), truth_maps(phantoms))
    with pytest.raises(DataError, match=r"pairing: voxel \d+ is \(phantom 1"):
        score_maps(phantoms, measured, 10.0, maps, resamples(3, 100))


def test_coverage_exists_where_standard_deviations_do(make_params):
    phantoms = voronoi(make_params(), 2, "test")
    wide = truth_maps(phantoms)._replace(cbf_std=torch.ones(2, 16, 16), att_std=torch.ones(2, 16, 16))
    scores = scores_of(phantoms, network=wide)
    assert scores.value(PLACE, "network", "cbf", "coverage_95") == 1
    assert scores.get(PLACE, "least_squares", "cbf", "coverage_95") is None


def test_structural_similarity_falls_with_blur(make_params):
    phantoms = voronoi(make_params("data.image_size=64"), 2, "test")
    blurred = torch.from_numpy(uniform_filter(phantoms.clean.cbf.numpy(), (0, 5, 5)))
    scores = scores_of(phantoms, network=truth_maps(phantoms)._replace(cbf=blurred))
    assert 0.3 < scores.value(PLACE, "network", "cbf", "ssim") < 0.99


def test_structural_similarity_is_that_of_torchmetrics_where_nothing_is_masked():
    random = torch.Generator().manual_seed(0)
    truth = torch.rand(2, 24, 24, generator=random, dtype=torch.float64)
    estimate = truth + 0.2 * torch.rand(2, 24, 24, generator=random, dtype=torch.float64)
    local = local_similarity(estimate, truth, torch.ones(2, 24, 24, dtype=torch.bool))
    options = {"gaussian_kernel": False, "kernel_size": 7, "data_range": 1.0, "return_full_image": True}
    _, expected = structural_similarity_index_measure(estimate[:, None], truth[:, None], **options)
    whole = slice(3, -3)  # where no window reaches over the border
    torch.testing.assert_close(local[:, whole, whole], expected[:, 0, whole, whole])


def test_structural_similarity_does_not_see_what_lies_outside_the_mask(make_params):
    phantoms = voronoi(make_params("data.image_size=64"), 2, "test")
    noise = 100 * torch.randn(2, 64, 64, generator=torch.Generator().manual_seed(0))
    estimate = truth_maps(phantoms)._replace(att=phantoms.clean.att + noise)
    outside = torch.where(phantoms.mask, phantoms.clean.att, 5000.0)
    changed = phantoms._replace(clean=phantoms.clean._replace(att=outside))
    values = [scores_of(each, network=estimate).value(PLACE, "network", "att", "ssim") for each in (phantoms, changed)]
    assert values[0] == pytest.approx(values[1], abs=1e-9) and 0.1 < values[0] < 0.9
