"""vast.ai: each run on a machine of its own, rented for it and given back after it; open it to change what is rented.

Jobs are files in a folder, which a keeper in the background here works off, see vast_keeper.py. It rents at most so
many machines at a time: a queue costs nothing. Never tried against the real service: tests/stubs/vastai stands for it.
"""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath

from assay.errors import ConfigError, SchedulerError
from assay.schedulers import ALIVE, Job, Meaning, Scheduler
from assay.schedulers.client import SilentError
from assay.schedulers.config import VastConfig
from assay.schedulers.local import lock_of
from assay.schedulers.locks import is_held
from assay.schedulers.vast_client import Client, absent, search_words
from assay.schedulers.vast_jobs import LABEL, Ledger, Ticket, meaning
from assay.schedulers.vast_machine import create_words, job_script, onstart
from assay.schedulers.vast_transfer import bundle

POLL_S = 30.0
"""Between two looks at the service."""
OPTION = re.compile(r"--[a-z][\w-]*( [^\n]*)?")
OURS = (
    "--image",
    "--disk",
    "--label",
    "--env",
    "--onstart",
    "--onstart-cmd",
    "--ssh",
    "--direct",
    "--bid_price",
    "--args",
)
SECRETS = ("--login", "--api-key")
"""What the machine file must not say: it is in git, and rendered jobs are kept."""


class Vast(Scheduler):
    """Rented machines. folder: below the repository, for what is kept of them."""

    name = "vast"

    def __init__(self, folder: Path, config: VastConfig, poll_s: float = POLL_S) -> None:
        self.ledger = Ledger(folder)
        self.config, self.poll_s = config, poll_s

    def render(self, job: Job) -> str:
        """What is asked of the service, what it starts, and the script that is sent, which runs the command.

        Raises:
            ConfigError: the machine file says what cannot be.
        """
        refuse(self.config)
        create = create_words(self.config, f"{LABEL}{job.token}-JOB-TRY", "ASSAY_END", "ASSAY_SECONDS")[:-1]
        told = [
            [self.config.client, *search_words(job.resources, self.config)],
            [self.config.client, "create", "instance", "OFFER", *create, "ONSTART"],
        ]
        head = [f"# {' '.join(shlex.join(words).splitlines())}" for words in told]
        start = [": <<'ONSTART'", onstart(self.config).rstrip("\n"), "ONSTART"]
        return "\n".join(["#!/bin/bash", *head, *start, job_script(job, self.config)])

    def submit_all(self, jobs: Sequence[Job]) -> Iterator[str]:
        """Put jobs into the queue; the keeper rents, now or when there is a free place and an offer."""
        commits = {folder: bundle(folder, self.ledger.folder) for folder in {job.folder for job in jobs}}
        for job in jobs:
            job_id = self.ledger.create(Ticket(job=job, config=self.config, bundle=commits[job.folder]))
            self.wake()
            yield job_id

    def wake(self) -> None:
        """Start a keeper unless one lives; it outlives this process and its terminal."""
        if is_held(lock_of(self.ledger.folder)):
            return
        with (self.ledger.folder / "keeper.log").open("ab") as log:
            subprocess.run(
                [sys.executable, "-m", "assay.schedulers.vast_keeper", str(self.ledger.folder), f"{self.poll_s:g}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                check=True,
            )

    def states(self, ids: Collection[str], insist: bool = False) -> dict[str, str]:
        """As the keeper says them, who alone asks: QUEUED WHY, LOADING or RUNNING MACHINE, EXIT CODE COST and so on."""
        known = set(self.ledger.ids())
        words = {job_id: self.ledger.rental(job_id).word for job_id in ids if job_id in known}
        if any(meaning(word) in ALIVE for word in words.values()):
            self.wake()
            silence = self.ledger.silence()
            if silence and not (insist and self._answers()):
                raise SilentError(silence, words)
        return words

    def meaning(self, word: str) -> Meaning:
        """By the first word."""
        return meaning(word)

    def cancel(self, *ids: str) -> None:
        """What runs is asked to save and stop, fetched, and its machine given back; the keeper does it."""
        alive = [job_id for job_id in self.ledger.ids() if job_id in ids and not self.ledger.rental(job_id).has_ended]
        for job_id in alive:
            self.ledger.cancel(job_id)
        if alive:
            self.wake()

    def find(self, scripts: Collection[Path]) -> dict[Path, str]:
        """By our records; by the labels of what is rented where those are lost, and then they are made again."""
        if not scripts:
            return {}
        client = next((self.ledger.ticket(job_id).config.client for job_id in self.ledger.ids()), self.config.client)
        self.ledger.restore(scripts, Client(client).instances())
        return super().find(scripts)

    def alive(self) -> dict[str, str]:
        """By our records."""
        return {self.ledger.ticket(job_id).job.token: job_id for job_id in self.ledger.open_ids()}

    def unavailable(self, job: Job) -> list[str]:
        """No client, no key or no answer, or no machine that would do for that price."""
        try:
            refuse(self.config)
            if shutil.which(self.config.client) is None:
                return [absent(self.config.client)]
            client = Client(self.config.client)
            client.instances()
            offers = client.offers(job.resources, self.config)
        except (ConfigError, SchedulerError) as error:
            return [str(error)]
        words = shlex.join([self.config.client, *search_words(job.resources, self.config)])
        fix = "raise vast.max_price, or lower vast.reliability, vast.disk or resources"
        return [] if offers else [f"vast.max_price: no offer for ${self.config.max_price:g} an hour ({words}); {fix}"]

    def _answers(self) -> bool:
        try:
            Client(self.config.client).instances()
        except SchedulerError:
            return False
        return True


def refuse(config: VastConfig) -> None:
    """What a machine file may not say.

    Raises:
        ConfigError: it does.
    """
    if config.image is None:
        raise ConfigError(
            "vast.image: got null; allowed: a Docker image with assay in a registry; make docker, push it"
        )
    if config.bid is not None and config.bid > config.max_price:
        told = f"got {config.bid:g}; allowed: up to vast.max_price, {config.max_price:g}"
        raise ConfigError(f"vast.bid: {told}; lower it, or raise vast.max_price")
    for option in config.options:
        name = option.partition(" ")[0].partition("=")[0]
        if name in SECRETS:
            raise ConfigError(
                f"vast.options: got {name}; allowed: no secret; keep it on the console of vast.ai instead"
            )
        if name in OURS or not OPTION.fullmatch(option):
            raise ConfigError(f"vast.options: got {option!r}; allowed: --name value, and none of {', '.join(OURS)}")
    for key, paths in {"send": config.send, "fetch": config.fetch}.items():
        for path in paths:
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                raise ConfigError(f"vast.{key}: got {path}; allowed: a path below the repository; correct it")
    onstart(config)
