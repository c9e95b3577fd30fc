"""A person's notes beside a report: read, never changed; open it for how they are found.

notes.md has a heading `## ARM` for every arm with a run; what stands below one is that arm's. The file is begun with
empty headings, and headings of new arms are put at its end; nothing that is in it is ever rewritten.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from assay.errors import DataError

NAME = "notes.md"
HEAD = """\
# Notes

Write below an arm's heading; headings of your own begin with ###. `assay report` reads this file into experiments.md
and report.html, adds headings for new arms at its end, and changes nothing else.
"""
HEADING = re.compile(r"^## +(.+?) *$", re.MULTILINE)


def read_notes(path: Path) -> dict[str, str]:
    """Arm to what a person wrote about it; empty where there is no file.

    Raises:
        DataError: the file is not UTF-8 text or cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); make it UTF-8 text or move it away") from None
    parts = HEADING.split(text)[1:]
    return {name: note.strip() for name, note in zip(parts[::2], parts[1::2], strict=True)}


def add_headings(path: Path, arms: Sequence[str]) -> None:
    """Append a heading for every arm that has none.

    Raises:
        DataError: the file cannot be written.
    """
    known = read_notes(path)
    missing = [arm for arm in arms if arm not in known]
    head = "" if path.exists() else HEAD
    if head or missing:
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(head + "".join(f"\n## {arm}\n" for arm in missing))
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror}); make room, then run it again") from None
