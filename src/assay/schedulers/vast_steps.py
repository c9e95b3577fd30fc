"""What is done next about one job and its rented machine; open it when one is kept too long, or given back too early.

Each step looks at what the service says now, does at most one thing that costs money, and says what has become of it.
A machine is given back before anything else is done about its job; `ending` is what the job will be called then.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from assay.errors import DataError, SchedulerError
from assay.progress import STALLED, UNFINISHED
from assay.schedulers import SUSPECTS
from assay.schedulers.vast_client import Client, DoubtfulError, Instance, Offer, OfferGoneError
from assay.schedulers.vast_cost import STOPPED, counted, seconds_left
from assay.schedulers.vast_jobs import Ledger, Rental, Ticket, adopted, is_ours, label_of
from assay.schedulers.vast_machine import create_words
from assay.schedulers.vast_transfer import Fetched, ask_to_end, fetch, forget, send

TRIES = 5
"""Machines that a job is given, one after the other, if it is the machines that fail."""
OFFERS_AT_ONCE = 5
"""Of these the first that can be had is rented; the next round looks anew."""
SHORTEST_S = 60.0
"""It pays to rent a machine for so long at least."""
ASKED_S = 600.0
"""How long a job may take to save and stop."""
SLIPS = 2
"""How often in a row the service may leave out a machine that is there."""
NODE = "vast-"
"""Begins the name of a machine among suspect nodes."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A job that has not ended."""

    id: str
    ticket: Ticket
    cancelled: bool


