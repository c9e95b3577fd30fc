"""What squeue and sacct say of jobs, and what their words mean; open it when a state is not known.

Formats (`-o`) are parsed, not JSON, which differs between versions of Slurm.
"""

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from assay.errors import SchedulerError
from assay.schedulers import ALIVE, Meaning
from assay.schedulers.client import give

MEANINGS: dict[str, Meaning] = {
    **dict.fromkeys(("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD"), "queued"),
    **dict.fromkeys(("SPECIAL_EXIT", "POWER_UP_NODE"), "queued"),
    **dict.fromkeys(("RUNNING", "COMPLETING", "RESIZING", "SIGNALING", "STAGE_OUT"), "running"),
    **dict.fromkeys(("STOPPED", "SUSPENDED", "EXPEDITING", "UPDATE_DB"), "running"),
    **dict.fromkeys(("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "DEADLINE", "PREEMPTED", "REVOKED"), "ended"),
    **dict.fromkeys(("NODE_FAIL", "BOOT_FAIL", "LAUNCH_FAILED", "OUT_OF_MEMORY", "RECONFIG_FAIL"), "ended"),
}
"""Every state of squeue(1) and sacct(1), those of versions newer than 22.05 too. What is held is queued."""
FORMAT = "%i|%T|%r|%k"
RANGE = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")
NO_ACCOUNTING = "accounting storage is disabled"
"""sacct says so where there is none."""
MAX_ARRAY_SIZE = 1001
"""Slurm's default."""
AT_ONCE = 2000
"""How many jobs are named on one command line."""


@dataclass(frozen=True)
class Entry:
    """A line of squeue: job 12, or task 3 of array 12. word: STATE REASON."""

    base: str
    task: str
    word: str
    comment: str


def meaning(word: str) -> Meaning:
    """By the state, the first word: sacct says `CANCELLED by 1000`."""
    return MEANINGS.get(word.partition(" ")[0], "unknown")


def queue() -> list[Entry]:
    """All jobs of this user that the controller remembers, also those that ended in the last minutes.

    Raises:
        SchedulerError: it does not answer.
    """
    user = f"--user={os.getuid()}"
    said = give(["squeue", "--noheader", "--array", "--states=all", user, f"--format={FORMAT}"])
    return [_entry(line) for line in said.splitlines() if line.count("|") >= 3]


def _entry(line: str) -> Entry:
    job_id, state, reason, comment = line.split("|", 3)
    base, _, task = job_id.strip().partition("_")
    return Entry(base, task, f"{state} {reason}".removesuffix(" None").strip(), comment.strip())


def word_by_id(entries: Iterable[Entry]) -> dict[str, str]:
    """The word for each task and for each array as a whole."""
    found: dict[str, str] = {}
    tasks: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        found[f"{entry.base}_{entry.task}" if entry.task else entry.base] = entry.word
        tasks[entry.base].append(entry)
    return {**found, **{base: _whole(several) for base, several in tasks.items()}}


def _whole(tasks: list[Entry]) -> str:
    """Of a chain: its living task, a running one first; else the last that ran, for the rest was cancelled."""
    ranks = {"running": 3, "queued": 2}

    def rank(entry: Entry) -> tuple[int, int]:
        state = meaning(entry.word)
        ran = 0 if entry.word.startswith("CANCELLED") else 1
        return (ranks[state] if state in ALIVE else ran, int(entry.task) if entry.task.isdecimal() else -1)

    return max(tasks, key=rank).word


def accounted(ids: Collection[str]) -> dict[str, str]:
    """STATE by sacct, of jobs that the controller has forgotten; nothing where there is no accounting.

    One that is still alive there is left out: its end is not on record yet, and may never be.

    Raises:
        SchedulerError: there is accounting, and it does not answer.
    """
    jobs = sorted({job_id.partition("_")[0] for job_id in ids})
    try:
        said = [_sacct(jobs[start : start + AT_ONCE]) for start in range(0, len(jobs), AT_ONCE)]
    except SchedulerError as error:
        if NO_ACCOUNTING in str(error):
            return {}
        raise
    words = word_by_id(entry for lines in said for line in lines for entry in _recorded(line))
    return {job_id: words[job_id] for job_id in ids if job_id in words and meaning(words[job_id]) not in ALIVE}


def _sacct(jobs: Sequence[str]) -> list[str]:
    """JOB|STATE, a line each."""
    options = ["--noheader", "--allocations", "--parsable2", "--format=JobID,State"]
    return give(["sacct", *options, f"--jobs={','.join(jobs)}"]).splitlines()


def _recorded(line: str) -> list[Entry]:
    """What such a line stands for: a job, a task of an array, or several tasks that never ran."""
    job_id, _, word = line.partition("|")
    base, _, tasks = job_id.partition("_")
    return [Entry(base, task, word, "") for task in _tasks(tasks)]


def _tasks(text: str) -> list[str]:
    """Each of `[0-2,4-8:2%1]`; a single one, or none, as it is."""
    ranges = RANGE.findall(text.partition("%")[0])
    named = [range(int(first), int(last or first) + 1, int(step or 1)) for first, last, step in ranges]
    return [str(task) for each in named for task in each] or [text]


def max_array_size() -> int:
    """The cluster's limit: task numbers are below it."""
    said = re.search(r"^MaxArraySize\s*=\s*(\d+)", give(["scontrol", "show", "config"]), re.MULTILINE)
    return int(said[1]) if said else MAX_ARRAY_SIZE
