"""What every scheduler has to do, of a real Slurm: those of tests/contracts/test_scheduler.py that need no stand-in."""

import pytest
from tests.contracts import test_scheduler as contract
from tests.contracts.test_scheduler import job as job

from assay.schedulers.config import SlurmConfig
from assay.schedulers.slurm import Slurm

pytestmark = pytest.mark.slurm


@pytest.fixture
def scheduler(slurm, tmp_path, monkeypatch) -> Slurm:
    """Its jobs take a whole node, so that few run at a time."""
    monkeypatch.setattr("assay.schedulers.words.POLL_S", 0.0)
    return Slurm(tmp_path / "slurm", SlurmConfig(partition="main", options=("--exclusive",)))


def test_a_job_runs_in_its_folder(scheduler, job, tmp_path):
    contract.test_a_job_runs_in_its_folder_and_its_output_is_appended_to_its_log(scheduler, job, tmp_path)


def test_a_job_is_alive_to_its_end(scheduler, job, tmp_path):
    contract.test_a_job_is_alive_from_its_submission_to_its_end(scheduler, job, tmp_path)


def test_a_job_whose_id_was_lost_is_found(scheduler, job, tmp_path):
    contract.test_a_job_whose_id_was_lost_is_found_while_it_is_alive(scheduler, job, tmp_path)


def test_a_job_that_nobody_submitted_is_unknown(scheduler):
    contract.test_a_job_that_nobody_submitted_is_unknown_and_can_be_cancelled_without_harm(scheduler)


def test_a_running_job_that_is_cancelled_is_asked(scheduler, job, tmp_path):
    contract.test_a_running_job_that_is_cancelled_is_asked_to_end(scheduler, job, tmp_path)


def test_75_is_given_again(scheduler, job, tmp_path):
    contract.test_a_job_that_ends_with_75_is_given_again(scheduler, job, tmp_path)


def test_failure_is_not(scheduler, job, tmp_path):
    contract.test_a_job_that_fails_is_not_given_again(scheduler, job, tmp_path)


def test_names_and_arguments_may_hold_anything(scheduler, job, tmp_path):
    contract.test_names_and_arguments_may_hold_anything(scheduler, job, tmp_path)


def test_a_chain_ends_with_its_last_job(scheduler, job, tmp_path):
    contract.test_no_more_attempts_are_made_than_a_chain_has_jobs(scheduler, job, tmp_path)


def test_76_goes_elsewhere(scheduler, job, tmp_path):
    contract.test_the_node_of_a_job_that_ends_with_76_gets_no_more_of_its_chain(scheduler, job, tmp_path)


def test_76_on_two_nodes_is_the_run(scheduler, job, tmp_path):
    contract.test_a_job_that_ends_with_76_on_a_second_node_is_itself_suspect(scheduler, job, tmp_path)


def test_a_node_is_avoided(scheduler, job, tmp_path):
    contract.test_a_job_avoids_the_nodes_it_is_told_to(scheduler, job, tmp_path)
