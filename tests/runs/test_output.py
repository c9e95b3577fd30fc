"""What a command prints becomes lines, whatever pieces it arrives in."""

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.runs import output
from assay.runs.output import Lines, shown, stamped


@pytest.fixture
def pipe():
    read, write = os.pipe()
    yield read, write
    os.close(read)


def test_a_line_is_passed_on_when_it_is_whole(pipe):
    lines = Lines(pipe[0], 1)
    os.write(pipe[1], b"one\ntw")
    assert lines.read() == ["one"]
    os.write(pipe[1], b"o\n")
    assert lines.read() == ["two"]
    os.close(pipe[1])


def test_the_end_of_the_pipe_ends_the_line(pipe):
    lines = Lines(pipe[0], 1)
    os.write(pipe[1], b"last words")
    assert lines.read() == []
    os.close(pipe[1])
    assert lines.read() == ["last words"]
    assert not lines.open


def test_a_prompt_is_shown_after_a_moment(pipe, monkeypatch):
    lines = Lines(pipe[0], 1)
    os.write(pipe[1], b"name? ")
    lines.read()
    assert lines.held() == []
    monkeypatch.setattr(output, "HELD_S", -1)
    assert lines.held() == ["name? "]
    os.close(pipe[1])


def test_a_line_that_begins_where_another_ends_gets_its_own_moment(pipe, monkeypatch):
    monkeypatch.setattr(output, "HELD_S", 0.2)
    lines = Lines(pipe[0], 1)
    os.write(pipe[1], b"1\n1234")
    lines.read()
    time.sleep(0.3)
    os.write(pipe[1], b"5\n123")
    assert lines.read() == ["12345"]
    assert lines.held() == []
    os.write(pipe[1], b"46\n")
    assert lines.read() == ["12346"]
    os.close(pipe[1])


def test_a_bar_that_redraws_itself_is_lines(pipe):
    lines = Lines(pipe[0], 1)
    os.write(pipe[1], b"10 %\r20 %\r30 %\n\xff\r\n")
    assert lines.read() == ["10 %", "20 %", "30 %", "�"]
    os.close(pipe[1])


def test_a_line_longer_than_a_piece_is_cut_between_characters(pipe):
    lines, found = Lines(pipe[0], 1), []
    whole = "€".encode() * 100_000
    for start in range(0, len(whole), output.CHUNK_BYTES):
        os.write(pipe[1], whole[start : start + output.CHUNK_BYTES])
        found += lines.read()
    os.close(pipe[1])
    assert "".join(found + lines.read()) == "€" * 100_000


def test_half_a_character_at_the_end_is_shown_as_such(pipe):
    lines = Lines(pipe[0], 1)
    os.write(pipe[1], b"half \xe2\x82")
    assert lines.read() == []
    os.close(pipe[1])
    assert lines.read() == ["half �"]


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), max_size=20), st.data())
def test_no_piece_is_lost_however_it_is_cut(texts, data):
    whole = "".join(f"{text}\n" for text in texts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    read, write = os.pipe()
    lines, found = Lines(read, 1), []
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        os.write(write, whole[start:end])
        found += lines.read()
    os.close(write)
    found += lines.read()
    os.close(read)
    assert found == texts


def test_the_log_has_universal_time_and_the_terminal_local_time():
    at = 1_700_000_000.25
    assert stamped("x", at) == "2023-11-14T22:13:20.250Z x\n"
    assert shown("x", at) == time.strftime("%H:%M:%S x\n", time.localtime(at))
