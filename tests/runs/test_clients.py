"""What the supervisor makes of what it is told: where a stage is, and whose silence counts."""

import json
import math
import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.runs.clients import Client, messages, watched
from assay.runs.config import FloorsConfig, WatchConfig
from assay.runs.record import Progress, Stage, Work, from_json, to_json

FLOORS = FloorsConfig(load=60, train=5, validate=20, checkpoint=10, other=30)


class Speaker:
    """A client, told one message a second from `now` on unless a time is given."""

    def __init__(self, now: float = 0) -> None:
        self.end, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self.client = Client(ours, WatchConfig(factor=10, floors=FLOORS), now)
        self.now = now

    def says(self, kind: str, /, at: float | None = None, **facts: object) -> "Speaker":
        self.now = self.now + 1 if at is None else at
        self.client.hear({"type": kind, **facts}, self.now)
        return self

    def close(self) -> None:
        self.end.close()
        self.client.connection.close()


@pytest.fixture
def speaker() -> Iterator[Speaker]:
    made = Speaker()
    yield made
    made.close()


@pytest.fixture
def speakers() -> Iterator[list[Speaker]]:
    made = [Speaker(), Speaker(), Speaker()]
    yield made
    for each in made:
        each.close()


def counting(speakers: list[Speaker]) -> list[Speaker]:
    counted = watched([speaker.client for speaker in speakers])
    return [speaker for speaker in speakers if speaker.client in counted]


def test_every_announced_stage_must_go_on_speaking(speakers):
    for speaker in speakers[:2]:
        speaker.says("stage", study="toy", stage="train", facts={})
    speakers[2].says("phase", phase="train")
    assert counting(speakers) == speakers[:2]


def test_of_ranks_one_that_speaks_is_enough_for_they_wait_for_each_other(speakers):
    for rank, speaker in enumerate(speakers):
        speaker.says("hello", at=rank, pid=10, rank=str(rank), world_size="3")
        speaker.says("stage", at=rank, study="toy", stage="train", facts={})
        speaker.says("phase", at=rank, phase="train")
    assert counting(speakers) == speakers[2:]
    speakers[0].says("step", at=9, phase="train", done=1)
    speakers[1].says("step", at=8, phase="train", done=1)
    speakers[2].says("step", at=7, phase="train", done=1)
    assert counting(speakers) == speakers[:1]


@pytest.mark.parametrize(
    ("code", "counts"), [(None, False), (0, False), (75, False), (71, False), (1, True), (2, True)]
)
def test_of_ranks_the_first_is_kept_and_those_that_failed_themselves(speakers, code, counts):
    for rank, speaker in enumerate(speakers[:2]):
        speaker.says("hello", pid=10, rank=str(rank), world_size="2")
        speaker.says("stage", study="toy", stage="train", facts={})
        speaker.says("verdict", code=code)
    assert [speaker.client.counts for speaker in speakers[:2]] == [True, counts]


def test_a_program_that_has_ended_its_phases_may_wait_for_the_one_it_started(speakers):
    parent, child, _ = speakers
    parent.says("phase", phase="prepare").says("end", phase="prepare", seconds=1)
    child.says("phase", at=100, phase="train").says("step", phase="train")
    assert counting(speakers) == [child]


def test_nobodys_silence_counts_where_nobody_is_in_a_phase(speakers):
    speakers[0].says("hello", pid=1)
    speakers[1].says("phase", phase="prepare").says("end", phase="prepare", seconds=1)
    assert counting(speakers) == []


def test_forks_that_wait_are_no_stall_while_their_parent_moves(speakers):
    parent, fork, other = speakers
    for each in (fork, other):
        each.says("step", at=10, phase="train", done=1).says("step", phase="train", done=2)
    parent.says("phase", phase="train").says("step", at=1000, phase="train", done=5)
    assert counting(speakers) == [parent]
    assert not parent.client.silence.stalled(1005)


def test_a_parent_that_waits_is_no_stall_while_its_forks_move(speakers):
    parent, fork, _ = speakers
    parent.says("phase", phase="simulate")
    for step in range(1, 50):
        fork.says("step", at=step * 10, phase="simulate", done=step)
    assert counting(speakers) == [fork]


def test_it_is_a_stall_only_when_all_are_silent_for_longer_than_their_bounds(speakers):
    loading, training, _ = speakers
    loading.says("phase", at=0, phase="load").says("step", at=0.1, phase="load")
    training.says("phase", at=20, phase="train").says("step", at=20.1, phase="train")
    (counted,) = counting(speakers)
    assert training.client.silence.stalled(50)
    assert not counted.client.silence.stalled(50)
    assert counted.client.silence.stalled(61)


def test_the_time_to_the_next_step_is_that_of_the_phase_that_runs(speaker):
    speaker.says("phase", phase="load").says("step", at=500, phase="load")
    assert speaker.client.step_s() == 498 + 1
    speaker.says("end", phase="load", seconds=499)
    assert speaker.client.step_s() == 0
    speaker.says("phase", phase="train")
    assert speaker.client.step_s() == 0
    speaker.says("step", phase="train").says("phase", phase="checkpoint")
    assert speaker.client.step_s() == 1


def test_a_clock_that_is_set_back_or_forth_changes_no_duration(speaker, monkeypatch):
    now = time.time()
    for shift in (-86400, 86400):
        monkeypatch.setattr(time, "time", lambda shift=shift: now + shift)
        assert 0 <= speaker.client.elapsed_s() < 60


