"""Scans of microscopes: the table, directions, groups, sizes, and readers that are not installed."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from assay.errors import DataError
from assay.studies.scanlines.microscope import Scan, average_down, read_file, read_scans

RAMP = np.arange(32 * 48, dtype=float).reshape(32, 48)


class Nanonis:
    """What nanonispy2.read.Scan gives of a file: lines as they were acquired; the backward image is mirrored."""

    def __init__(self, path):
        self.header = {"scan_dir": Path(path).stem.partition("-")[0]}
        self.signals = {"Z": {"forward": RAMP, "backward": RAMP[:, ::-1]}}


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Two scans and a reader for them."""
    monkeypatch.setitem(sys.modules, "nanonispy2", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "nanonispy2.read", SimpleNamespace(Scan=Nanonis))
    for name in ("down-1.sxm", "up-2.sxm"):
        (tmp_path / name).touch()
    path = tmp_path / "scans.csv"
    path.write_text("file,label,group\ndown-1.sxm,0,a\nup-2.sxm,1,b\n")
    return path


def test_trace_and_retrace_are_of_one_group_and_look_alike(table):
    found = read_scans(table, 16, 24, classes=2, transpose=False)
    assert found.images.shape == (4, 16, 24)
    assert found.groups.tolist() == [0, 0, 1, 1] and found.labels.tolist() == [0, 0, 1, 1]
    assert np.array_equal(found.images[0], found.images[1])


def test_lines_of_nanonis_stay_in_the_order_of_acquisition_in_both_directions(table):
    """The file has line 0 first where it was scanned upwards, too: its reader turns nothing."""
    images = read_scans(table, 32, 48, classes=2, transpose=False).images
    assert np.array_equal(images[0], RAMP) and np.array_equal(images[2], RAMP)
    assert Scan(RAMP, True).acquired[0, 0] == RAMP[-1, 0]


def test_points_are_averaged_down_and_never_interpolated():
    assert average_down(RAMP, 16, 24, "scan")[0, 0] == RAMP[:2, :2].mean()
    with pytest.raises(DataError, match=r"scan: got 32 x 48 points; allowed: multiples of 20 x 24; crop it, or change"):
        average_down(RAMP, 20, 24, "scan")


def test_a_reader_that_is_not_installed_is_named(table, monkeypatch):
    monkeypatch.setitem(sys.modules, "nanonispy2.read", None)
    with pytest.raises(
        DataError, match=r"down-1\.sxm: read by nanonispy2, which is not installed; pip install nanonispy2"
    ):
        read_scans(table, 16, 24, 2, False)


def test_a_file_that_its_reader_cannot_read_is_refused_with_the_readers_words(table, monkeypatch):
    def broken(path):
        raise ValueError("header ends early")

    monkeypatch.setitem(sys.modules, "nanonispy2.read", SimpleNamespace(Scan=broken))
    with pytest.raises(DataError, match=r"cannot be read \(header ends early\); allowed: a complete \.sxm file"):
        read_scans(table, 16, 24, 2, False)


def test_unknown_and_missing_files_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"photo\.png: got a file ending in \.png; allowed: \.Z_mtrx, \.gwy, \.sxm"):
        read_file(tmp_path / "photo.png")
    with pytest.raises(DataError, match=r"a\.sxm: no such file; allowed: paths relative to the table"):
        read_file(tmp_path / "a.sxm")


TABLES = {
    "no group": ("file,label,group\ndown-1.sxm,0,\n", "line 2 has no group; allowed: a value; trace and retrace must"),
    "no group column": ("file,label\ndown-1.sxm,0\n", "got no column group; allowed: file, label, group; add it"),
    "no label": ("file,label,group\ndown-1.sxm,,a\n", "line 2 has no label; allowed: a value; every scan needs one"),
    "label in words": ("file,label,group\ndown-1.sxm,rows,a\n", "got label 'rows' of down-1.sxm; allowed: a whole num"),
    "nothing": ("file,label,group\n", "got no scans; allowed: one or more rows"),
    "empty class": ("file,label,group\ndown-1.sxm,0,a\n", "no image with label 1; allowed: one or more of each of 2"),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_bad_table_is_refused_in_words(case, table):
    content, message = TABLES[case]
    table.write_text(content)
    with pytest.raises(DataError, match=message):
        read_scans(table, 16, 24, 2, False)


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no\.csv: no such file; allowed: a csv table with columns file, label, group"):
        read_scans(tmp_path / "no.csv", 16, 24, 2, False)


def test_omicron_traces_downwards_begin_with_the_last_line_and_are_turned(tmp_path, monkeypatch):
    """The reader gives all traces as they lie on the surface, from the bottom; RAMP is what was acquired."""

    class File:
        def open(self, path):
            return {0: "forward/up", 1: "backward/down"}, "ok"

        def select_image(self, trace):
            return SimpleNamespace(data=RAMP if trace == "forward/up" else RAMP[::-1]), "ok"

    monkeypatch.setitem(sys.modules, "access2thematrix", SimpleNamespace(MtrxData=File))
    (tmp_path / "a.Z_mtrx").touch()
    up, down = read_file(tmp_path / "a.Z_mtrx")
    assert np.array_equal(up.acquired, RAMP) and np.array_equal(down.acquired, RAMP)


def test_gwyddion_gives_every_field(tmp_path, monkeypatch):
    fields = {"z": SimpleNamespace(data=RAMP), "current": SimpleNamespace(data=RAMP)}
    fake = SimpleNamespace(load=lambda path: path, util=SimpleNamespace(get_datafields=lambda container: fields))
    monkeypatch.setitem(sys.modules, "gwyfile", fake)
    (tmp_path / "a.gwy").touch()
    assert len(read_file(tmp_path / "a.gwy")) == 2
