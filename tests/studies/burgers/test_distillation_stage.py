"""The stage distillation: the student starts as its teacher, is held to its ends, and cannot shrink unseen."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from tests.studies.burgers.conftest import PARAMS, TINY
from torch import Tensor

from assay.config import load as load_params
from assay.engine.precision import Precision
from assay.engine.random import generator
from assay.errors import CheckpointError
from assay.studies.burgers import autoencoder, corrector, distillation, networks, operator, simulate
from assay.studies.burgers.config import Params
from assay.studies.burgers.diffusion import integrate
from assay.studies.burgers.distillation import DistillationTask
from assay.studies.burgers.model import fingerprint

CPU = torch.device("cpu")
TEACHER = ["corrector.train.steps=60", "corrector.train.validate_every=20"]


def load(stage: networks.Stage) -> networks.Loaded:
    return networks.load(networks.model_path(stage), stage, CPU)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with data, an operator, and a teacher that has learnt something."""
    folder, params = tmp_path_factory.mktemp("made"), load_params(Params, PARAMS, [*TINY, *TEACHER])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage in (simulate, autoencoder, operator, corrector):
            stage.run(params)
    return folder


@pytest.fixture
def prepared(made, make_params, tmp_path):
    """The same in this folder; a function that gives parameters."""
    for name in ("data", "results"):
        shutil.copytree(made / name, tmp_path / name)
    return lambda *overrides: make_params(*TEACHER, *overrides)


@pytest.fixture
def task(prepared) -> DistillationTask:
    params = prepared()
    return DistillationTask(params, networks.open_data(params), load("operator"), load("corrector"), CPU)


def test_the_student_starts_as_its_teacher_and_the_teacher_stays(task):
    student = task.build()
    before = fingerprint(load("corrector").module)
    assert fingerprint(student) == before
    task.loss(student, next(task.batches(0)), generator("loss"))["consistency"].backward()
    assert all(parameter.grad is None for parameter in task.teacher.module.parameters())
    assert any(parameter.grad is not None for parameter in student.parameters())


def test_errors_keep_the_scale_of_the_teacher(task):
    assert next(task.batches(0)).scale == task.facts["scale"] == load("corrector").facts["scale"]
    assert task.facts == load("corrector").facts


def test_a_student_that_draws_nothing_is_plain_to_see(task):
    """x + v = 0 at the noise end: the published distillation rewarded this one, here it is the worst."""

    def nothing(x: Tensor, s: Tensor, predicted: Tensor, start: Tensor) -> Tensor:
        return -x

    metrics = task.evaluate(nothing).metrics
    assert metrics["correction_ratio"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["end"] == pytest.approx(1.0, abs=1e-6)
    assert metrics["consistency"] > 0.01  # near the end of the flow, x - (1 - s) x is not where the teacher ends


def test_a_student_that_ends_where_its_teacher_does_scores_ideally(task):
    config, teacher = task.params.corrector, task.teacher.module

    def ideal(x: Tensor, s: Tensor, predicted: Tensor, start: Tensor) -> Tensor:
        return integrate(teacher, x, predicted, start, steps=config.sampler_steps, method=config.sampler) - x

    found = task.compare(ideal)
    assert found["end"] == pytest.approx(0.0, abs=1e-5)
    assert (found["correction_ratio"], found["nrmse_ratio"]) == pytest.approx((1.0, 1.0), abs=1e-5)


def test_validation_repeats_itself(task):
    student = task.build()
    assert task.evaluate(student).metrics == task.evaluate(student).metrics


def test_the_stage_leaves_a_student_closer_to_the_ends_than_its_teachers_one_call(prepared, task):
    params = prepared(
        "distillation.train.steps=150", "distillation.train.validate_every=50", "distillation.train.batch_size=16"
    )
    as_teacher = task.compare(task.build())["end"]
    distillation.run(params)
    found = json.loads(Path("results/distillation/metrics.json").read_text())
    assert found["validation_end"] == pytest.approx(found["end"]) and found["end"] < 0.9 * as_teacher
    assert 0.5 < found["correction_ratio"] < 1.5
    student = load("distillation")
    assert student.facts == load("corrector").facts
    assert fingerprint(student.module) != fingerprint(load("corrector").module)


def test_the_shape_of_the_student_is_the_teachers_whatever_the_parameters_say(prepared):
    distillation.run(prepared("corrector.depth=2"))
    assert load("distillation").params.corrector == load("corrector").params.corrector


def test_the_ends_of_the_teacher_are_the_same_in_every_format(task, prepared):
    """A run that was interrupted after its last validation makes them without the student's format."""
    params = prepared()
    other = DistillationTask(params, networks.open_data(params), load("operator"), load("corrector"), CPU)
    short = Precision(dataclasses.replace(params.distillation.train, precision="bf16"), CPU)
    student = task.build()
    assert other.compare(short.network(student)) != task.compare(student)
    assert other.compare(student) == task.compare(student)


def test_a_teacher_of_another_operator_is_refused(prepared):
    params = prepared()
    operator.run(dataclasses.replace(params, seed=1))
    with pytest.raises(
        CheckpointError, match=r"results/corrector/model.safetensors: trained with operator \w{12}, not"
    ):
        distillation.run(params)


def test_another_teacher_makes_another_run(prepared, capsys):
    params = prepared()
    distillation.run(params)
    distillation.run(params)
    assert "goes on from step 4" in capsys.readouterr().err
    corrector.run(prepared("corrector.train.steps=4"))
    distillation.run(params)
    assert "goes on" not in capsys.readouterr().err


def test_a_missing_teacher_is_refused(prepared):
    params = prepared()
    networks.model_path("corrector").unlink()
    with pytest.raises(CheckpointError, match=r"results/corrector/model.safetensors: no such file"):
        distillation.run(params)
