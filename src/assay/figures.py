"""Figures of the studies as PNG files in one style; open it for a font, a line width or the resolution.

with page(Path("loss.png"), 6.0, 3.8, grid=True) as figure:
    figure.subplots().plot(losses)
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from assay.files import write_bytes

STYLE: Any = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "hatch.linewidth": 0.4,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.0,
}
DPI = 150


@contextmanager
def page(path: Path, width: float, height: float, *, grid: bool = False) -> Iterator[Figure]:
    """A figure of width x height inches, written to `path` as PNG at the end; the same content gives the same bytes.

    Raises:
        DataError: the disk is full or the folder not writable.
    """
    with matplotlib.rc_context({**STYLE, "axes.grid": grid}):
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        content = io.BytesIO()
        figure.savefig(content, format="png", metadata={"Software": None})
    write_bytes(path, content.getvalue())
