"""LSF: jobs as bsub scripts, chains by `-w ended()`; open it to change what LSF is told.

The id of a chain is that of all its jobs, `101,102,103`. All jobs of a run are in one job group, /assay/TOKEN, by which
a job finds the rest of its chain. Tested with stand-ins for its commands only: no LSF was at hand.
"""

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from assay.errors import SchedulerError
from assay.schedulers import ALIVE, Job, Meaning, Scheduler
from assay.schedulers.client import give, missing
from assay.schedulers.config import LsfConfig
from assay.schedulers.script import lines, mebibytes, minutes
from assay.schedulers.words import Words

MEANINGS: dict[str, Meaning] = {
    **dict.fromkeys(("PEND", "PSUSP", "WAIT", "PROV"), "queued"),
    **dict.fromkeys(("RUN", "USUSP", "SSUSP", "UNKWN"), "running"),
    **dict.fromkeys(("DONE", "EXIT", "ZOMBI"), "ended"),
}
"""Every state of bjobs(1). UNKWN: the node does not answer, so the job may well run; ZOMBI: LSF has given it up."""
GROUP = "/assay/"
FIELDS = "jobid stat exit_reason job_group"
SEPARATOR = "|"
WARNING_MIN = 1
"""How long before its end a job is warned, in minutes: the least that LSF knows."""
AT_ONCE = 1000
"""How many jobs are named on one command line."""
OTHER_HOSTS = r"""$(echo $(printf '%s\n' $LSB_HOSTS | sort -u | grep -Fxv "${LSB_HOSTS%% *}"))"""
"""The hosts of a job but its first, in one line."""
PLAIN = re.compile(r"[\w./ ,:;=@+()-]+")
"""A path that bsub takes as it is. It appends LSF's own words; what the command says is written there anyway."""
PENDING = """bjobs -noheader -o 'jobid stat' {} | awk '$2 == "PEND" {{print $1}}'"""
"""Not `bjobs -p`, which adds the reasons why each is pending."""
ACCEPTED = re.compile(r"Job <(\d+)> is submitted")


