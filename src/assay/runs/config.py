"""How a run is watched, as typed data; open it to change a bound or to see what a machine file may say.

A machine file, `machines/NAME.yaml`, says what is true of a place for every run there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from assay.config.fields import Bounds
from assay.config.load import build, read, resolved
from assay.errors import ConfigError

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


@dataclass(frozen=True, kw_only=True)
class MachineConfig:
    """A place where runs happen."""

    name: str = "local"
    """For reports."""
    wall_limit: Seconds | None = None
    """How long a job may take, in s; null: no limit, or the scheduler's own words are used."""
    jobs: Annotated[int, Bounds(ge=1)] = 1
    """How many runs at a time `assay submit` has going here."""
    grace: Annotated[float, Bounds(ge=0)] = 30.0
    """How long a command may take to end once asked to, in s, before it is killed."""
    watch: WatchConfig = field(default_factory=WatchConfig)
    """When silence is a stall."""


def load_machine(path: Path) -> MachineConfig:
    """Read a machine file; a key that it leaves out has its default.

    Raises:
        ConfigError: one line per problem, each with file, dotted key, what was given and what is allowed.
    """
    data = _completed(read(path), resolved(MachineConfig()))
    try:
        return build(MachineConfig, data)
    except ConfigError as error:
        raise ConfigError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None


def _completed(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    sections = {
        key: _completed(given[key], value)
        for key, value in defaults.items()
        if isinstance(value, Mapping) and isinstance(given.get(key), Mapping)
    }
    return {**defaults, **given, **sections}
