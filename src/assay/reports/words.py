"""Numbers, durations and sizes as a report writes them; open it to change how one looks."""

import math

from assay.reports.summary import Estimate


def number(value: float) -> str:
    """Four significant digits, with a true minus sign."""
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def interval(each: Estimate) -> str:
    """The mean with its interval: 0.05770 [0.0550, 0.0604]; one seed has none."""
    if each.low is None or each.high is None:
        return number(each.mean)
    ends = [each.mean, each.low, each.high]
    if 1e-3 <= abs(each.mean) < 1e4:
        decimals = 3 - math.floor(math.log10(abs(each.mean)))  # as many as the mean needs for four digits
        mean, low, high = (f"{end:.{max(0, decimals)}f}".replace("-", "\N{MINUS SIGN}") for end in ends)
    else:
        mean, low, high = map(number, ends)
    return f"{mean} [{low}, {high}]"


def count(each: Estimate) -> str:
    """How many of the seeds asked for the number comes from."""
    return f"{each.n}/{each.planned}"


def change(difference: Estimate, baseline: float) -> str:
    """A paired difference in per cent of the baseline's mean; in the metric's unit where that is zero."""
    if baseline == 0:
        return interval(difference)
    scale = 100 / abs(baseline)
    if difference.low is None or difference.high is None:
        return f"{_signed(difference.mean * scale)} %"
    low, high = _signed(difference.low * scale), _signed(difference.high * scale)
    return f"{_signed(difference.mean * scale)} % [{low}, {high}]"


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")


def duration(seconds: float) -> str:
    """1:02:03, hours first."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def size(count_of_bytes: float) -> str:
    """In MB or GB of 1024."""
    megabytes = count_of_bytes / 2**20
    return f"{megabytes:.0f} MB" if megabytes < 1024 else f"{megabytes / 1024:.1f} GB"


def plural(many: int, noun: str) -> str:
    """1 run, 2 runs."""
    return f"{many:,} {noun}{'' if many == 1 else 's'}"
