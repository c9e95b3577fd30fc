"""A scheduler is asked at most once in 30 s, whoever wants to know and however many."""

import multiprocessing
from collections.abc import Collection, Mapping
from pathlib import Path

import pytest

from assay.errors import SchedulerError
from assay.schedulers.client import SilentError
from assay.schedulers.words import LONGEST_S, POLL_S, Words


class Clock:
    """Seconds that a test commands."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Cluster:
    """Answers with `says`, or not at all, and counts how often it is asked."""

    def __init__(self, folder: Path) -> None:
        self.says: dict[str, str] | None = {"1": "RUNNING"}
        self.asked = 0
        self.clock = Clock()
        self.folder = folder

    def ask(self, earlier: Mapping[str, str], ids: Collection[str]) -> dict[str, str]:
        self.asked += 1
        if self.says is None:
            raise SchedulerError("nobody answers")
        return self.says

    def words(self) -> Words:
        """As another process would make them."""
        return Words(self.folder, self.ask, self.clock)


@pytest.fixture
def cluster(tmp_path) -> Cluster:
    return Cluster(tmp_path / "kept")


def test_many_readers_ask_once_in_thirty_seconds(cluster):
    for _ in range(100):
        assert cluster.words().known(["1"]) == {"1": "RUNNING"}
    assert cluster.asked == 1
    cluster.clock.now += POLL_S - 1
    cluster.words().known(["1"])
    assert cluster.asked == 1
    cluster.clock.now += 2
    cluster.words().known(["1"])
    assert cluster.asked == 2


def test_what_was_accepted_since_is_known_without_asking(cluster):
    cluster.words().known([])
    cluster.words().note({"2": "PENDING"})
    assert cluster.words().known(["1", "2", "3"]) == {"1": "RUNNING", "2": "PENDING"}
    assert cluster.asked == 1


def test_after_a_change_the_next_reader_asks(cluster):
    cluster.words().known([])
    cluster.words().expire()
    cluster.words().known([])
    assert cluster.asked == 2


def test_silence_is_told_with_the_last_words_and_asked_about_less_and_less_often(cluster):
    cluster.words().known(["1"])
    cluster.says = None
    cluster.clock.now += POLL_S + 1
    with pytest.raises(SilentError, match="nobody answers") as silence:
        cluster.words().known(["1"])
    assert silence.value.known == {"1": "RUNNING"}
    for wait, asked in [(POLL_S + 1, 2), (POLL_S, 3), (2 * POLL_S, 3), (2 * POLL_S + 1, 4), (LONGEST_S, 5)]:
        cluster.clock.now += wait
        with pytest.raises(SilentError):
            cluster.words().known(["1"])
        assert cluster.asked == asked


def test_a_person_need_not_wait_after_a_silence_but_does_after_an_answer(cluster):
    cluster.says = None
    for _ in range(2):
        with pytest.raises(SilentError):
            cluster.words().known(["1"], insist=True)
    cluster.says = {"1": "COMPLETED"}
    assert cluster.words().known(["1"], insist=True) == {"1": "COMPLETED"}
    assert cluster.asked == 3
    cluster.words().known(["1"], insist=True)
    assert cluster.asked == 3


def test_who_insists_asks_for_a_job_that_is_not_known(cluster):
    """It may have been accepted since, by somebody who died before it could be noted."""
    cluster.words().known(["1"])
    assert cluster.words().known(["1", "2"]) == {"1": "RUNNING"}
    assert cluster.asked == 1
    cluster.says = {"1": "RUNNING", "2": "PENDING"}
    assert cluster.words().known(["1", "2"], insist=True) == cluster.says
    assert cluster.asked == 2


def test_a_damaged_file_or_a_clock_that_went_back_only_cost_a_question(cluster):
    cluster.words().known([])
    cluster.words().path.write_text("{")
    assert cluster.words().known(["1"]) == {"1": "RUNNING"}
    cluster.clock.now -= 500
    assert cluster.words().known(["1"]) == {"1": "RUNNING"}
    assert cluster.asked == 3


def _look(folder: Path) -> None:
    def ask(earlier: Mapping[str, str], ids: Collection[str]) -> dict[str, str]:
        with (folder / "asked").open("a") as file:
            file.write("x")
        return {"1": "RUNNING"}

    assert Words(folder, ask).known(["1"]) == {"1": "RUNNING"}


def test_processes_that_want_to_know_at_once_ask_once(tmp_path):
    processes = [multiprocessing.get_context("fork").Process(target=_look, args=(tmp_path,)) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert {process.exitcode for process in processes} == {0}
    assert (tmp_path / "asked").read_text() == "x"


def test_where_nothing_can_be_kept_the_scheduler_is_asked_each_time(tmp_path):
    (tmp_path / "full").touch()
    cluster = Cluster(tmp_path / "full")
    for number in (1, 2):
        assert cluster.words().known(["1"]) == {"1": "RUNNING"}
        assert cluster.asked == number
    cluster.words().note({"2": "PENDING"})
    cluster.words().expire()
    assert (tmp_path / "full").read_bytes() == b""
