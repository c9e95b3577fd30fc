"""How a task is trained: budget, optimiser, schedule, precision; open it to add a training option."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

from assay.config.fields import Bounds, Incidental, Problem, layout
from assay.errors import ConfigError

FREE_IN_STACK = ("optimizer", "schedule", "clip_norm", "ema_decay", "patience")
"""Keys of a training section in which runs may differ that are trained in one pass, see stack.py."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The rule that turns gradients into updates."""

    name: Literal["adamw", "adam", "nadam", "radam", "sgd"]
    """Update rule of torch.optim."""
    lr: Annotated[float, Bounds(gt=0)]
    """Learning rate; the maximum of a schedule that rises first."""
    weight_decay: Annotated[float, Bounds(ge=0)]
    """Decoupled (adamw) or L2 (others) weight decay."""
    betas: Annotated[tuple[float, float], Bounds(ge=0, lt=1)] | None
    """Decay of the gradient's first and second moments; null for sgd."""
    momentum: Annotated[float, Bounds(ge=0, lt=1)] | None
    """Momentum of sgd; null for the others."""

    def conflicts(self) -> Iterator[Problem]:
        """Options that the chosen rule would ignore, or that it lacks."""
        sgd = self.name == "sgd"
        if sgd and self.betas is not None:
            yield Problem("betas", str(list(self.betas)), "null with name sgd")
        if not sgd and self.betas is None:
            yield Problem("betas", "null", f"two numbers with name {self.name}", "give [0.9, 0.999]")
        if sgd and self.momentum is None:
            yield Problem("momentum", "null", "a number >= 0, < 1 with name sgd", "give 0.9")
        if not sgd and self.momentum is not None:
            yield Problem("momentum", str(self.momentum), f"null with name {self.name}")


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The learning rate over the budget."""

    name: Literal["constant", "onecycle", "cosine", "plateau"]
    """Shape: constant; one cycle (Smith & Topin 2018); linear warm-up then cosine; lowered on a plateau."""
    warmup_fraction: Annotated[float, Bounds(ge=0, lt=1)] | None
    """Share of the steps during which the rate rises (onecycle, cosine)."""
    initial_division: Annotated[float, Bounds(ge=1)] | None
    """First rate = lr / this (onecycle, cosine)."""
    final_division: Annotated[float, Bounds(ge=1)] | None
    """Last rate = first rate / this (onecycle), lr / this (cosine)."""
    lowest_momentum: Annotated[float, Bounds(ge=0, lt=1)] | None
    """The optimiser's momentum (betas[0]) falls to this while the rate rises, and back (onecycle); null: stays."""
    plateau_factor: Annotated[float, Bounds(gt=0, lt=1)] | None
    """Factor on the rate after `plateau_patience` validations without improvement (plateau)."""
    plateau_patience: Annotated[int, Bounds(ge=0)] | None
    """Validations without improvement that are tolerated (plateau)."""

    def conflicts(self) -> Iterator[Problem]:
        """Options that the chosen shape would ignore, or that it lacks."""
        used = {
            "constant": (),
            "onecycle": ("warmup_fraction", "initial_division", "final_division"),
            "cosine": ("warmup_fraction", "initial_division", "final_division"),
            "plateau": ("plateau_factor", "plateau_patience"),
        }[self.name]
        if self.lowest_momentum is not None and self.name != "onecycle":
            yield Problem("lowest_momentum", str(self.lowest_momentum), f"null with name {self.name}")
        for key in ("warmup_fraction", "initial_division", "final_division", "plateau_factor", "plateau_patience"):
            value = getattr(self, key)
            if key in used and value is None:
                yield Problem(key, "null", f"a number with name {self.name}", "give a value")
            if key not in used and value is not None:
                yield Problem(key, str(value), f"null with name {self.name}", f"{self.name} does not read it")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The training budget and how it is spent."""

    steps: Annotated[int, Bounds(ge=1)] | None
    """Optimiser steps; exactly one of steps and epochs is given."""
    epochs: Annotated[float, Bounds(gt=0)] | None
    """Passes over the training samples; exactly one of steps and epochs is given."""
    batch_size: Annotated[int, Bounds(ge=1)]
    """Samples per forward pass."""
    accumulate: Annotated[int, Bounds(ge=1)]
    """Forward passes per optimiser step; samples per step = batch_size x accumulate."""
    ensemble_size: Annotated[int, Bounds(ge=1)]
    """Members trained in one pass on the same batches; they differ in their initial weights."""
    optimizer: OptimizerConfig
    """The update rule."""
    schedule: ScheduleConfig
    """The learning rate over the budget."""
    clip_norm: Annotated[float, Bounds(gt=0)] | None
    """Upper bound of each member's gradient 2-norm; null for none."""
    ema_decay: Annotated[float, Bounds(gt=0, lt=1)] | None
    """Decay per step of an exponential moving average of the weights, which is then evaluated; null for none."""
    precision: Literal["fp32", "bf16", "fp16"]
    """Number format of the forward pass (autocast); weights stay fp32."""
    tf32: bool
    """Allow TensorFloat-32 products on NVIDIA GPUs."""
    compile: Literal["none", "default", "reduce-overhead", "max-autotune-no-cudagraphs", "max-autotune"]
    """torch.compile mode of the loss; none runs eagerly."""
    validate_every: Annotated[int, Bounds(ge=1)]
    """Optimiser steps between validations; the last step is always validated."""
    patience: Annotated[int, Bounds(ge=1)] | None
    """Validations without improvement of any member before training stops early; null to spend the budget."""
    log_every: Annotated[int, Bounds(ge=1), Incidental()]
    """Optimiser steps between two logged losses."""
    checkpoint_every: Annotated[int, Bounds(ge=1), Incidental()]
    """Optimiser steps between two checkpoints: the most that a killed run loses."""
    device: Annotated[Literal["auto", "cpu", "cuda"], Incidental()]
    """Where to train; auto takes a GPU if there is one."""

    def conflicts(self) -> Iterator[Problem]:
        """Budgets given twice or not at all, and precisions that do not exist on the device."""
        if (self.steps is None) == (self.epochs is None):
            given = f"steps {self.steps} and epochs {self.epochs}".replace("None", "null")
            yield Problem("steps", given, "exactly one of steps and epochs", "set the other to null")
        if self.precision == "fp16" and self.device == "cpu":
            yield Problem("precision", "fp16", "fp32 or bf16 with device cpu", "use bf16")

    def total_steps(self, samples_per_epoch: int) -> int:
        """Optimiser steps of the whole budget, at least one."""
        if self.steps is not None:
            return self.steps
        epochs = self.epochs or 0.0
        return max(1, round(epochs * samples_per_epoch / self.samples_per_step))

    @property
    def samples_per_step(self) -> int:
        """Samples seen by one optimiser step."""
        return self.batch_size * self.accumulate


@cache
def training_sections(params: Any, prefix: str = "") -> tuple[str, ...]:
    """Dotted names of the sections of a study's parameters, given by their class, that are training budgets."""
    found: list[str] = []
    for name, _, section, _ in layout(params):
        if section is TrainConfig:
            found.append(f"{prefix}{name}")
        elif section is not None:
            found += training_sections(section, f"{prefix}{name}.")
    return tuple(found)


def part_of(batch_size: int, processes: int) -> int:
    """Samples of a batch that each of several processes takes.

    Raises:
        ConfigError: it cannot be cut into equal parts.
    """
    if batch_size % processes:
        given = f"train.batch_size: got {batch_size} with {processes} processes"
        raise ConfigError(f"{given}; allowed: a multiple of {processes}; each process takes an equal part")
    return batch_size // processes
