"""The study's parameters: every leaf is read, by the stages that dvc.yaml names; contradictions are refused."""

import dataclasses
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from tests.contracts.reads import PLATEAU, SGD, Reads, incidental, not_below

from assay.config import load
from assay.config.fields import leaves
from assay.errors import ConfigError
from assay.studies.asl.config import FIELD_OF_VIEW, STAGES, Params
from assay.studies.asl.reference_object import brain_phantoms
from assay.studies.asl.sections import FLAGS

ROOT = Path(__file__).parents[3]


@pytest.fixture
def bids_folder(bids_dataset) -> Path:
    """A joint PCASL and VSASL data set at the delays of the default parameters."""
    dataset = bids_dataset(plds=(500.0, 1000.0, 1500.0, 2000.0, 2500.0, 3000.0))
    dataset.write_joint()
    return dataset.root


LEGACY = [
    "legacy.mispaired_evaluation=true",
    "legacy.weak_noise=true",
    "legacy.inactive_randomisation=true",
    "physics.randomise=baseline",
    "legacy.published_sensitivity=true",
    "legacy.published_statistics=true",
    "legacy.steps_per_epoch=2",
    "train.steps=null",
    "train.epochs=1",
]
SCHEDULED = [f"train.{each}" for each in (*SGD, *PLATEAU)]
ARMS = {
    "homogeneous": ["model.learned_variance=true", "loss.nll_weight=1", *SCHEDULED, "train.ema_decay=0.9"],
    "spatial": ["model.architecture=spatial", "model.normalisation=per_curve", "model.first_norm=true", *LEGACY],
    "amplitude_aware": [
        "model.architecture=amplitude_aware",
        "model.normalisation=global_scale",
        "model.use_film_at_bottleneck=true",
        "model.use_film_at_decoder=true",
        "model.use_amplitude_output_modulation=true",
        "loss.dc_weight=0.1",
        "loss.variance_weight=0.1",
        "data.source=simulated",
        "physics.randomise=extended",
        "train.patience=1",
    ],
    "dual_encoder": [
        "model.architecture=dual_encoder",
        "model.normalisation=global_scale",
        "model.constrained_outputs=true",
    ],
}


def arm(name: str, make_params) -> Params:
    unread = FLAGS["homogeneous"] if name != "homogeneous" else ()
    cleared = [f"model.{flag}=null" for flag in unread if flag not in FLAGS[name]]
    return make_params(*cleared, *ARMS[name])


def test_every_leaf_is_read_in_full_runs_by_the_stages_that_declare_it_and_by_no_other(
    make_params, tmp_path, monkeypatch, bids_folder
):
    monkeypatch.chdir(tmp_path)
    reads = Reads(Params, monkeypatch)
    every_leaf = {key for key, _, _ in leaves(make_params())}
    read_by: dict[str, set[str]] = {stage: set() for stage in STAGES}
    for name in ARMS:
        maps = tmp_path / f"maps-{name}"
        paths = make_params(f"predict.bids={bids_folder}", f"predict.output={maps}").predict
        params = dataclasses.replace(arm(name, make_params), predict=paths)
        for stage, declared in STAGES.items():
            read = reads.of(stage, "asl", params)
            assert not_below(read - incidental(params), declared) == set(), f"{stage} of {name}"
            read_by[stage] |= read
    assert every_leaf - set[str]().union(*read_by.values()) == set()
    for stage, declared in STAGES.items():
        unread = every_leaf - incidental(params) - read_by[stage]
        assert unread == not_below(unread, declared), f"{stage} would run again for nothing"


def test_dvc_tracks_the_parameters_that_each_stage_declares():
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
    assert {name: tuple(stage["params"]) for name, stage in stages.items()} == {
        name: keys for name, keys in STAGES.items() if name != "predict"
    }


