"""Which stages of different runs are the same, so that DVC's cache has them; open it when one is counted twice."""

import json
from collections.abc import Mapping

from assay.matrix.forecast.pipeline import SEED, Parameters, PipelineStage

Key = tuple[str, int, int | None]
"""Stage, number of its parameters and of all before it, seed if it matters."""


class Sharing:
    """A key for every stage of a run: equal where parameters, seed and all earlier stages are."""

    def __init__(self, pipeline: Mapping[str, PipelineStage]) -> None:
        self.pipeline = pipeline
        self._numbers: dict[str, int] = {}
        self._known: dict[tuple[str, Parameters], tuple[int, bool]] = {}

    def key(self, stage: str, parameters: Parameters, seed: int) -> Key:
        """What a stage of a run is the same by."""
        number, seeded = self._number(stage, parameters)
        return stage, number, seed if seeded else None

    def _number(self, name: str, parameters: Parameters) -> tuple[int, bool]:
        """The number of its parameters, and whether the seed matters."""
        key = name, parameters
        if key not in self._known:
            stage = self.pipeline[name]
            before = [self._number(each, parameters) for each in stage.needs]
            read = json.dumps(stage.leaves(parameters.leaves), sort_keys=True, default=str)
            text = f"{name} {read} {[number for number, _ in before]}"
            seeded = stage.reads(SEED) or any(seeded for _, seeded in before)
            self._known[key] = self._numbers.setdefault(text, len(self._numbers)), seeded
        return self._known[key]
