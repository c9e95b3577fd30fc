"""Stage validate: the network beside its controls on whole validation crops; open it for what the stage writes.

Writes to results/validate:

    metrics.json    the few numbers by which arms are compared
    models.csv      mean scores of the network and of each control
    classes.csv     every score by class, and how much of it was annotated
    datasets.csv    mean Dice by data set
    confusion.csv   rows are the truth; only voxels where all classes are annotated
    *.png           input, truth and prediction of fixed slices; Dice by class; confusion

Truth is every label where the crops have all of them (simulated), else what is annotated. Scores are of the logits that
`evaluation.logits` names; metrics.json also has the mean Dice of the other kind, and by annotated labels alone.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from assay.engine.precision import pick_device
from assay.engine.progress import Phase, phase
from assay.engine.stop import StopRequest
from assay.errors import CheckpointError
from assay.files import write_csv, write_json
from assay.studies.organelles import evaluation, figures, networks
from assay.studies.organelles.cache import Crops, open_crops
from assay.studies.organelles.classes import CLASSES, OTHER
from assay.studies.organelles.config import Params
from assay.studies.organelles.evaluation import EVERYTHING, INTENSITY, NETWORK, NOTHING, NULL
from assay.studies.organelles.metrics import PooledCounts, PooledScores
from assay.studies.organelles.model import build
from assay.studies.organelles.model.cost import operations, parameters
from assay.studies.organelles.segmenter import Logits
from assay.studies.organelles.splits import Split, open_split
from assay.studies.organelles.windows import Piece

OUT = Path("results/validate")
OTHER_KIND: dict[Logits, Logits] = {"raw": "adjusted", "adjusted": "raw"}
MODEL_COLUMNS = ("model", "dice", "classes", "iou", "precision", "recall", "average_precision")
SCORES = ("dice", "iou", "precision", "recall", "average_precision")
CLASS_COLUMNS = ("class", "annotated", "positive", *SCORES, NULL, EVERYTHING, INTENSITY)


class Found(NamedTuple):
    """Scores of the network, of its other kind of logits, by masked labels, of the controls; counts by data set."""

    network: PooledScores
    other: PooledScores
    masked: PooledScores
    controls: dict[str, PooledScores]
    datasets: dict[str, PooledScores]


def run(params: Params, out: Path = OUT) -> None:
    """Evaluate the network of this pipeline and write tables and figures to `out`.

    Raises:
        CheckpointError: the network is missing, damaged, or was trained on other crops.
        DataError: the crops are missing, damaged, or were made with other parameters; or the disk is full.
        Unfinished: stopped on request; nothing has been written.
    """
    device = pick_device(params.evaluation.device)
    crops = open_crops(params.data, "masked")
    split = open_split(params.data, crops.names)
    model = networks.load(networks.FOLDER, device)
    refuse_other_data(model, f"{crops.digest}-{split.digest}")
    with StopRequest() as stop, phase("validate", len(split.validation), unit="crops", stop=stop) as shown:
        found = evaluate(params, model, crops, split, shown)
    drawn = list(pictures(params, model, crops, split))
    write(found, model, drawn, out)


def refuse_other_data(model: networks.Model, digest: str) -> None:
    """Raise CheckpointError if the network was trained on other crops, or another split of them."""
    if model.facts.data != digest:
        got = f"trained on data {model.facts.data[:12]}, not {digest[:12]}"
        raise CheckpointError(f"{networks.FOLDER}: {got}, which is here now; run assay stage organelles train again")


class Judge:
    """Counts of everything that is compared, crop by crop."""

    def __init__(self, params: Params, model: networks.Model, crops: Crops, split: Split) -> None:
        self.section, self.model = params.evaluation, model
        self.null = networks.untrained(model)
        self.shades = evaluation.shades(crops.seen_as("masked"), split.train)
        self.truth, self.masked = crops.seen_as(evaluation.truth_view(crops)), crops.seen_as("masked")
        self.every = {name: PooledCounts() for name in ("other", "masked", NULL, INTENSITY)}
        self.datasets: dict[str, PooledCounts] = {}

    def add(self, number: int) -> None:
        """Count a crop."""
        crop, masked = self.truth[number], self.masked[number]
        own = self.datasets.setdefault(crop.dataset, PooledCounts())
        known, annotated = evaluation.code(crop), torch.from_numpy(crop.annotated.copy())

        def network(image: Tensor) -> Iterator[Piece]:
            for piece in self._pieces(self.model, image):
                other = _decided(self.model, piece, OTHER_KIND[self.section.logits])
                self.every["other"].update(other.logits, evaluation.target_of(other, known, annotated))
                yield _decided(self.model, piece, self.section.logits)

        def null(image: Tensor) -> Iterator[Piece]:
            for piece in self._pieces(self.null, image):
                yield _decided(self.null, piece, self.section.logits)

        evaluation.count(crop, network, [own, self.every["masked"]], [crop, masked])
        evaluation.count(crop, null, [self.every[NULL]], [crop])
        evaluation.count(crop, self._shaded, [self.every[INTENSITY]], [crop])

    def _shaded(self, image: Tensor) -> Iterator[Piece]:
        first = min(self.section.every // 2, len(image) - 1)
        return self.shades.pieces(image, first, self.section.every)

    def _pieces(self, model: networks.Model, image: Tensor) -> Iterator[Piece]:
        return model.logits(image, self.section.overlap, self.section.batch_size, self.section.every)


def _decided(model: networks.Model, piece: Piece, kind: Logits) -> Piece:
    return Piece(piece.places, model.module.deciding(piece.logits, kind))


def evaluate(params: Params, model: networks.Model, crops: Crops, split: Split, shown: Phase) -> Found:
    """The network and its controls on every validation crop."""
    judge = Judge(params, model, crops, split)
    for number in split.validation:
        judge.add(number)
        shown.advance(note=crops.names[number])
    scores = {name: counts.compute() for name, counts in judge.every.items()}
    network = evaluation.merged(judge.datasets.values()).compute()
    datasets = {name: counts.compute() for name, counts in sorted(judge.datasets.items())}
    controls = {name: scores[name] for name in (NULL, INTENSITY)}
    return Found(network, scores["other"], scores["masked"], controls, datasets)


@torch.no_grad()
def pictures(params: Params, model: networks.Model, crops: Crops, split: Split) -> Iterator[figures.Example]:
    """The middle slice of the first validation crops, with the labels as they are annotated."""
    masked = crops.seen_as("masked")
    for number in split.validation[: params.evaluation.images]:
        crop = masked[number]
        image, labels, middle = evaluation.volume(crop), evaluation.code(crop), len(crop.image) // 2
        predicted = torch.zeros_like(labels)
        for piece in model.logits(image, params.evaluation.overlap, params.evaluation.batch_size):
            decided = model.module.deciding(piece.logits, params.evaluation.logits)
            each = [figures.labels_of(some) for some in decided]
            predicted[piece.places] = (torch.stack(each) if decided.ndim == 4 else each[0]).cpu()
        missing = [name for name, there in zip(CLASSES, crop.annotated, strict=True) if not there]
        yield figures.Example(crop.name, image[middle], labels[middle], predicted[middle], missing)


def write(found: Found, model: networks.Model, drawn: list[figures.Example], out: Path) -> None:
    """Write tables and figures."""
    network, names = found.network, ["other", *CLASSES]
    write_json(out / "metrics.json", headlines(found, model))
    write_csv(out / "models.csv", MODEL_COLUMNS, model_rows(found))
    write_csv(out / "classes.csv", CLASS_COLUMNS, class_rows(found))
    rows = [(name, each.mean_dice, each.classes) for name, each in found.datasets.items()]
    write_csv(out / "datasets.csv", ("dataset", "dice", "classes"), rows)
    table = zip(names, network.confusion.tolist(), strict=True)
    write_csv(out / "confusion.csv", ["truth", *names], [[name, *row] for name, row in table])
    figures.examples(out / "examples.png", drawn)
    dice = {NETWORK: network.dice} | {name: each.dice for name, each in found.controls.items()}
    figures.by_class(out / "classes.png", dice | {EVERYTHING: constant(network, True)}, model.facts.frequencies.shares)
    figures.confusion(out / "confusion.png", network.confusion)


def constant(scores: PooledScores, everything: bool) -> Tensor:
    """Dice per class of predicting each class everywhere, or nowhere."""
    return evaluation.constant_dice(scores.positive, scores.annotated, everything)


def constant_mean(scores: PooledScores, everything: bool) -> float:
    """Mean Dice of such a prediction, over the same classes."""
    return scores.mean(constant(scores, everything))


def model_rows(found: Found) -> Iterator[list[str | float]]:
    """The rows of models.csv."""
    for name, scores in {NETWORK: found.network, **found.controls}.items():
        means = (scores.iou, scores.precision, scores.recall, scores.average_precision)
        yield [name, scores.mean_dice, scores.classes, *map(scores.mean, means)]
    for name, everything in ((EVERYTHING, True), (NOTHING, False)):
        yield [name, constant_mean(found.network, everything), found.network.classes, *[float("nan")] * 4]


def class_rows(found: Found) -> Iterator[list[str | float]]:
    """The rows of classes.csv."""
    own = found.network
    columns = (own.annotated, own.positive, own.dice, own.iou, own.precision, own.recall, own.average_precision)
    controls = found.controls[NULL].dice, constant(own, True), found.controls[INTENSITY].dice
    for place, name in enumerate(CLASSES):
        yield [name, *(float(column[place]) for column in (*columns, *controls))]


def headlines(found: Found, model: networks.Model) -> dict[str, float]:
    """The few numbers: mean Dice of the network in several ways and of every control, and what the network costs."""
    network, edges = found.network, model.params.sampling.patch
    counted = networks.without_gpu(model.params.model)
    rare = [CLASSES.index(name) for name in RARE]
    known = network.confusion[OTHER:, OTHER:].sum()
    return {
        "dice": network.mean_dice,
        "classes": network.classes,
        "dice_rare": network.mean(network.dice, rare),
        "iou": network.mean(network.iou),
        "precision": network.mean(network.precision),
        "recall": network.mean(network.recall),
        "average_precision": network.mean(network.average_precision),
        "dice_other_logits": found.other.mean_dice,
        "dice_masked": found.masked.mean_dice,
        f"dice_{NULL}": found.controls[NULL].mean_dice,
        f"dice_{EVERYTHING}": constant_mean(network, True),
        f"dice_{NOTHING}": constant_mean(network, False),
        f"dice_{INTENSITY}": found.controls[INTENSITY].mean_dice,
        "voxel_accuracy": float(network.confusion.diagonal().sum() / known) if known else float("nan"),
        "parameters": parameters(model.module.network),
        "gflop": operations(lambda: build(counted, len(CLASSES), edges), edges) / 1e9,
    }


RARE = ("mito_ribo", "golgi_mem", "golgi_lum", "ves_mem", "ves_lum", "endo_mem")
"""Classes with less than 0.25 % of the annotated voxels of simulated crops."""
