"""Checkpoint files: what goes in comes out, damage is noticed, two are kept."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from assay.engine.checkpoint import CheckpointFolder, read_tensors, write_tensors
from assay.errors import CheckpointError

TENSORS = {
    "weights": torch.linspace(0, 1, 12).reshape(3, 4),
    "half": torch.arange(5, dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "turned": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "empty": torch.zeros(0, 3),
}


def test_tensors_and_document_come_back_as_they_were(tmp_path):
    write_tensors(tmp_path / "file", TENSORS, {"step": 3, "rows": [{"loss": 0.1}], "worst": float("inf")})
    tensors, document = read_tensors(tmp_path / "file")
    assert tensors.keys() == TENSORS.keys()
    assert all(
        torch.equal(tensors[name], tensor) and tensors[name].dtype == tensor.dtype for name, tensor in TENSORS.items()
    )
    assert document == {"step": 3, "rows": [{"loss": 0.1}], "worst": float("inf")}


def test_rows_without_end_leave_the_header_of_a_checkpoint_small(tmp_path):
    """safetensors reads no header of more than 100 MB."""
    rows = [{"step": step, "loss": step / 7} for step in range(20_000)]
    CheckpointFolder(tmp_path, "run").save(1, TENSORS, {"rows": rows})
    tensors, document, _ = CheckpointFolder(tmp_path, "run").load()
    assert document["rows"] == rows and tensors.keys() == TENSORS.keys()
    content = next(tmp_path.glob("step-*")).read_bytes()
    assert int.from_bytes(content[:8], "little") < 2000 < len(content) / 100


def test_a_checkpoint_of_another_layout_is_refused(tmp_path):
    write_tensors(tmp_path / "step-000000001.safetensors", TENSORS, {"identity": "run", "step": 1})
    with pytest.raises(CheckpointError, match="not written by this version of assay; delete it and run the stage"):
        CheckpointFolder(tmp_path, "run").load()


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("checkpoint") / "file"
    write_tensors(path, TENSORS, {"step": 3})
    return path.read_bytes()


@given(data=st.data())
def test_any_damage_is_refused(data, content, tmp_path_factory):
    path = tmp_path_factory.mktemp("damaged") / "file"
    if data.draw(st.booleans(), label="truncate"):
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    else:
        place = data.draw(st.integers(0, len(content) - 1))
        flipped = content[place] ^ (1 << data.draw(st.integers(0, 7)))
        path.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
    try:
        tensors, document = read_tensors(path)
    except CheckpointError as error:
        assert "delete it and run the stage again" in str(error)
        return
    assert document == {"step": 3}
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())


def test_the_two_newest_are_kept(tmp_path):
    folder = CheckpointFolder(tmp_path, "run")
    for step in (1, 2, 10):
        folder.save(step, TENSORS, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-000000002.safetensors",
        "step-000000010.safetensors",
    ]
    _, document, damaged = folder.load()
    assert (document["step"], damaged) == (10, [])


def test_no_checkpoint_is_no_error(tmp_path):
    assert CheckpointFolder(tmp_path / "none", "run").load() is None


def test_a_run_whose_checkpoints_are_all_damaged_is_refused(tmp_path):
    folder = CheckpointFolder(tmp_path, "run")
    folder.save(1, TENSORS, {})
    for path in tmp_path.iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"damaged.*delete it and run the stage again"):
        folder.load()
