"""What follows from a forecast: hours, money, jobs at a time, jobs one after another, and what is refused."""

import pytest
from tests.matrix.forecast.conftest import ARMS, HEAD, look, runs

from assay.__main__ import main
from assay.errors import ConfigError
from assay.machine import MachineConfig
from assay.matrix.arms import resolve
from assay.matrix.forecast.budget import Piece, against, elapsed_share, jobs_needed, unfit
from assay.matrix.forecast.forecast import chain_lengths
from assay.matrix.forecast.scaling import Estimate
from assay.matrix.study import BudgetConfig
from assay.runs.record import Job
from assay.schedulers.config import VastConfig


def test_hours_and_money_follow_from_the_machine(study):
    path = study(HEAD + "budget: {hours: 0.001, money: 1000}\n" + ARMS)
    runs(path, "base", {})
    found = look(path, price=2.0, jobs=4)
    assert found.money.value == pytest.approx(2 * found.seconds.value / 3600)
    assert found.gpu_hours.value == 0
    (line,) = found.over_budget
    assert line.startswith("budget.hours: what is spent and what is missing make ") and line.endswith("more than 0.001")


def test_more_jobs_than_runs_are_no_faster_than_the_longest_run(study):
    path = study()
    runs(path, "base", {})
    found = look(path, jobs=100)
    assert found.missing == 6
    # `longer` has a data set of its own
    assert found.elapsed_s.value == pytest.approx(found.arms["longer"].seconds.value)


def test_as_many_rented_machines_as_the_machine_file_says_work_at_a_time(study):
    path = study(HEAD.replace("[0, 1, 2]", "[0, 1, 2, 3, 4, 5, 6, 7]") + "arms: {base: {reason: the reference}}\n")
    runs(path, "base", {}, noises=(0.0,), study="another", job=Job(scheduler="vast", id="000001", node="vast-10"))
    serial, found = (look(path, scheduler="vast", vast=VastConfig(machines=number)) for number in (1, 4))
    assert found.missing == 8 and serial.elapsed_s == serial.seconds
    assert found.elapsed_s.value == pytest.approx(serial.seconds.value / 4)


@pytest.mark.parametrize(
    ("runs_s", "jobs", "elapsed"),
    [([3, 3, 3, 3], 1, 12), ([3, 3, 3, 3], 2, 6), ([3, 3, 3], 2, 6), ([1, 1, 4], 2, 5), ([5], 8, 5), ([], 2, 0)],
)
def test_as_many_runs_as_jobs_go_on_at_a_time(runs_s, jobs, elapsed):
    assert elapsed_share(runs_s, jobs) * sum(runs_s) == pytest.approx(elapsed)


@pytest.mark.parametrize(
    ("bound", "words"), [(5.0, ", more than 5"), (9.0, ", probably more than 9"), (11.0, "perhaps")]
)
def test_a_budget_is_exceeded_surely_probably_or_perhaps(bound, words):
    taken = Estimate(value=10, low=8, high=12)
    (line,) = against(BudgetConfig(money=bound), taken, taken)
    assert words in line
    assert list(against(BudgetConfig(money=12.0), taken, taken)) == []


def test_a_chain_has_as_many_jobs_as_the_limit_asks_for():
    train, rest = (
        Piece(name="train", seconds=10_000, continues=True),
        Piece(name="validate", seconds=900, continues=False),
    )
    assert jobs_needed([train, rest], None, 60) == 1
    assert jobs_needed([train, rest], 20_000, 60) == 1
    # 5,400 s of training in each of two jobs leave no room for a validation of 900 s
    assert jobs_needed([train, rest], 5_500, 60) == 3
    assert jobs_needed([rest, rest, rest], 1_000, 60) == 3
    assert jobs_needed([train, rest], 900, 60) == 0 and [each.name for each in unfit([train, rest], 900, 60)] == [
        "validate"
    ]


def test_a_stage_that_fits_into_no_job_is_refused_by_submit_and_shown_by_plan(study, capsys):
    long = {"evaluation.phantoms": 500}
    path = study((HEAD + ARMS).replace("train.steps: 100}", "train.steps: 100, evaluation.phantoms: 500}"))
    runs(path, "base", long)
    words = r"arms\.base: validate takes about 52 s and cannot stop and go on; allowed: 80 s, wall_limit of short"
    with pytest.raises(ConfigError, match=words):
        chain_lengths(path, resolve(path), MachineConfig(name="short", wall_limit=80.0))
    (path.parent / "machine.yaml").write_text("name: short\nwall_limit: 80\n")
    assert main(["plan", str(path), "--machine", str(path.parent / "machine.yaml")]) == 0
    assert "refused by submit: arms.base: validate takes" in capsys.readouterr().out


def test_jobs_are_told_for_every_arm(study):
    path = study()
    runs(path, "base", {})
    lengths = chain_lengths(path, resolve(path), MachineConfig(wall_limit=2000.0))
    assert lengths["base"] == 1 and lengths["longer"] in (3, 4)
    assert chain_lengths(path, resolve(path), MachineConfig()) == {"base": 1, "longer": 1, "rate": 1}
