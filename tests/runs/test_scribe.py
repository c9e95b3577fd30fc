"""A scribe writes for somebody who must never wait."""

import os
import select
import time

from assay.runs import scribe
from assay.runs.processes import state
from assay.runs.scribe import Scribe


def test_every_message_is_answered_in_order():
    writer = Scribe(lambda message: {"seen": message["number"]})
    for number in range(100):
        writer.send({"number": number})
    assert [answer["seen"] for answer in writer.drain(5)] == list(range(100))
    writer.close()
    assert os.waitpid(writer.pid, 0)[1] == 0


def test_sending_to_one_that_hangs_takes_no_time(monkeypatch):
    monkeypatch.setattr(scribe, "BACKLOG_BYTES", 2**20)
    writer = Scribe(lambda message: time.sleep(60) or {})
    begun = time.monotonic()
    for _ in range(2000):
        writer.send({"text": "x" * 1000})
    assert time.monotonic() - begun < 1
    assert writer.dropped > 0
    assert writer.drain(0.1) == []
    writer.close()
    assert os.WTERMSIG(os.waitpid(writer.pid, 0)[1]) == 9


def test_text_goes_in_batches_and_messages_go_before_it(monkeypatch):
    writer = Scribe(
        lambda message: time.sleep(0.02) or {"got": message.get("text", "message"), "of": message.get("of")}
    )
    lines = [f"{number}\n" for number in range(100_000)]
    for line in lines:
        writer.add({"of": 1}, line)
    writer.add({"of": 2}, "other\n")
    writer.send({})
    answers = writer.drain(10)
    got = [answer["got"] for answer in answers]
    assert got.index("message") <= 3 and len(got) < 15
    got.remove("message")
    assert "".join(got[:-1]) == "".join(lines) and got[-1] == "other\n"
    assert all(len(text) < scribe.BATCH + 10 for text in got)
    writer.close()


def test_text_without_room_is_counted_until_half_the_room_is_free(monkeypatch):
    monkeypatch.setattr(scribe, "BACKLOG_BYTES", 2**19)
    gate, opener = os.pipe()
    writer = Scribe(lambda message: {"text": message["text"], "open": len(os.read(gate, 1))}, gate)
    lines = [f"{number:06d} {'x' * 100}\n" for number in range(10_000)]
    for line in lines:
        writer.add({}, line)
    assert writer.full and writer.dropped > 1000
    os.write(opener, b"." * 100)
    got = "".join(answer["text"] for answer in writer.drain(5))
    assert got == "".join(lines[: len(lines) - writer.dropped]) and not writer.full
    writer.close()
    os.close(gate)
    os.close(opener)


def test_one_that_was_killed_is_known_and_waited_for_no_more():
    writer = Scribe(lambda message: time.sleep(60) or {})
    writer.send({})
    os.kill(writer.pid, 9)
    begun = time.monotonic()
    assert writer.drain(10) == [] and writer.dead
    writer.send({})
    writer.add({}, "x")
    assert writer.drain(10) == [] and time.monotonic() - begun < 2
    writer.close()
    os.waitpid(writer.pid, 0)


def test_it_ends_when_its_owner_does(tmp_path):
    end, told = os.pipe()
    owner = os.fork()
    if owner == 0:
        writer = Scribe(lambda message: {})
        os.write(told, str(writer.pid).encode())
        os._exit(0)
    os.close(told)
    pid = int(os.read(end, 20))
    os.waitpid(owner, 0)
    assert os.read(end, 1) == b""  # the scribe held the other end, unless it closed it at once
    os.close(end)
    deadline = time.monotonic() + 5
    while state(pid) not in (None, "Z"):
        assert time.monotonic() < deadline, "still there"
        time.sleep(0.01)


def test_one_that_hangs_does_not_hold_the_output_of_its_owner():
    end, output = os.pipe()
    owner = os.fork()
    if owner == 0:
        os.dup2(output, 1)
        os.close(output)
        writer = Scribe(lambda message: time.sleep(60) or {})
        writer.send({"number": 1})
        os.write(1, str(writer.pid).encode())
        os._exit(0)
    os.close(output)
    os.waitpid(owner, 0)
    pid = int(os.read(end, 20))
    try:
        assert select.select([end], [], [], 5)[0], "the output is still open"
        assert os.read(end, 1) == b""
    finally:
        os.kill(pid, 9)
        os.close(end)
