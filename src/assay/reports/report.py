"""`assay report`: everything a study's records say, written to a folder; open it to add a file to a report.

OUT/report.md report.html arms.csv runs.csv summary.csv                  made anew each time
OUT/experiments.md figures/*.png leaderboard.csv                         made anew each time
OUT/notes.md                                                             a person's
"""

from dataclasses import dataclass
from pathlib import Path

from assay.errors import ConfigError
from assay.files import write_bytes
from assay.matrix.submission import REPORTS
from assay.reports import notes
from assay.reports.experiments import begun, write_experiments
from assay.reports.figures import draw
from assay.reports.gather import Report, gather
from assay.reports.markdown import write_report
from assay.reports.page import write_page
from assay.reports.spreadsheets import write_arms, write_leaderboard, write_runs, write_summary

"""Folder of the reports of all studies, beside the study file."""


@dataclass(frozen=True)
class Written:
    """A report and the folder it was written to."""

    report: Report
    folder: Path


def write(path: Path, out: Path | None = None, only: str | None = None, leaderboard: Path | None = None) -> Written:
    """Write the report of a study file.

    out: default reports/<name> beside the study file. leaderboard: the file to which this study's best arms are put;
    default leaderboard.csv in the folder of the reports, or in `out` where that is given. It is left alone where `only`
    hides arms that may be better.

    Raises:
        ConfigError: the study file is wrong, no arm matches `only`, or a file stands where the folder would be.
        DataError: a record, the notes or a leaderboard cannot be read, or the folder not written.
    """
    gathered = gather(path, only)
    folder = path.parent / REPORTS / gathered.config.name if out is None else out
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ConfigError(f"{folder}: is a file, or below one; allowed: a folder; give one with --out") from None
    if only is None:
        write_leaderboard(leaderboard or (folder.parent if out is None else folder) / "leaderboard.csv", gathered)
    write_arms(folder / "arms.csv", gathered)
    write_runs(folder / "runs.csv", gathered)
    write_summary(folder / "summary.csv", gathered)
    _write_texts(folder, gathered)
    return Written(gathered, folder)


def _write_texts(folder: Path, gathered: Report) -> None:
    notes_file = folder / notes.NAME
    notes.add_headings(notes_file, begun(gathered))
    written = notes.read_notes(notes_file)
    drawings = draw(gathered)
    for each in drawings:
        write_bytes(folder / "figures" / f"{each.name}.png", each.png)
    texts = {
        "experiments.md": write_experiments(gathered, written, folder / "experiments.md"),
        "report.md": write_report(gathered, drawings, folder / "report.md"),
        "report.html": write_page(gathered, drawings, written, folder / "report.html"),
    }
    for name, text in texts.items():
        write_bytes(folder / name, text.encode(errors="backslashreplace"))
