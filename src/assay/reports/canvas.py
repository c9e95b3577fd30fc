"""How a figure of a report is drawn: style, size, PNG and SVG; open it for a colour or a font.

A figure leaves as PNG on white, for report.md, and as SVG whose text and lines take the page's own colours, for
report.html in light and dark.
"""

import io
import math
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

INK, GRID = "#111213", "#e3e4e5"
"""Replaced by the page's text colour and its line colour in SVG: no other part of a figure may use them."""
ARM, BASELINE, FAILED = "#2586c2", "#d55e00", "#cc79a7"
SERIES = ("#2586c2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#7f7f7f")
"""Okabe and Ito's colours, safe for colour-blind readers, in the order of use; none is lost on white or black."""
STYLE: Any = {
    "font.size": 10.0,
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    "svg.hashsalt": "assay",
    "text.color": INK,
    "text.parse_math": False,  # a name with two dollar signs is a name
    "axes.titlesize": 11.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 5.0,
}
DPI = 150
NO_METADATA: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
LABEL_CHARACTERS = 34


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A finished figure. text: what it shows, for a reader who cannot see it; note: what was left out, if anything."""

    name: str
    title: str
    text: str
    note: str
    png: bytes
    svg: str


def style() -> AbstractContextManager[None]:
    """Whatever is drawn within looks as a report's figure does."""
    return matplotlib.rc_context(STYLE)


class Page:
    """One figure being drawn, within `style`: axes to draw on, then `finish`."""

    def __init__(self, name: str, width: float, height: float, rows: int = 1, columns: int = 1) -> None:
        self.name = name
        self.figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        FigureCanvasAgg(self.figure)
        self.axes: list[Axes] = list(self.figure.subplots(rows, columns, squeeze=False).flat)

    def finish(self, title: str, text: str, note: str = "") -> Drawing:
        """Render both forms."""
        png, svg = io.BytesIO(), io.BytesIO()
        self.figure.savefig(png, format="png", metadata={"Software": None}, facecolor="white")
        self.figure.savefig(svg, format="svg", metadata=NO_METADATA, transparent=True)
        inline = _inline(svg.getvalue().decode(), self.name)
        return Drawing(name=self.name, title=title, text=text, note=note, png=png.getvalue(), svg=inline)


def _inline(svg: str, name: str) -> str:
    """An SVG document as an element of a page: no declarations, ids of its own, the page's colours."""
    element = svg[svg.index("<svg") :]
    element = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", element)
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r'\bid="', f'id="{name}-', element)
    element = re.sub(r'href="#', f'href="#{name}-', element)
    element = element.replace("url(#", f"url(#{name}-")
    element = re.sub(r"font: ([\d.]+px|[a-z]+ [\d.]+px)[^;\"]*", r"font: \1 inherit-page", element)
    element = element.replace(INK, "var(--ink)").replace(GRID, "var(--line)")
    return re.sub(r'<svg[^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', element, count=1)


def label(text: str) -> str:
    """A name short enough for an axis."""
    return text if len(text) <= LABEL_CHARACTERS else f"{text[: LABEL_CHARACTERS - 1]}\N{HORIZONTAL ELLIPSIS}"


def broken(text: str, width: int) -> str:
    """A name in lines of at most `width` characters, cut after slashes, underscores and blanks only."""
    lines = [""]
    for part in re.findall(r"[^/_ ]+[/_ ]*|[/_ ]+", text):
        if lines[-1] and len(lines[-1] + part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


def name_rows(axis: Axes, names: Sequence[str]) -> None:
    """One name per row, the first on top."""
    axis.set_yticks(range(len(names)), [label(name) for name in names])
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(visible=False, axis="y")


def plain_ticks(axis: Axis, low: float, high: float) -> None:
    """Plain numbers at the ticks of a logarithmic axis that shows low to high: 0.5, 1, 2."""
    decades = math.log10(high / low) if low > 0 else 1.0
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))


def is_wide(numbers: Sequence[float]) -> bool:
    """Whether positive numbers span so much that a logarithmic axis shows them better."""
    return bool(numbers) and min(numbers) > 0 and max(numbers) / min(numbers) > 20
