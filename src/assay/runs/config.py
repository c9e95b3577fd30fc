"""How a run is watched, as typed data; open it to change a bound."""

from dataclasses import dataclass, field
from typing import Annotated

from assay.config.fields import Bounds

Seconds = Annotated[float, Bounds(gt=0)]


@dataclass(frozen=True, kw_only=True)
class FloorsConfig:
    """How long each phase may be silent, in s, however fast its steps are.

    Before its first step, which may compile, a phase has the largest of all, `command` left out.
    """

    load: Seconds = 600.0
    """Opening data, computing statistics; also the phase `import`."""
    train: Seconds = 300.0
    """Between two training steps."""
    validate: Seconds = 600.0
    """Between two units of a validation."""
    checkpoint: Seconds = 600.0
    """While a checkpoint is written."""
    other: Seconds = 600.0
    """Every other phase."""
    command: Seconds = 1800.0
    """A plain command: no output, no CPU time, no input or output."""


@dataclass(frozen=True, kw_only=True)
class WatchConfig:
    """When silence is a stall: longer than the phase's floor and than `factor` median intervals of that phase."""

    factor: Annotated[float, Bounds(ge=2)] = 20.0
    """How many median intervals."""
    floors: FloorsConfig = field(default_factory=FloorsConfig)
    """In s."""
    retries: Annotated[int, Bounds(ge=0, le=3)] = 1
    """How often a stalled command is started again in place before it ends with exit code 76."""
