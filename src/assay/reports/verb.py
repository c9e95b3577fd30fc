"""The verb `report`: parse and call; open it to change its options."""

import argparse
import json
from pathlib import Path


def add_report(verb: argparse.ArgumentParser) -> None:
    """Write tables, figures, verdicts and a page from the records of a study's runs.

    The folder gets report.md, report.html (one file that needs no network), arms.csv, runs.csv, summary.csv,
    experiments.md and figures/*.png, made anew each time. notes.md there is yours: nothing that you write in it is ever
    changed.

    examples:
      assay report study.yaml
      assay report study.yaml --out results/report --only 'stack_*'
      assay report studies/burgers/study.yaml --leaderboard reports/leaderboard.csv
    """
    verb.add_argument("file", metavar="STUDY.yaml", type=Path, help="a study file")
    verb.add_argument("--out", metavar="DIR", type=Path, help="default: reports/NAME beside the study file")
    verb.add_argument("--only", metavar="GLOB", help="arms whose names match; the leaderboard is left alone")
    verb.add_argument("--leaderboard", metavar="FILE", type=Path, help="put this study's best arms among others'")
    verb.add_argument("--json", action="store_true", help="print the verdicts as JSON instead of text")
    verb.set_defaults(call=report)


def report(parsed: argparse.Namespace, rest: list[str]) -> int:
    """Write the report; print where it is and what the verdicts are."""
    from assay.reports.effects import reason_text
    from assay.reports.report import write

    written = write(parsed.file, parsed.out, parsed.only, parsed.leaderboard)
    found = written.report
    verdicts = {name: (each.verdict, reason_text(found, name)) for name, each in found.verdicts.items()}
    if parsed.json:
        told = {name: {"verdict": verdict, "reason": reason} for name, (verdict, reason) in verdicts.items()}
        print(json.dumps({"report": str(written.folder / "report.html"), "verdicts": told}, indent=2))
        return 0
    for name, (verdict, reason) in verdicts.items():
        print(f"{name}: {verdict}: {reason}")
    for warning in found.warnings:
        print(f"warning: {warning}")
    print(f"written: {written.folder / 'report.md'} and {written.folder / 'report.html'}")
    return 0