CONTRADICTIONS = {
    "model.hidden_sizes=[]": r"model\.hidden_sizes: got \[\]; allowed: a list of 2 or more whole numbers >= 8",
    "model.hidden_sizes=[24,50]": r"model\.hidden_sizes: got \[24, 50\]; allowed: multiples of 8",
    "physics.plds=[500,400]": r"physics\.plds: got \[500\.0, 400\.0\]; allowed: delays that increase",
    "physics.plds=[500,500]": r"physics\.plds: got \[500\.0, 500\.0\]; allowed: delays that increase",
    "train.epochs=3": r"train\.steps: got steps \d+ and epochs 3\.0; allowed: exactly one",
    "train.steps=null": r"train\.steps: got steps null and epochs null; allowed: exactly one",
    "model.first_norm=true": r"model\.first_norm: got true; allowed: null with architecture homogeneous",
    "model.learned_variance=true": r"model\.learned_variance: got true; allowed: false unless loss\.nll_weight > 0",
    "loss.nll_weight=1": r"loss\.nll_weight: got 1; allowed: 0 unless model\.learned_variance is true",
    "noise.snr=[25,3]": r"noise\.snr: got \[25\.0, 3\.0\]; allowed: lower end first; give \[3, 25\]",
    "evaluation.reference_snr=7": r"evaluation\.reference_snr: got 7; allowed: one of evaluation\.snr",
    "sensitivity.scales=[2,1,0.5]": r"sensitivity\.scales: got \[2\.0, 1\.0, 0\.5\]; allowed: increasing factors",
    "legacy.steps_per_epoch=1000": r"legacy\.steps_per_epoch: got 1000; allowed: null with train\.steps",
    "legacy.inactive_randomisation=true": r"legacy\.inactive_randomisation: got true; allowed: false with",
    "data.validation_phantoms=1000": r"data\.validation_phantoms: got 1000; allowed: less than data\.phantoms",
    "train.optimizer.momentum=0.9": r"train\.optimizer\.momentum: got 0\.9; allowed: null with name adamw",
    "train.optimizer.betas=null": r"train\.optimizer\.betas: got null; allowed: two numbers with name adamw",
    "train.schedule.plateau_factor=0.5": r"train\.schedule\.plateau_factor: got 0\.5; allowed: null with name onecycle",
    "data.image_size=16 model.hidden_sizes=[8,8,8,8,8,8]": r"data\.image_size: got 16; allowed: >= 32 with 6",
    "loss.cbf_weight=0 loss.att_weight=0": r"loss: got no positive weight",
    "data.image_size=256": r"data\.image_size: got 256; allowed: <= 192 with the family brain; .* leave brain out",
    "evaluation.cbf_max=250": r"evaluation\.cbf_max: got 250.*; allowed: a number > 0, <= 200",
    "evaluation.snr=[10,10,5]": r"evaluation\.snr: got \[10\.0, 10\.0, 5\.0\]; allowed: each value once; drop repeats",
    "evaluation.families=[voronoi,voronoi]": r"evaluation\.families: got \['voronoi', 'voronoi'\]; allowed: each value",
    "sensitivity.scales=[0.01,1,300]": r"sensitivity\.scales.*: got .*300.*; allowed: .*< 200",
    "evaluation.families=[brain]": r"evaluation\.families: got \['brain'\]; allowed: a list that contains voronoi",
}


@pytest.mark.parametrize("overrides", CONTRADICTIONS)
def test_contradictions_are_refused_with_the_key_and_the_way_out(overrides):
    with pytest.raises(ConfigError, match=CONTRADICTIONS[overrides]):
        load(Params, ROOT / "params.yaml", overrides.split())


def test_finer_images_than_those_of_the_reference_brain_are_allowed_without_it():
    params = load(Params, ROOT / "params.yaml", ["data.image_size=256", "evaluation.families=[voronoi]"])
    assert params.data.image_size > FIELD_OF_VIEW
    assert brain_phantoms(slices=1, size=FIELD_OF_VIEW).mask.any()
