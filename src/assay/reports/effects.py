"""A verdict's effect and its reason, in one line each; open it to change what stands on a verdict's card."""

from assay.matrix.verdicts.hypotheses import Verdict, measured, p_text
from assay.reports import words
from assay.reports.gather import Report


def reason_text(report: Report, name: str) -> str:
    """Why the verdict is what it is, and whether the claim is as it was before there were results."""
    amended = f"; amended after data: {report.amended[name]}" if name in report.amended else ""
    return report.verdicts[name].reason + amended


def effect_text(verdict: Verdict) -> str:
    """Ratio or difference with its interval, p and n; empty where nothing was measured."""
    found = verdict.effect
    if found is None:
        return ""
    what, value, ends = measured(verdict, found)
    low, high = ("unbounded" if end is None else words.number(end) for end in ends)
    text = f"{what} {'not finite' if value is None else words.number(value)}"
    parts = [f"{text} [{low}, {high}] at {100 * found.level:.3g} %", f"n = {verdict.n}"]
    if verdict.p_adjusted is not None:
        parts.append(p_text(verdict.p_adjusted))
    return ", ".join(parts)
