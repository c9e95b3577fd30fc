"""What a rented machine has cost, and for how long it may be rented; open it if `assay status` says a wrong sum."""

import time
from dataclasses import replace

from assay.schedulers.vast_client import Instance
from assay.schedulers.vast_jobs import Rental, Ticket

LOOKS = 3
"""So many looks in a row, at least, find a machine not as it should be before it is given up."""
CHEAPEST = 1e-6
"""Dollars an hour, of a machine that costs nothing too."""
STOPPED = ("stopped", "exited")
"""Of a machine of which only the disk is paid for."""


def counted(rental: Rental, found: Instance, loading: float) -> Rental:
    """With the cost up to now: of a machine that stops in between, up to when it was to stop at the latest.

    Where nobody has looked for long, say since this computer slept, it counts as one look that the machine was silent.
    """
    now, off = time.time(), found.status in STOPPED
    price = 0.0 if off else found.price
    lasted = (min(now, rental.end or now) if off else now) - rental.counted
    unseen = max(now - rental.counted - loading / LOOKS, 0.0)
    return replace(
        rental,
        price=price,
        cost=rental.cost + max(lasted, 0.0) / 3600 * max(rental.price, price),
        counted=now,
        heard=min(rental.heard + unseen, now),
        missed=0,
    )


def seconds_left(ticket: Ticket, rental: Rental, price: float) -> float:
    """How long a machine may be rented: by the money that is left, and by what the job may take."""
    config, job = ticket.config, ticket.job
    paid = (config.max_cost - rental.cost) / max(price, CHEAPEST) * 3600
    return paid if job.wall_limit is None else min(paid, job.attempts * job.wall_limit + config.loading + config.keep)
