"""The figure of costs: which runs count, and that a folder without any is refused."""

import csv
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from assay.errors import DataError
from assay.matrix.cells import CellResult
from assay.studies.organelles import compare, figures
from assay.studies.organelles.figures import Cost


def cell(arm, **changed):
    metrics = {"validate/dice": 0.3, "validate/parameters": 1000.0, "validate/gflop": 2.0, "train/steps": 5.0}
    given = {"metrics": metrics, "seconds": {"train": 60.0}, "rss_peak": 2**31}
    return CellResult(arm=arm, seed=0, folder=Path(arm), state="complete", **{**given, **changed})


def test_complete_runs_count():
    cells = [cell("unet_2d"), cell("swin_3d", metrics={}), cell("vit_2d", seconds={})]
    assert list(compare.costs(cells)) == [Cost("unet_2d", 0.3, 1000.0, 2.0, 2.0, 60.0)]


def test_the_figure_has_a_point_for_every_run(tmp_path):
    figures.trade_offs(tmp_path / "costs.png", list(compare.costs([cell("unet_2d"), cell("unet_3d"), cell("unet_3d")])))
    assert (tmp_path / "costs.png").stat().st_size > 1000


def test_every_network_has_one_colour_and_one_line_of_the_legend(tmp_path, monkeypatch):
    drawn = []

    @contextmanager
    def kept(path, width, height):
        drawn.append(Figure())
        yield drawn[0]

    monkeypatch.setattr(figures, "page", kept)
    names = ["resnet_2d", "resnet_3d", "swin_2d", "swin_3d", "unet_2d", "unet_3d", "vit_2d", "vit_3d"]
    figures.trade_offs(tmp_path / "costs.png", list(compare.costs(cell(name) for name in names for _ in range(3))))
    points = {(line.get_label(), line.get_color(), line.get_marker()) for line in drawn[0].axes[0].lines}
    assert sorted(label for label, _, _ in points) == names
    assert len({(colour, marker) for _, colour, marker in points}) == 8
    assert len({colour for _, colour, _ in points}) == 4
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == names


def test_arms_and_seeds_are_those_of_the_folder(tmp_path):
    for name in ("unet_2d/0", "unet_2d/2", "vit_2d/0", ".pilot/x"):
        (tmp_path / name).mkdir(parents=True)
    assert compare.arms_and_seeds(tmp_path) == (["unet_2d", "vit_2d"], [0, 2])


def test_a_folder_without_runs_is_refused(make_params):
    with pytest.raises(DataError, match=r"none: got no complete run; allowed: the runs of a study, as assay submit"):
        compare.run(make_params("compare.runs=none"))


def test_the_memory_stage_fills_a_table(make_params, monkeypatch, capsys):
    from assay.studies.organelles import memory

    small = {name: replace(memory.SLOTS[name], features=8) for name in ("resnet_2d", "unet_2d")}
    monkeypatch.setattr(memory, "SLOTS", small)
    memory.run(make_params("memory.card_gib=2", "memory.output=table.csv"))
    with Path("table.csv").open() as file:
        rows = {row["model"]: {name: float(row[name]) for name in list(row)[1:]} for row in csv.DictReader(file)}
    for name, wanted in (("resnet_2d", 208), ("unet_2d", 208)):
        row = rows[name]
        assert 1 <= row["batch"] <= row["most"] <= row["most_recomputed"]
        assert row["effective"] == row["batch"] * row["gpus"] * row["accumulate"]
        assert wanted <= row["effective"] < wanted + row["gpus"] * row["accumulate"]
    assert "resnet_2d" in capsys.readouterr().out
    with pytest.raises(DataError, match=r"memory\.card_gib: got 0\.01; allowed: more, as no network fits"):
        memory.run(make_params("memory.card_gib=0.01", "memory.output=table.csv"))
