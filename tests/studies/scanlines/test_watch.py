"""Reading a scan while it is made: what is printed, from where lines may come, and that it equals the batch."""

import io
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from tests.studies.scanlines.conftest import choose

from assay.errors import CheckpointError, DataError
from assay.studies.scanlines import networks, simulate, train, watch
from assay.studies.scanlines.dataset import open_dataset


def trained(params):
    simulate.run(params)
    train.run(params)
    return networks.load(networks.FOLDER, torch.device("cpu")), open_dataset(params.data).rows.images[0]


def text(image):
    return [" ".join(f"{height:.9g}" for height in line) + "\n" for line in image.tolist()]


@pytest.mark.parametrize("architecture", ["causal", "line_encoder", "lrcn", "single_line"])
def test_a_line_at_a_time_gives_what_the_whole_scan_gives(architecture, make_params):
    classifier, image = trained(make_params(*choose(architecture)))
    seen = list(watch.watch(classifier, iter(text(image))))
    whole = classifier.probabilities(image[None], 1, "mean")[0]
    assert [each.line for each in seen] == list(range(1, 17))
    torch.testing.assert_close(seen[-1].probabilities, whole[-1], rtol=0, atol=1e-5)


def test_every_line_of_standard_input_is_answered_at_once(make_params, monkeypatch, capsys):
    params = make_params("watch.confident=0")
    _, image = trained(params)
    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(text(image))))
    watch.run(params)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 16
    assert re.fullmatch(r"line    1  \S+ +0\.\d\d +\d+\.\d ms", said[0])


def test_a_tip_change_is_said(make_params, monkeypatch, capsys):
    params = make_params("watch.confident=0", "watch.hold=2")
    _, image = trained(params)
    capsys.readouterr()
    shares = iter([0.9, 0.9, 0.1, 0.1, 0.1])
    monkeypatch.setattr(watch.Streaming, "push", lambda self, line: torch.tensor([p := next(shares), 0.0, 1 - p, 0.0]))
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(text(image[:5]))))
    watch.run(params)
    said = capsys.readouterr().out.splitlines()
    assert said[3].endswith("tip change: atoms -> rows")
    assert sum("tip change:" in line for line in said) == 1


def test_a_growing_file_is_followed_until_it_is_silent(make_params, capsys):
    params = make_params("watch.lines_from=scan.txt", "watch.idle_s=1.5")
    _, image = trained(params)
    capsys.readouterr()
    lines, path = text(image), Path("scan.txt").resolve()
    path.write_text("".join(lines[:3]) + lines[3][:5])

    def grow():
        time.sleep(0.2)
        with path.open("a") as file:
            file.write(lines[3][5:] + lines[4])

    writer = threading.Thread(target=grow)
    writer.start()
    watch.run(params)
    writer.join()
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_who_waits_for_a_line_of_standard_input_is_interrupted_at_once(make_params, monkeypatch):
    params = make_params()
    _, image = trained(params)

    def interrupted():
        yield text(image)[0]
        os.kill(os.getpid(), signal.SIGINT)
        yield text(image)[1]

    monkeypatch.setattr("sys.stdin", interrupted())
    with pytest.raises(KeyboardInterrupt):
        watch.run(params)


def test_a_finished_file_is_read_to_its_end(make_params, capsys):
    params = make_params("watch.lines_from=scan.txt")
    _, image = trained(params)
    capsys.readouterr()
    Path("scan.txt").write_text("".join(text(image[:4])).rstrip())
    watch.run(params)
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_a_line_with_nan_counts_as_lost(make_params):
    classifier, image = trained(make_params())
    lines = text(image)
    lines[5] = "nan " + lines[5].split(" ", 1)[1]
    flat = image.clone()
    flat[5] = image[4].mean()
    seen = list(watch.watch(classifier, iter(lines)))
    whole = classifier.probabilities(flat[None], 1, "mean")[0]
    torch.testing.assert_close(seen[-1].probabilities, whole[-1], rtol=0, atol=1e-4)


def test_lines_that_are_no_scan_lines_are_refused(make_params):
    classifier, _ = trained(make_params())
    with pytest.raises(DataError, match="line 1: got 3 numbers; allowed: 24; give the points"):
        list(watch.watch(classifier, iter(["1 2 3"])))
    with pytest.raises(DataError, match="line 1: could not convert string to float: 'x'; allowed: 24 numbers"):
        list(watch.watch(classifier, iter(["1, x"])))


def test_a_missing_file_or_model_is_refused(make_params):
    with pytest.raises(CheckpointError, match=r"results/train/model: got no member-\*\.safetensors"):
        watch.run(make_params())
    params = make_params("watch.lines_from=nowhere.txt")
    trained(params)
    with pytest.raises(DataError, match=r"nowhere\.txt: no such file; allowed: a text file with a scan line per line"):
        watch.run(params)
