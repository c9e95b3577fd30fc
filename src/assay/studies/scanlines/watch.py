"""Stage watch: tell the tip's state while a scan is made, from lines of numbers; open it for what is printed.

    microscope | assay stage scanlines watch
    assay stage scanlines watch --watch.lines_from scan.txt --watch.idle_s 60

One scan line per line of text, its points separated by blanks or commas. After each it prints number, state,
probability and the time it took, and a tip change when the state has changed. A line with NaN counts as lost: it is
read as flat, at the height of the one before. A model that reads line by line keeps what it needs of the lines
before; others are asked anew.
"""

import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from assay.engine.stop import StopRequest
from assay.errors import DataError
from assay.studies.scanlines.changes import Detector
from assay.studies.scanlines.config import Params
from assay.studies.scanlines.model import CausalEncoder, read_out_lines
from assay.studies.scanlines.networks import Classifier, load
from assay.studies.scanlines.sections import WatchConfig
from assay.studies.scanlines.surface import class_names

POLL_S = 0.05


class Seen(NamedTuple):
    """What is known after a line: its number from 1, class probabilities (K,), and how long that took, s."""

    line: int
    probabilities: Tensor
    seconds: float


class Reader(Protocol):
    """Takes raw lines (P,) one by one and gives class probabilities (K,)."""

    def push(self, line: Tensor) -> Tensor:
        """Probabilities after this line."""
        ...


class Streaming:
    """A causal encoder with what it keeps of the lines so far; as many results as `forward` has, to rounding."""

    def __init__(self, model: CausalEncoder) -> None:
        self.model, self.state = model, model.start()

    @torch.no_grad()
    def push(self, line: Tensor) -> Tensor:
        """Probabilities after this line."""
        logits, self.state = self.model.step(line.view(1, 1, -1), self.state)
        return logits[0].softmax(-1)


class Recomputing:
    """Any network, asked anew after each line with the missing ones 0."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier, settings = classifier, classifier.params
        self.image = torch.zeros(1, settings.data.lines, classifier.facts.points)
        self.read_outs = torch.tensor(read_out_lines(settings.model, settings.data.lines))
        self.line = 0

    def push(self, line: Tensor) -> Tensor:
        """Probabilities after this line; equal ones before the first read-out."""
        self.image[0, self.line] = line
        self.line += 1
        place = int((self.read_outs <= self.line).sum()) - 1
        if self.classifier.params.model.per_line and place < 0:
            classes = self.classifier.params.data.classes
            return torch.full((classes,), 1 / classes)
        return self.classifier.probabilities(self.image, 1, "mean", self.line)[0, max(place, 0)]


def run(params: Params) -> None:
    """Read lines until the scan is complete or the source ends, and print what they say.

    Raises:
        CheckpointError: there is no trained model.
        DataError: the source is missing, or a line is not one of numbers, as many as the model was trained with.
    """
    settings = params.watch
    classifier = load(Path(settings.model), torch.device("cpu"))
    torch.set_num_threads(1)
    if settings.lines_from == "-":  # a signal ends it at once: who waits for a line cannot be asked to stop
        _say(classifier, _standard_input(), settings)
        return
    with StopRequest() as stop:
        _say(classifier, _growing(Path(settings.lines_from), settings.idle_s, stop), settings)


def _say(classifier: Classifier, texts: Iterator[str], settings: WatchConfig) -> None:
    """Print what each line of text says."""
    names, detector = class_names(classifier.params.data.merge), Detector(settings.hold)
    for seen in watch(classifier, texts):
        best = int(seen.probabilities.argmax())
        share = float(seen.probabilities[best])
        change = detector.feed(seen.line, best if share >= settings.confident else None)
        note = f"  tip change: {names[change.before]} -> {names[change.after]}" if change else ""
        said = f"line {seen.line:4d}  {names[best]:<16} {share:.2f}  {1000 * seen.seconds:6.1f} ms{note}"
        print(said, flush=True)


def watch(classifier: Classifier, texts: Iterator[str]) -> Iterator[Seen]:
    """What each line of text says, until the scan has as many lines as the model knows."""
    reader, lines, points = open_reader(classifier), classifier.params.data.lines, classifier.facts.points
    level = torch.zeros(1)
    for number, text in enumerate(texts, start=1):
        begun = time.monotonic()
        heights = parse(text, number, points)
        level = level if heights is None else heights.mean()
        probabilities = reader.push(level.expand(points) if heights is None else heights)
        yield Seen(number, probabilities, time.monotonic() - begun)
        if number == lines:
            return


def open_reader(classifier: Classifier) -> Reader:
    """The fastest way to ask a model line by line."""
    module = classifier.modules[0]
    if isinstance(module, CausalEncoder) and len(classifier.modules) == 1:
        return Streaming(module)
    return Recomputing(classifier)


def parse(text: str, number: int, points: int) -> Tensor | None:
    """Heights (points,) of one line; None, a lost line, if one of them is not finite.

    Raises:
        DataError: it holds other things than numbers, or another number of them.
    """
    words = text.replace(",", " ").split()
    try:
        heights = [float(word) for word in words]
    except ValueError as error:
        raise DataError(f"line {number}: {error}; allowed: {points} numbers, separated by blanks or commas") from None
    if len(heights) != points:
        remedy = "give the points that the model was trained with, one scan line per line of text"
        raise DataError(f"line {number}: got {len(heights)} numbers; allowed: {points}; {remedy}")
    if not all(map(math.isfinite, heights)):
        return None
    return torch.tensor(heights)


def _standard_input() -> Iterator[str]:
    yield from (text for text in sys.stdin if text.strip())


def _growing(path: Path, idle_s: float | None, stop: StopRequest) -> Iterator[str]:
    """Complete lines of a file, waiting up to `idle_s` seconds for the next; without it, those that are there."""
    if not Path(path).is_file():
        raise DataError(
            f"{path}: no such file; allowed: a text file with a scan line per line, or -; set watch.lines_from"
        )
    with Path(path).open() as file:
        text, since = "", time.monotonic()
        while not stop.requested:
            text += file.readline()
            if text.endswith("\n") or (text and idle_s is None):
                if text.strip():
                    yield text
                text, since = "", time.monotonic()
            elif idle_s is None or time.monotonic() - since > idle_s:
                return
            else:
                time.sleep(POLL_S)
