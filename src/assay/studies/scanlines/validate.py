"""Stage validate: the network beside its controls on the test part; open it for what the stage writes.

Writes to results/validate:

    metrics.json    the few numbers by which arms are compared, by clean labels, in the judged classes
    models.csv      every score of the network and of each control
    classes.csv     recall, precision, F1 and area under the curve by class
    confusion.csv   the network's confusion matrix, rows are the truth
    lines.csv       balanced accuracy and area under the curve against the number of lines seen, for `dvc plots`
    per_image.csv   truth, label and confidence of every test image, by its row and group in the data set
    baselines.json  what a model scores that has learnt nothing, or the class shares alone, in the network's classes
    changes.csv     tip changes found, for models that read line by line, where their lines are known
    *.png           confusion, lines, calibration, examples, and a tip change as it is watched

All of it is a function of model and data; latency, which is not, is measured by benchmarks/scanlines.py.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from assay.engine.precision import pick_device
from assay.engine.progress import Phase, phase
from assay.engine.stop import StopRequest
from assay.errors import CheckpointError
from assay.files import write_csv, write_json
from assay.studies.scanlines import changes, figures, networks
from assay.studies.scanlines.config import Params
from assay.studies.scanlines.dataset import Dataset, Rows, open_dataset
from assay.studies.scanlines.evaluation import (
    CONSTANT,
    NETWORK,
    NULL,
    TEMPLATE,
    Judged,
    by_lines,
    constant,
    judge,
    merged,
    template_probabilities,
    whole_image,
)
from assay.studies.scanlines.losses import entropy, priors, uninformed
from assay.studies.scanlines.metrics import auroc_by_class, balanced_accuracy
from assay.studies.scanlines.model import read_out_lines
from assay.studies.scanlines.surface import class_names

OUT = Path("results/validate")


class Found(NamedTuple):
    """Test images, their rows in the data set (n,), their judged labels (n,) and the network's probabilities (n, K).

    curve: balanced accuracy and area under the curve, by lines seen.
    """

    test: Rows
    row: Tensor
    labels: Tensor
    probabilities: Tensor
    curve: dict[int, tuple[float, float]]


class Watched(NamedTuple):
    """What a model that reads line by line says of the test part: probabilities (n, R, K) after `lines` (R,) lines."""

    lines: Tensor
    probabilities: Tensor
    detection: changes.Detection


def run(params: Params, out: Path = OUT) -> None:
    """Evaluate the network of this pipeline and write tables and figures to `out`.

    Raises:
        CheckpointError: the network is missing, damaged, or was trained on other data.
        DataError: the data set is missing, damaged, or was simulated with other parameters; or the disk is full.
        Unfinished: stopped on request; nothing has been written.
    """
    device = pick_device(params.evaluation.device)
    dataset = open_dataset(params.data)
    model = networks.load(networks.FOLDER, device)
    if model.facts.data != dataset.digest:
        got = f"trained on data {model.facts.data[:12]}, not {dataset.digest[:12]}"
        raise CheckpointError(f"{networks.FOLDER}: {got}, which is here now; run assay stage scanlines train again")
    if model.params.data.merge != params.data.merge:
        got = f"trained with data.merge {list(model.params.data.merge)}, not {list(params.data.merge)}"
        raise CheckpointError(f"{networks.FOLDER}: {got}; train it again, or validate with its own")
    with StopRequest() as stop, phase("validate", 5, unit="models", stop=stop) as shown:
        found, judged = evaluate(params, dataset, model, shown)
        watched = watch_all(params, model, found)
        shown.advance()
    write(params, model, found, judged, watched, out)


def evaluate(
    params: Params, dataset: Dataset, model: networks.Classifier, shown: Phase
) -> tuple[Found, dict[str, Judged]]:
    """The network and its controls."""
    test, merge = dataset.part("test"), params.evaluation.merge
    labels = torch.tensor(merge)[test.clean_labels]
    given = {NETWORK: whole_image(model, test.images, params)}
    shown.advance(note=NETWORK)
    given[NULL] = whole_image(networks.untrained(model), test.images, params)
    shown.advance(note=NULL)
    given[CONSTANT] = constant(torch.tensor(model.facts.counts), len(labels))
    each = {name: merged(probabilities, merge) for name, probabilities in given.items()}
    each[TEMPLATE] = template_probabilities(dataset, test, params)
    shown.advance(note=TEMPLATE)
    judged = {name: judge(probabilities, labels, test.group, params) for name, probabilities in each.items()}
    curve = {}
    for lines, own in by_lines(model, test.images, params).items():
        some = merged(own, merge)
        curve[lines] = (balanced_accuracy(some, labels), float(auroc_by_class(some, labels).nanmean()))
    shown.advance(note="lines seen")
    return Found(test, torch.from_numpy(dataset.splits["test"]), labels, each[NETWORK], curve), judged


def watch_all(params: Params, model: networks.Classifier, found: Found) -> Watched | None:
    """How well changes are found on the test part; None for a model that needs whole images.

    None, too, of a user's files: they do not say where a tip changes, so every report would count as wrong.
    """
    if not model.params.model.per_line or params.data.source != "simulated":
        return None
    settings = params.evaluation
    every = model.probabilities(found.test.images, settings.batch_size, settings.vote)
    lines = torch.tensor(read_out_lines(model.params.model, params.data.lines))
    probabilities = merged(every, settings.merge)
    rules = (settings.tolerance, settings.hold, settings.change_from)
    return Watched(lines, probabilities, changes.judge(probabilities.argmax(-1), lines, found.test.switch, *rules))


def write(
    params: Params,
    model: networks.Classifier,
    found: Found,
    judged: dict[str, Judged],
    watched: Watched | None,
    out: Path,
) -> None:
    """Write tables and figures."""
    names = class_names([params.evaluation.merge[label] for label in params.data.merge])
    write_json(out / "metrics.json", headlines(params, found, judged, watched))
    write_json(out / "baselines.json", uninformed_scores(model.facts.counts))
    write_csv(out / "models.csv", MODEL_COLUMNS, [model_row(name, each) for name, each in judged.items()])
    write_csv(out / "classes.csv", CLASS_COLUMNS, class_rows(names, judged[NETWORK]))
    table = judged[NETWORK].scores.confusion.tolist()
    write_csv(out / "confusion.csv", ["truth", *names], [[name, *row] for name, row in zip(names, table, strict=True)])
    curve = [[lines, *values] for lines, values in found.curve.items()]
    write_csv(out / "lines.csv", ["lines", "balanced_accuracy", "auroc"], curve)
    write_csv(out / "per_image.csv", ["row", "group", "truth", "label", "confidence"], image_rows(found))
    write_csv(out / "changes.csv", changes.Detection._fields, [list(watched.detection)] if watched else [])
    figures.confusion(out / "confusion.png", names, judged[NETWORK].scores)
    figures.by_lines(out / "lines.png", found.curve, {name: each.scores for name, each in judged.items()})
    figures.calibration(out / "calibration.png", found.probabilities, found.labels, params.evaluation.bins)
    figures.examples(out / "examples.png", names, found.test.images, found.labels, found.probabilities)
    (out / "watched.png").unlink(missing_ok=True)  # of an earlier run with a network that reads line by line
    if watched is not None:
        draw_watched(out / "watched.png", names, found, watched)


def draw_watched(path: Path, names: list[str], found: Found, watched: Watched) -> None:
    """The tip change that the network is surest of at the end, or of the test part's images the first."""
    changed = found.test.switch < int(watched.lines[-1])
    right = watched.probabilities[torch.arange(len(changed)), -1, found.labels]
    place = int(torch.where(changed, right, -1.0).argmax())
    image, switch = found.test.images[place], int(found.test.switch[place])
    figures.watched(path, names, image, watched.lines, watched.probabilities[place], switch)


