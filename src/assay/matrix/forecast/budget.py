"""Jobs against a machine's limit, and sums against a study's budget; open it when a run is refused for its length."""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from assay.matrix.forecast.scaling import Estimate
from assay.matrix.study import BudgetConfig

HOP_S = 15.0
"""Lost at each change of jobs: the start of the next one, and the steps since the checkpoint that was asked for."""
HOUR_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A stage in a chain of jobs. continues: it may be stopped at the end of one and go on in the next."""

    name: str
    seconds: float
    continues: bool


def jobs_needed(pieces: Sequence[Piece], limit: float | None, lead: float) -> int:
    """How many jobs of `limit` seconds, one after another, a run's stages take; 1 without a limit.

    lead: what each job keeps for its end, in s. Zero jobs: some stage fits into none; `unfit` says which.
    """
    usable = math.inf if limit is None else limit - lead
    if usable <= 0 or any(True for _ in unfit(pieces, limit, lead)):
        return 0
    jobs, left = 1, usable
    for piece in pieces:
        if not piece.continues and piece.seconds > left:
            jobs, left = jobs + 1, usable
        over = piece.seconds - left
        if over > 0:
            more = math.ceil(over / max(usable - HOP_S, 1.0))
            jobs, left = jobs + more, more * max(usable - HOP_S, 1.0) - over
        else:
            left = -over
    return jobs


def unfit(pieces: Sequence[Piece], limit: float | None, lead: float) -> Iterator[Piece]:
    """Stages that cannot stop and continue, and take longer than a job may."""
    for piece in pieces:
        if limit is not None and not piece.continues and piece.seconds > limit - lead:
            yield piece


def elapsed_share(runs: Sequence[float], jobs: int) -> float:
    """What runs take with `jobs` at a time, of what they take one by one; each begins when one before it has ended."""
    ends = [0.0] * min(jobs, len(runs))
    for seconds in runs:
        heapq.heapreplace(ends, ends[0] + seconds)
    return max(ends) / sum(runs) if sum(runs) else 1.0


def against(budget: BudgetConfig, hours: Estimate, money: Estimate) -> Iterator[str]:
    """A line for each bound that what is spent and forecast together exceeds, or may."""
    for name, bound, found in (("hours", budget.hours, hours), ("money", budget.money, money)):
        if bound is None or found.high <= bound:
            continue
        sure = "" if found.low > bound else "probably " if found.value > bound else "perhaps "
        taken = f"{found.value:.3g} ({found.low:.3g} to {found.high:.3g})"
        yield f"budget.{name}: what is spent and what is missing make {taken}, {sure}more than {bound:g}"