class Lsf(Scheduler):
    """A cluster's queue. folder: below the repository, for what is kept between two commands."""

    name = "lsf"

    def __init__(self, folder: Path, config: LsfConfig) -> None:
        self.folder, self.config = folder, config
        self.words = Words(folder, self._ask)

    def render(self, job: Job) -> str:
        """A script for bsub, which bash can run too; bsub itself is given the dependency of a chain's later jobs."""
        group = f"-g {GROUP}{job.token}"
        elsewhere = f'"{_without([*job.avoid, "${LSB_HOSTS%% *}"])}{self._needs(job)}"'
        body = lines(
            job,
            before=[],
            forward="true",
            node='"${LSB_HOSTS%% *}"',
            avoid=f'for id in $({PENDING.format(group)}); do bmod -R {elsewhere} "$id"; done',
            give_up=f"bkill -stat pend {group} 0",
            elsewhere=f'blaunch -z "{OTHER_HOSTS}"',
        )
        return "\n".join(["#!/bin/bash", *(f"#BSUB {words}" for words in self._options(job)), *body, ""])

    def submit_all(self, jobs: Sequence[Job]) -> Iterator[str]:
        """A call of bsub for each job; a chain that LSF does not take to its end is left shorter."""
        accepted: list[str] = []
        try:
            for job in jobs:
                chain = self._submit(job)
                accepted += chain
                yield ",".join(chain)
        finally:
            self.words.note(dict.fromkeys(accepted, "PEND"))

    def _submit(self, job: Job) -> list[str]:
        """A chain: each job waits for the end of the one before; returns their ids."""
        chain: list[str] = []
        try:
            for number in range(job.attempts):
                # the first is held until it can say to all others that they are not needed
                how = ["-w", f"ended({chain[-1]})"] if number else ["-H"] if job.attempts > 1 else []
                chain.append(_accepted(give(["bsub", *how], self.render(job), where=str(job.folder))))
        except SchedulerError:
            if not chain:
                raise
        self._let_go(chain[:1] if job.attempts > 1 else [])
        return chain

    def find(self, scripts: Collection[Path]) -> dict[Path, str]:
        """What may still be held, for it was submitted only in part, is let go."""
        found = super().find(scripts)
        self._let_go(found.values())
        return found

    def _let_go(self, chains: Collection[str]) -> None:
        for chain in chains:
            with suppress(SchedulerError):  # it is not held
                give(["bresume", chain.partition(",")[0]])

    def states(self, ids: Collection[str], insist: bool = False) -> dict[str, str]:
        """STAT REASON as bjobs says them; of a chain those of the job that counts."""
        each = {job_id for chain in ids for job_id in chain.split(",")}
        words = self.words.known(each, insist) if each else {}
        known = {chain: [words[one] for one in chain.split(",") if one in words] for chain in ids}
        return {chain: self._whole(told) for chain, told in known.items() if told}

    def meaning(self, word: str) -> Meaning:
        """By the state, which comes first."""
        return MEANINGS.get(word.partition(" ")[0], "unknown")

    def cancel(self, *ids: str) -> None:
        """All jobs of a chain; LSF asks with SIGINT, then with SIGTERM, and kills, each ten seconds after the other."""
        each = [job_id for chain in ids for job_id in chain.split(",")]
        for start in range(0, len(each), AT_ONCE):
            try:
                give(["bkill", *each[start : start + AT_ONCE]])
            except SchedulerError as error:
                if not re.search(r"already finished|No matching job|not found", str(error)):
                    raise
        self.words.expire()

    def alive(self) -> dict[str, str]:
        """By the job group."""
        found: dict[str, list[str]] = {}
        for job_id, word, group in _queue():
            if group.startswith(GROUP) and self.meaning(word) in ALIVE:
                found.setdefault(group.removeprefix(GROUP), []).append(job_id)
        return {token: ",".join(sorted(chain, key=int)) for token, chain in found.items()}

    def unavailable(self, job: Job) -> list[str]:
        """Programs that are missing, else whatever bjobs says: LSF has no way to test a job."""
        reasons = missing("bsub", "bjobs", "bkill", "bmod", "bresume")
        if not reasons:
            try:
                _queue()
            except SchedulerError as error:
                reasons = [str(error)]
        return reasons

    def _options(self, job: Job) -> list[str]:
        """The lines of the script's head, as a shell splits them."""
        asked, config = job.resources, self.config
        kind = f":gmodel={asked.gpu}" if asked.gpu else ""
        told = {
            "-J": re.sub(r"[^\w.+=@-]", "_", job.name),  # brackets would make it an array
            "-g": f"{GROUP}{job.token}",
            "-o": str(job.log) if PLAIN.fullmatch(str(job.log)) else os.devnull,
            "-q": config.queue,
            "-P": config.project,
            "-n": str(asked.cpus * asked.nodes),
            "-R": f"{_without(job.avoid)}{self._needs(job)}",
            "-M": None if asked.memory is None else f"{mebibytes(asked.memory)}MB",
            "-gpu": f"num={asked.gpus}{kind}" if asked.gpus else None,
        }
        if job.wall_limit is not None:
            told |= {"-W": str(minutes(job.wall_limit)), "-wt": str(WARNING_MIN), "-wa": "USR1"}
        return [*(f'{name} "{value}"' for name, value in told.items() if value is not None), *config.options]

    def _needs(self, job: Job) -> str:
        asked = job.resources
        memory = "" if asked.memory is None else f" rusage[mem={mebibytes(asked.memory)}MB]"
        return f"span[{f'ptile={asked.cpus}' if asked.nodes > 1 else 'hosts=1'}]{memory}"

    def _whole(self, words: list[str]) -> str:
        """Of a chain: that of its living job, a running one first; else of its last that was not cancelled unrun."""
        ranks = {"running": 3, "queued": 2, "ended": 1, "unknown": 0}
        return max(enumerate(words), key=lambda each: (ranks[self.meaning(each[1])], not _unrun(each[1]), each[0]))[1]

    def _ask(self, earlier: Mapping[str, str], asked: Collection[str]) -> dict[str, str]:
        """One bjobs for all jobs of this user; what it forgets has ended as it said last."""
        now = {job_id: word for job_id, word, _ in _queue()}
        return {**{job_id: word for job_id, word in earlier.items() if self.meaning(word) == "ended"}, **now}


def _without(nodes: Sequence[str]) -> str:
    unlike = " && ".join(f"hname!='{node}'" for node in nodes)
    return f"select[{unlike}] " if nodes else ""


def _unrun(word: str) -> bool:
    return "TERM_OWNER" in word


def _queue() -> list[tuple[str, str, str]]:
    """Job, STAT REASON and job group of all jobs of this user that LSF remembers, also those that have ended."""
    try:
        said = give(["bjobs", "-noheader", "-a", "-o", f"{FIELDS} delimiter='{SEPARATOR}'"])
    except SchedulerError as error:
        if re.search("No .*job found", str(error)):
            return []
        raise
    rows = [line.split(SEPARATOR) for line in said.splitlines() if line.count(SEPARATOR) == 3]
    return [
        (job_id, stat if reason in ("", "-") else f"{stat} {reason}", group) for job_id, stat, reason, group in rows
    ]


def _accepted(said: str) -> str:
    """The job's number.

    Raises:
        SchedulerError: there is none.
    """
    found = ACCEPTED.search(said)
    if found is None:
        raise SchedulerError(f"bsub: got no job ({' '.join(said.split())[:200]}); see bjobs, then submit again")
    return found[1]