MODEL_COLUMNS = (
    "model",
    "balanced_accuracy",
    "low",
    "high",
    "accuracy",
    "auroc",
    "calibration_error",
    "cross_entropy",
)
CLASS_COLUMNS = ("class", "images", "recall", "precision", "f1", "auroc")


def model_row(name: str, judged: Judged) -> list[str | float]:
    """One row of models.csv."""
    scores = judged.scores
    ends = (scores.balanced_accuracy, judged.low, judged.high, scores.accuracy)
    return [name, *ends, scores.auroc, scores.calibration_error, scores.cross_entropy]


def class_rows(names: list[str], judged: Judged) -> list[list[str | float]]:
    """The rows of classes.csv."""
    scores = judged.scores
    columns = (scores.confusion.sum(1), scores.recall, scores.precision, scores.f1, scores.auroc_by_class)
    return [[name, *(float(column[place]) for column in columns)] for place, name in enumerate(names)]


def image_rows(found: Found) -> list[list[float]]:
    """The rows of per_image.csv."""
    confidence, label = found.probabilities.max(1)
    columns = (found.row, found.test.group, found.labels, label, confidence)
    return [list(row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def uninformed_scores(counts: list[int]) -> dict[str, float]:
    """What training cannot be credited with, in the network's own classes: rates, and losses in nat."""
    shares = priors(torch.tensor(counts, dtype=torch.float64))
    return {
        "classes": len(counts),
        "majority_rate": float(shares.max()),
        "prior_rate": float(shares.square().sum()),
        "prior_entropy": entropy(shares),
        "uniform_entropy": uninformed(len(counts)),
    }


def headlines(params: Params, found: Found, judged: dict[str, Judged], watched: Watched | None) -> dict[str, float]:
    """The few numbers: of the network, after all lines and after the first few, and of every control."""
    network, lines = judged[NETWORK], params.evaluation.reference_lines
    numbers = {
        "balanced_accuracy": network.scores.balanced_accuracy,
        "balanced_accuracy_low": network.low,
        "balanced_accuracy_high": network.high,
        "accuracy": network.scores.accuracy,
        "auroc": network.scores.auroc,
        "calibration_error": network.scores.calibration_error,
        "cross_entropy": network.scores.cross_entropy,
    }
    if lines in found.curve:
        numbers["balanced_accuracy_early"] = found.curve[lines][0]
    numbers |= {
        f"balanced_accuracy_{name}": each.scores.balanced_accuracy for name, each in judged.items() if name != NETWORK
    }
    numbers["accuracy_constant"] = judged[CONSTANT].scores.accuracy
    numbers["cross_entropy_constant"] = judged[CONSTANT].scores.cross_entropy
    if watched is not None:
        precision, recall, late = watched.detection[3:6]
        numbers |= {"change_precision": precision, "change_recall": recall, "change_late_recall": late}
    return numbers
