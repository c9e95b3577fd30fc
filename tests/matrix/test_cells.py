"""What a run was run with, against what its study now gives it: what can change a result is named, nothing else."""

from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from assay.config import Before, Incidental
from assay.matrix.cells import changed, recordable


@dataclass(frozen=True, kw_only=True)
class Train:
    """A section."""

    lr: float
    """Rate."""
    device: Annotated[str, Incidental()]
    """Where."""
    decay: Annotated[float, Before(0.0)]
    """A key that was added."""
    sort_key: Annotated[str, Before("name")]
    """Another, whose name looks like that of a secret."""


@dataclass(frozen=True, kw_only=True)
class Params:
    """Parameters."""

    seed: int
    """Replicate."""
    path: Annotated[str, Incidental()] | None
    """Data."""
    labels: dict[str, Any]
    """Names by number."""
    train: Train
    """A section."""


NOW: dict[str, Any] = {
    "seed": 0,
    "path": "data",
    "labels": {0: "background"},
    "train": {"lr": 0.5, "device": "auto", "decay": 0, "sort_key": "name"},
}


def recorded(**train: Any) -> dict[str, Any]:
    """As a run's record has it, with another section `train`."""
    return recordable({**NOW, "path": "elsewhere", "train": train})


@pytest.mark.parametrize(
    ("train", "text"),
    [
        ({**NOW["train"], "device": "cuda"}, ""),
        ({"lr": 0.5, "device": "auto"}, ""),
        ({"lr": 0.5, "device": "cuda"}, ""),
        ({"lr": 0.25, "device": "cuda"}, "train.lr=0.25 (now 0.5)"),
        ({**NOW["train"], "decay": 0.1}, "train.decay=0.1 (now 0)"),
        ({**NOW["train"], "decay": None}, "train.decay=null (now 0)"),
        ({**NOW["train"], "gone": 1}, "train.gone=1 (now null)"),
        ({"device": "auto"}, "train.lr=null (now 0.5)"),
    ],
    ids=["incidental", "added", "both", "beside", "other than before", "null", "removed", "added without a mark"],
)
def test_what_differs_is_named_where_it_can_change_a_result(train, text):
    assert changed(recorded(**train), NOW, Params) == text


def test_an_added_key_that_does_not_keep_the_old_behaviour_is_a_change():
    now = {**NOW, "train": {**NOW["train"], "decay": 0.1}}
    assert changed(recorded(lr=0.5, device="auto"), now, Params) == "train.decay=0.0 (now 0.1)"


def test_a_run_whose_record_does_not_say_is_not_changed():
    assert changed(None, NOW, Params) == ""
