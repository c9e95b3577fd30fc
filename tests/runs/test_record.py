"""Records as JSON and back: nothing is lost, later versions can be read, anything else is refused in one line."""

import dataclasses
import json
import time
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.errors import DataError
from assay.runs.record import SCHEMA, Attempt, Holder, Progress, Run, Stage, from_json, to_json

HOLDER = {"host": "node", "pid": 1, "start_ticks": 2, "boot_id": "b"}
LEAST = {"number": 1, "holder": HOLDER, "command": ["true"], "started": 1, "heartbeat": 2.5}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner), max_leaves=3
)


def values(hint: Any) -> st.SearchStrategy:
    """Every value a type hint of the record allows."""
    arguments = get_args(hint)
    if dataclasses.is_dataclass(hint):
        return records(hint)
    if NoneType in arguments:
        return st.none() | values(arguments[0])
    if get_origin(hint) is list:
        return st.lists(values(arguments[0]), max_size=2)
    if get_origin(hint) is dict:
        return st.dictionaries(st.text(max_size=5), values(arguments[1]), max_size=2)
    plain = {int: st.integers(), float: st.floats(allow_nan=False), str: st.text(max_size=8), bool: st.booleans()}
    return {**plain, Any: JSON}[hint]


def records(cls: type) -> st.SearchStrategy:
    """Any record of this class, of the present schema."""
    hints = {name: hint for name, hint in get_type_hints(cls).items() if name != "schema"}
    return st.builds(cls, **{name: values(hint) for name, hint in hints.items()})


@settings(deadline=None, max_examples=50)
@given(records(Attempt) | records(Run))
def test_a_record_comes_back_as_it_was(record):
    assert from_json(type(record), json.loads(json.dumps(to_json(record)))) == record


def test_unknown_keys_are_dropped_and_missing_ones_take_the_default():
    attempt = from_json(Attempt, {**LEAST, "from_the_future": 1, "progress": {"done": 3, "mood": "good"}})
    assert attempt == Attempt(
        number=1,
        holder=Holder(**HOLDER),
        command=["true"],
        started=1,
        heartbeat=2.5,
        progress=Progress(done=3),
    )


def test_defaults_are_not_shared_between_records():
    assert from_json(Attempt, LEAST).warnings is not from_json(Attempt, LEAST).warnings


@pytest.mark.parametrize("schema", [SCHEMA + 1, 0, "1", None])
def test_another_schema_is_refused(schema):
    with pytest.raises(DataError, match=rf"^schema: got {schema!r}; allowed: 1; read it with the assay that wrote it$"):
        from_json(Attempt, {**LEAST, "schema": schema})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"holder": "me"}, r"^holder: got 'me'; allowed: dict; "),
        ({"holder": {**HOLDER, "pid": "7"}}, r"^holder\.pid: got '7'; allowed: int; "),
        ({"holder": {"host": "node"}}, r"^holder: got nothing; allowed: the key boot_id; "),
        ({"command": "true"}, r"^command: got 'true'; allowed: list; "),
        ({"command": [1]}, r"^command: got 1; allowed: str; "),
        ({"code": True}, r"^code: got True; allowed: int; "),
        ({"code": 1.5}, r"^code: got 1\.5; allowed: int; "),
        ({"started": None}, r"^started: got None; allowed: float; "),
        ({"stages": [{"study": "s", "stage": "t", "started": 0, "seconds": {"load": ["x"]}}]}, r"^stages\.seconds: "),
    ],
)
def test_a_value_of_another_shape_is_refused_with_its_place(change, message):
    with pytest.raises(DataError, match=message + "" if message.endswith(": ") else message + "correct it or move"):
        from_json(Attempt, {**LEAST, **change})


@pytest.mark.parametrize("data", [None, [], "text", 3])
def test_what_is_no_object_is_refused(data):
    with pytest.raises(DataError, match=r"^Run: got .*; allowed: dict; correct it or move it away$"):
        from_json(Run, data)


def test_a_record_of_four_stages_is_read_in_well_under_a_millisecond():
    seconds = {phase: [float(i) for i in range(20)] for phase in ("load", "train", "checkpoint", "validate")}
    stages = [Stage(study="asl", stage=name, started=0.0, seconds=seconds) for name in "abcd"]
    data = to_json(dataclasses.replace(from_json(Attempt, LEAST), stages=stages))
    best = min(_seconds(lambda: from_json(Attempt, data)) for _ in range(50))
    assert best < 0.5e-3  # 0.05 ms measured


def _seconds(call) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun
