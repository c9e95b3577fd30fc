"""Sizes of simulated recordings by name, and the length of a scene; open it to add a preset."""

from typing import NamedTuple

SCENE_STEPS = 50  # time steps between two cuts of the stimulus


class Size(NamedTuple):
    """Cell types, how many of them are inputs, radius of the sheet in columns, mean number of forward source types."""

    types: int
    input_types: int
    radius: int
    sources: float

    @property
    def columns(self) -> int:
        """Columns of the sheet."""
        return 3 * self.radius**2 + 3 * self.radius + 1

    @property
    def neurons(self) -> int:
        """One of each type in every column."""
        return self.types * self.columns


SIZES = {
    "tiny": Size(types=16, input_types=2, radius=2, sources=7.0),
    "small": Size(types=16, input_types=2, radius=4, sources=7.0),
    "full": Size(types=65, input_types=8, radius=8, sources=9.3),
}
"""304, 976 and 14,105 neurons; the published recording has 13,741 of 65 types."""
