"""Times, sizes and amounts as a person reads them; open it to print another unit."""

from collections.abc import Callable

from assay.matrix.forecast.scaling import Estimate

UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
SIZES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def duration(seconds: float) -> str:
    """In the largest unit of which there is one, e.g. `1.5 h`."""
    size, unit = next((each for each in UNITS if seconds >= each[0]), UNITS[-1])
    return f"{amount(seconds / size)} {unit}"


def bytes_text(size: float) -> str:
    """E.g. `1.5 GB`."""
    divisor, unit = next((each for each in SIZES if size >= each[0]), (1.0, "B"))
    return f"{amount(size / divisor)} {unit}"


def amount(value: float) -> str:
    """Two digits, all of those before the point."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def with_interval(found: Estimate, text: Callable[[float], str]) -> str:
    """E.g. `1.5 h (1.2 to 1.9)`, or `50 min (40 min to 1.2 h)`."""
    value, low, high = text(found.value), text(found.low), text(found.high)
    unit = value.partition(" ")[1] + value.partition(" ")[2]
    if low.endswith(unit) and high.endswith(unit):
        low, high = low.removesuffix(unit), high.removesuffix(unit)
    return f"{value} ({low} to {high})"
