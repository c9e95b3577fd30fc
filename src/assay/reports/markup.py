"""Markdown that any text can be put into; open it for tables, links and fences.

`cell` and `quoted` escape: what they get may come from a log or a config and hold anything.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from assay.reports.details import shown
from assay.reports.spreadsheets import relative

CHANGES = 8
"""Config differences named in a sentence."""


def cell(text: object) -> str:
    """Text in a table: on one line, no markup."""
    plain = re.sub(r"\s+", " ", str(text))
    return re.sub(r"([\\`*_\[\]|<>#&])", r"\\\1", plain)


def quoted(lines: Iterable[str]) -> str:
    """Lines as they are, in a fence that they cannot close."""
    text = "\n".join(lines)
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts that are escaped already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def link(text: str, folder: Path, path: Path) -> str:
    """A number that leads to the runs it came from."""
    return f"[{text}](<{relative(folder, path)}>)"


def changes_text(changes: Mapping[str, object]) -> str:
    """key=value, the first few."""
    texts = [f"{cell(key)}={cell(shown(value))}" for key, value in changes.items()]
    more = f" and {len(texts) - CHANGES} more" if len(texts) > CHANGES else ""
    return (", ".join(texts[:CHANGES]) or "nothing") + more