class Steps:
    """Steps for the jobs of a ledger. poll_s: between two rounds.

    free: how many machines more may be rented. labels: of those that have a job.
    """

    def __init__(self, ledger: Ledger, poll_s: float, say: Callable[[str], None]) -> None:
        self.ledger, self.poll_s, self.say = ledger, poll_s, say
        self.free = 0
        self.labels: set[str] = set()

    def step(self, work: Work, rental: Rental, instances: Sequence[Instance]) -> Rental:
        """What has become of a job."""
        if rental.doubtful:
            return self._settle(rental, instances)
        if not rental.instance:
            return self._wait(work, rental, instances)
        found = next((each for each in instances if each.id == rental.instance), None)
        if found is not None:
            rental = counted(rental, found, work.ticket.config.loading)
        if rental.ending:
            return self._give_back(work, rental, found)
        if found is None:
            return self._missing(work, rental)
        try:
            return self._give_back(work, after, found) if (after := self._look(work, rental, found)).ending else after
        except SchedulerError as error:
            self.say(f"{work.id}: {error}")
            return self._overdue(work, rental, found)
        except (DataError, OSError) as error:
            self.say(f"{work.id}: {error}")
            return replace(rental, word=f"{'SILENT' if rental.sent else 'LOADING'} {found.id} {error}")

    def _wait(self, work: Work, rental: Rental, instances: Sequence[Instance]) -> Rental:
        """It has no machine."""
        config = work.ticket.config
        if work.cancelled:
            return _ended(rental, "CANCELLED")
        token = work.ticket.job.token
        unused = (each for each in instances if is_ours(each) and each.label not in self.labels)
        left = next((each for each in unused if each.label.split("-")[1] == token), None)
        if left is not None:
            self.say(f"{work.id} {work.ticket.job.name} has {left.id} already, by its label")
            return adopted(rental, left)
        if self.free <= 0:
            return rental
        self.free -= 1
        avoid = {*rental.avoid, *_machines(work.ticket.job.avoid)}
        try:
            offers = Client(config.client).offers(work.ticket.job.resources, config)
            return self._rent(work, rental, [each for each in offers if each.machine not in avoid])
        except DoubtfulError as error:
            self.say(f"{work.id}: {error}")
            return self.ledger.rental(work.id)
        except SchedulerError as error:
            return replace(rental, word=f"QUEUED {error}")

    def _rent(self, work: Work, rental: Rental, offers: Sequence[Offer]) -> Rental:
        """The first that can be had.

        Raises:
            DoubtfulError: nobody knows whether one was rented; the records say which.
            SchedulerError: none was.
        """
        config = work.ticket.config
        for offer in offers[:OFFERS_AT_ONCE]:
            seconds = seconds_left(work.ticket, rental, offer.price)
            if seconds < SHORTEST_S:
                return _ended(rental, "CAPPED")
            asked = _asked(work, rental, offer, seconds)
            words = create_words(config, asked.label, f"{asked.end:.0f}", f"{seconds:.0f}")
            self.ledger.write(work.id, asked)  # whatever happens now, the label finds it
            try:
                number = Client(config.client).create(offer.id, words)
            except OfferGoneError as error:
                self.say(f"{work.id}: {error}")
                continue
            self.say(f"{work.id} {work.ticket.job.name} rents {number} ({offer.gpu}, ${offer.price:.3f} an hour)")
            return replace(asked, word=f"LOADING {number}", instance=number, doubtful=0.0)
        return replace(
            rental, word=f"QUEUED none of {len(offers)} offers for ${config.max_price:g} an hour could be had"
        )

    def _settle(self, rental: Rental, instances: Sequence[Instance]) -> Rental:
        """Whether a request without an answer was carried out: its label says so."""
        found = next((each for each in instances if each.label == rental.label), None)
        if found is not None:
            self.say(f"{rental.label} was rented after all, as {found.id}")
            return replace(rental, word=f"LOADING {found.id}", instance=found.id, doubtful=0.0)
        if time.time() - rental.doubtful > 4 * self.poll_s:
            return replace(rental, word="QUEUED", label="", doubtful=0.0)
        return rental

    def _missing(self, work: Work, rental: Rental) -> Rental:
        """The service does not list the machine; once may be a slip. For what it has cost it is taken to have run."""
        if rental.missed < SLIPS:
            return replace(rental, missed=rental.missed + 1)
        lasted = min(time.time(), rental.end or time.time()) - rental.counted
        gone = replace(rental, cost=rental.cost + max(lasted, 0) / 3600 * rental.price)
        return self._gone(work, self._again(work, gone, "its machine is not listed any more", suspect=False))

    def _look(self, work: Work, rental: Rental, found: Instance) -> Rental:
        """The machine is there."""
        config = work.ticket.config
        if rental.sent and found.status != "running" and found.wanted == "stopped":
            return self._stopped(work, rental, found)
        if rental.cost + 2 * self.poll_s / 3600 * rental.price >= config.max_cost:
            fetched = self._fetched(work, rental)
            return replace(rental, ending="CAPPED" if fetched.code is None else f"EXIT {fetched.code}")
        if work.cancelled and not rental.sent:
            return replace(rental, ending="CANCELLED")
        if found.status == "running":
            return self._running(work, rental, found)
        return self._overdue(work, rental, found)

    def _stopped(self, work: Work, rental: Rental, found: Instance) -> Rental:
        """It has stopped itself, and keeps what nobody has fetched: it is not given back before all of that is here."""
        fetched = self._fetched(work, rental)
        if fetched.code is not None:
            return self._finished(work, rental, fetched.code)
        if fetched.whole:
            return self._again(work, rental, "its machine stopped before its end", suspect=False)
        return self._overdue(work, rental, found)

    def _running(self, work: Work, rental: Rental, found: Instance) -> Rental:
        config, client = work.ticket.config, Client(work.ticket.config.client)
        if not rental.sent:
            return self._send(work, rental)
        dear = config.bid is None and found.price > config.max_price
        if work.cancelled or dear or rental.asked:
            ask_to_end(client, found.id, self.ledger.folder, work.id)
            rental = replace(rental, asked=rental.asked or time.time())
        fetched = self._fetched(work, rental)
        if fetched.code is not None:
            return self._finished(work, rental, fetched.code)
        if rental.asked and time.time() - rental.asked > ASKED_S:
            return replace(rental, ending="CANCELLED") if work.cancelled else self._again(work, rental, "price", False)
        if fetched.started:
            return replace(rental, started=True, heard=time.time(), word=f"RUNNING {found.id}")
        return self._overdue(work, rental if rental.started else self._send(work, rental), found)

    def _send(self, work: Work, rental: Rental) -> Rental:
        """Until it has begun: a machine that runs may not take files yet, and the client does not say so."""
        try:
            send(Client(work.ticket.config.client), rental.instance, work.ticket, self.ledger.folder, work.id)
        except DataError as error:
            return replace(rental, ending=f"GIVEN UP {error}")
        return replace(rental, sent=True)

    def _overdue(self, work: Work, rental: Rental, found: Instance) -> Rental:
        """The machine is not as it should be: for how long, and is that too long?"""
        outbid = rental.sent and found.status in STOPPED and found.wanted != "stopped"
        word = "LOADING" if not rental.started else "OUTBID" if outbid else "SILENT"
        since = time.time() - rental.heard
        if since <= work.ticket.config.loading:
            return replace(rental, word=f"{word} {found.id}")
        if outbid and (code := self._fetched(work, rental).code) is not None:
            return self._finished(work, rental, code)
        why = f"its machine was {found.status} for {since:.0f} s without working on it"
        return self._again(work, rental, why, suspect=not outbid)

    def _fetched(self, work: Work, rental: Rental) -> Fetched:
        """What is there of the run; nothing if that fails, for the machine keeps it.

        Raises:
            DataError: it cannot be put where it belongs, which is not the machine's fault.
        """
        if not rental.sent:
            return Fetched()
        try:
            return fetch(Client(work.ticket.config.client), rental.instance, work.ticket, self.ledger.folder, work.id)
        except SchedulerError as error:
            self.say(f"{work.id}: {error}")
            return Fetched()

    def _finished(self, work: Work, rental: Rental, code: int) -> Rental:
        """The job has ended and all of it is here."""
        if work.cancelled:
            return replace(rental, ending="CANCELLED")
        if code == STALLED:
            several = _note_suspect(work.ticket, rental.machine)
            if not several and rental.tries < work.ticket.job.attempts:
                return self._again(work, rental, "it stalled", suspect=True)
        if code == UNFINISHED and rental.asked:
            return self._again(work, rental, "its price rose", suspect=True)
        return replace(rental, ending=f"EXIT {code}")

    def _again(self, work: Work, rental: Rental, why: str, suspect: bool) -> Rental:
        """On another machine, from what was fetched last."""
        if work.cancelled:
            return replace(rental, ending="CANCELLED")
        avoid = (*rental.avoid, rental.machine) if suspect else rental.avoid
        given_up = rental.tries >= max(TRIES, work.ticket.job.attempts)
        return replace(rental, avoid=avoid, ending=f"GIVEN UP {why}" if given_up else f"QUEUED {why}")

    def _give_back(self, work: Work, rental: Rental, found: Instance | None) -> Rental:
        """Until the service does not list it any more."""
        if found is None:
            return self._gone(work, rental)
        returning = replace(rental, word=f"RETURNING {rental.instance}")
        self.ledger.write(work.id, returning)
        try:
            Client(work.ticket.config.client).destroy(rental.instance)
        except SchedulerError as error:
            self.say(f"{work.id}: {error}")
        return returning

    def _gone(self, work: Work, rental: Rental) -> Rental:
        self.say(f"{work.id} gave {rental.instance} back: {rental.ending}; ${rental.cost:.2f} so far")
        forget(self.ledger.folder, work.id)
        self.free += 1
        kept = Rental(cost=rental.cost, tries=rental.tries, avoid=rental.avoid)
        if rental.ending.startswith("QUEUED"):
            return replace(kept, word=rental.ending)
        return _ended(kept, rental.ending)


def _asked(work: Work, rental: Rental, offer: Offer, seconds: float) -> Rental:
    """As it is from the moment of the request to rent."""
    now, tries = time.time(), rental.tries + 1
    return replace(
        rental,
        word=f"RENTING {offer.machine}",
        machine=offer.machine,
        label=label_of(work.ticket.job.token, work.id, tries),
        price=offer.price,
        tries=tries,
        heard=now,
        counted=now,
        doubtful=now,
        end=now + seconds,
    )


def _ended(rental: Rental, word: str) -> Rental:
    return replace(rental, word=f"{word} ${rental.cost:.2f}")


def _machines(nodes: Sequence[str]) -> set[int]:
    numbers = [node.removeprefix(NODE) for node in nodes if node.startswith(NODE)]
    return {int(number) for number in numbers if number.isdecimal()}


def _note_suspect(ticket: Ticket, machine: int) -> bool:
    """Beside the log; whether the job has stalled on several."""
    path: Path = ticket.job.log.with_name(SUSPECTS)
    known = set(path.read_text().split()) if path.is_file() else set()
    path.write_text("".join(f"{node}\n" for node in sorted({*known, f"{NODE}{machine}"})))
    return bool(known - {f"{NODE}{machine}"})