def test_a_pass_without_steps_measures_its_phase(speaker):
    speaker.says("phase", phase="train").says("phase", phase="checkpoint")
    assert speaker.client.silence.bound() == 60
    speaker.says("end", at=4, phase="checkpoint", seconds=2).says("phase", at=5, phase="checkpoint")
    assert speaker.client.silence.bound() == 20


def test_the_end_right_after_a_step_is_no_interval(speaker):
    speaker.says("phase", at=0, phase="train").says("step", at=8, phase="train").says("end", at=8, phase="train")
    speaker.says("phase", at=9, phase="train")
    assert speaker.client.silence.bound() == 80


def test_the_last_word_stays_when_all_phases_have_ended(speaker):
    speaker.says("stage", study="toy", stage="train", facts={"identity": "abc"})
    speaker.says("phase", phase="train", of=10, done=2, unit="batches")
    speaker.says("phase", phase="checkpoint").says("end", phase="checkpoint", done=1, seconds=0.1)
    speaker.says("end", phase="train", done=10, seconds=0.2, loss=0.5, epoch=3, bytes=7).says("verdict", code=0)
    shown = speaker.client.progress()
    assert (shown.study, shown.stage, shown.phase, shown.unit) == ("toy", "train", "train", "batches")
    assert (shown.done, shown.of, shown.loss, shown.epoch, shown.bytes_read) == (10, 10, 0.5, 3, 7)
    record = speaker.client.record()
    assert (record.stage, record.code, record.facts) == ("train", 0, {"identity": "abc"})
    assert record.seconds == {"checkpoint": [0.1], "train": [0.2]}


def test_the_outermost_count_and_the_innermost_name_are_shown(speaker):
    speaker.says("phase", phase="train", of=10).says("step", phase="train", done=4).says(
        "phase", phase="validate", of=2
    )
    shown = speaker.client.progress()
    assert (shown.phase, shown.done, shown.of) == ("validate", 4, 10)


def test_the_end_of_a_phase_that_was_not_heard_to_begin_ends_no_other(speaker):
    speaker.says("phase", phase="train").says("end", phase="load", seconds=1)
    assert speaker.client.progress().phase == "train"


@pytest.mark.parametrize("loss", [math.nan, math.inf, "low", True])
def test_a_loss_that_is_no_number_is_none_and_not_the_one_before(speaker, loss):
    speaker.says("phase", phase="train").says("step", phase="train", done=1, loss=0.5)
    speaker.says("step", phase="train", done=2, loss=loss)
    assert (speaker.client.progress().done, speaker.client.progress().loss) == (2, None)


def test_what_is_not_finite_in_a_message_arrives_as_nothing(speaker):
    speaker.end.send(json.dumps({"type": "stage", "facts": {"rates": [math.nan, 1.0]}}).encode())
    assert list(messages(speaker.client)) == [{"type": "stage", "facts": {"rates": [None, 1.0]}}]


def test_the_last_words_of_one_that_left_what_it_was_told_unread_are_heard(speaker):
    """Linux says then that the connection was reset, before it hands out what had been sent."""
    speaker.client.tell_limit(60.0)
    speaker.end.send(b'{"type": "verdict", "code": 0}')
    speaker.end.close()
    assert list(messages(speaker.client)) == [{"type": "verdict", "code": 0}, None]


def test_what_is_no_message_is_passed_over(speaker):
    for raw in (b"\xff", b"[1]", b"[" * 100_000, b'{"type": "hello"}'):
        speaker.end.send(raw)
    assert list(messages(speaker.client)) == [{"type": "hello"}]


def test_a_process_number_that_would_mean_a_group_is_not_taken(speaker):
    assert speaker.says("hello", pid=-1, stacks=None).client.pid == 0


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
KEYS = ["phase", "of", "done", "unit", "epoch", "loss", "bytes", "seconds", "pid", "stacks", "study", "stage"]
KEYS += ["facts", "code", "error", "kind"]
KINDS = st.sampled_from(["hello", "stage", "phase", "step", "end", "verdict"]) | VALUES


@settings(deadline=None)
@given(st.lists(st.tuples(KINDS, st.dictionaries(st.sampled_from(KEYS), VALUES | st.just("train"))), max_size=6))
def test_whatever_is_said_shows_that_its_sender_lives_and_leaves_a_record_that_can_be_read(said):
    with closing(Speaker()) as speaker:
        for kind, facts in said:
            speaker.says(kind, **facts)
            assert speaker.client.silence.silent(speaker.now) == 0
            speaker.client.step_s()
        shown, record = speaker.client.progress(), speaker.client.record()
    assert from_json(Progress, to_json(shown)) == shown
    assert from_json(Stage, to_json(record)) == record


def test_the_sums_of_a_phase_are_without_phases_within_it_and_without_earlier_attempts(speaker):
    speaker.says("phase", phase="train", of=10, done=4)
    for _ in range(25):
        speaker.says("phase", phase="validate", of=2, unit="members")
        speaker.says("end", phase="validate", done=2, seconds=0.5)
    speaker.says("end", phase="train", done=10, seconds=20.0, epoch=1.5)
    work = speaker.client.record().work
    assert work["validate"] == Work(passes=25, seconds=12.5, units=50, of=2, unit="members")
    assert work["train"] == Work(passes=1, seconds=7.5, units=6, of=10, epoch=1.5)
