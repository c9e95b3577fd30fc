"""Records of asl runs that never were, by a law of time that a test knows; open it for tests of forecasts."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assay.config.load import assign, read
from assay.runs.provenance import hardware
from assay.runs.record import Attempt, Holder, Resources, Run, Stage, Work, to_json

ROOT = Path(__file__).parents[2]
DATA = read(ROOT / "params.yaml")
HERE = hardware()
START_S = 2.0
STAGES = ("simulate", "train", "validate", "sensitivity")


def seconds_by_stage(params: Mapping[str, Any], noise: float = 0.0) -> dict[str, dict[str, Work]]:
    """What each phase of each stage takes: a power law that the forecast is not told, times exp(noise)."""
    data, train, evaluation = params["data"], params["train"], params["evaluation"]
    area, factor = data["image_size"] ** 2, math.exp(noise)
    width = sum(params["model"]["hidden_sizes"])
    step = 2e-7 * area * train["batch_size"] * train["ensemble_size"] * width**1.2 * factor
    steps, every = train["steps"], train["validate_every"]
    passes = 1 + -(-steps // every)
    phantoms, evaluations = data["phantoms"], 2 * len(evaluation["snr"])
    return {
        "simulate": {"simulate": _work(1e-6 * area * phantoms * factor, phantoms)},
        "train": {
            "train": _work(step * steps, steps),
            "validate": dataclasses.replace(_work(0.05 * passes * factor, passes, of=1), passes=passes),
        },
        "validate": {"validate": _work(3e-3 * width * evaluations * evaluation["phantoms"] / 50 * factor, evaluations)},
        "sensitivity": {"sensitivity": _work(1.5 * factor, 3)},
    }


def _work(seconds: float, units: int, of: int | None = None) -> Work:
    return Work(passes=1, seconds=seconds, units=units, of=of or units)


def attempt(params: Mapping[str, Any], noise: float = 0.0, **changes: Any) -> Attempt:
    """One attempt that ran every stage to its end."""
    at, stages = 1000.0, []
    for name, work in seconds_by_stage(params, noise).items():
        ended = at + START_S + sum(each.seconds for each in work.values())
        stages.append(Stage(study="asl", stage=name, started=at, ended=ended, code=0, work=work))
        at = ended + 0.5
    here = Holder(host="here", pid=1, start_ticks=1, boot_id="0")
    made = Attempt(number=1, holder=here, command=["dvc"], started=999.0, heartbeat=at, ended=at, code=0, stages=stages)
    peak = Resources(rss_peak=int(5e8 + 1e6 * params["train"]["batch_size"]))
    return dataclasses.replace(made, resources=peak, **changes)


def write_run(folder: Path, changes: Mapping[str, Any], noise: float = 0.0, **more: Any) -> None:
    """A complete run below runs/<study>/<arm>/<seed>; changes: of params.yaml. more: of the attempt, or `hardware`."""
    study, arm, seed = folder.parts[-3:]
    params = assign(DATA, {**changes, "seed": int(seed)})
    kept = more.pop("hardware", HERE)
    run = Run(
        study=study, arm=arm, seed=seed, params=params, stages=list(STAGES), hardware=kept, disk={"simulate": 10**6}
    )
    (folder / "attempts").mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(to_json(run)))
    (folder / "attempts/0001.json").write_text(json.dumps(to_json(attempt(params, noise, **more))))
    (folder / "metrics.json").write_text("{}")


def true_seconds(changes: Mapping[str, Any]) -> float:
    """What all stages of a run with these parameters take, without noise."""
    works = seconds_by_stage(assign(DATA, changes)).values()
    return sum(START_S + sum(each.seconds for each in work.values()) for work in works)
