"""Slurm: jobs as sbatch scripts, chains as arrays with one task at a time; open it to change what Slurm is told.

A chain is an array with `%1`: one call of sbatch, which either has happened or has not, and one id. The next task
starts as soon as a job with `afterany` would (1.0 s, both measured on Slurm 22.05). Runs of one job are arrays too:

    .assay/slurm/TOKEN.json     the runs of such an array, by number; each task starts the script in its run's folder
    .assay/slurm/words.json     what squeue said last, see words.py
"""

import hashlib
import json
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from assay.errors import SchedulerError
from assay.files import write_bytes
from assay.schedulers import ALIVE, Job, Meaning, Scheduler
from assay.schedulers.client import SilentError, give, missing
from assay.schedulers.config import ResourcesConfig, SlurmConfig
from assay.schedulers.script import lines, mebibytes, minutes
from assay.schedulers.slurm_directives import directives, pattern
from assay.schedulers.slurm_queue import MAX_ARRAY_SIZE, accounted, max_array_size, meaning, queue, word_by_id
from assay.schedulers.words import Words

COMMENT = "assay:"
WARNING_S = 60
"""How long before its end a job is warned, in s; less for a short limit."""
EARLY_S = 60
"""Slurm may warn so much earlier, see sbatch(1). A warning that comes before that is of a preemption."""
AT_ONCE = 1000
"""How many jobs are named on one command line."""
UNANSWERED = "sacct:"
"""So begins what is kept in place of a word where there is accounting and it does not answer: why."""
NO_SUCH_NODE = "node configuration is not available"
"""`--test-only` says so of nodes that are merely down, too; sbatch itself tells the two apart."""


class Slurm(Scheduler):
    """A cluster's queue. folder: below the repository, for what is kept between two commands."""

    name = "slurm"

    def __init__(self, folder: Path, config: SlurmConfig) -> None:
        self.folder, self.config = folder, config
        self.words = Words(folder, self._ask)

    def render(self, job: Job) -> str:
        """A script for sbatch, which bash can run too."""
        options = {"job-name": job.name, "comment": f"{COMMENT}{job.token}", "output": pattern(job.log)}
        chain = {"array": f"1-{job.attempts}%1"} if job.attempts > 1 else {}
        end = "SLURM_JOB_END_TIME"
        known = []
        if job.wall_limit is not None:  # Slurm 22.05 does not say it, and in a container nobody can be asked
            limit_s = 60 * minutes(job.wall_limit)
            known = [f'export {end}="${{{end}:-$(($(date +%s) + {limit_s}))}}"']
        body = lines(
            job,
            before=known,
            forward=f'{{ [ -z "${end}" ] || [ "$(date +%s)" -lt $(({end} - {WARNING_S + EARLY_S})) ]; }}',
            node='"$SLURMD_NODENAME"',
            avoid=f'scontrol update "JobId=$SLURM_ARRAY_JOB_ID" "ExcNodeList={self._excluded(job)}$SLURMD_NODENAME"',
            give_up='scancel --quiet --state=PENDING "$SLURM_ARRAY_JOB_ID"',
            elsewhere=f"srun {shlex.join(_step(job.resources))}",
        )
        head = [*directives({**options, **chain, "open-mode": "append"}), *self._shared(job)]
        return "\n".join(["#!/bin/bash", *head, *body, ""])

    def scripts(self, jobs: Sequence[Job]) -> list[str]:
        """An array for runs that fit one job, a script for each of the others."""
        return [self._script(batch) for batch in self._batches(jobs, MAX_ARRAY_SIZE)]

    def submit_all(self, jobs: Sequence[Job]) -> Iterator[str]:
        """One call of sbatch for each array and each chain, after one with `--test-only` for each kind of job."""
        for job in {"\n".join(self._shared(job)): job for job in jobs}.values():
            if refusals := [reason for reason in _tested(self.render(job), job) if NO_SUCH_NODE not in reason]:
                raise SchedulerError(refusals[0])
        accepted: list[str] = []
        try:
            for batch in self._batches(jobs, max_array_size() if len(jobs) > 1 else MAX_ARRAY_SIZE):
                ids = self._submit(batch)
                accepted += ids
                yield from ids
        finally:
            self.words.note(dict.fromkeys(accepted, "PENDING"))

    def _submit(self, batch: Sequence[Job]) -> list[str]:
        """One call of sbatch; the ids, job by job."""
        if len(batch) > 1:
            members = json.dumps([job.token for job in batch])
            write_bytes(self._members_file(_token(batch)), members.encode())
        said = give(["sbatch", "--parsable"], self._script(batch), where=str(batch[0].folder))
        job_id = said.split()[-1].partition(";")[0]
        return [job_id] if len(batch) == 1 else [f"{job_id}_{task}" for task in range(len(batch))]

    def states(self, ids: Collection[str], insist: bool = False) -> dict[str, str]:
        """STATE REASON as squeue says them, or STATE as sacct does; of a chain those of the task that counts.

        Accounting that does not answer is no silence for whoever insists: what is alive, squeue has said.
        """
        words = self.words.known(ids, insist) if ids else {}
        unanswered = [word for word in words.values() if word.startswith(UNANSWERED)]
        known = {job_id: word for job_id, word in words.items() if not word.startswith(UNANSWERED)}
        if unanswered and not insist:
            raise SilentError(unanswered[0], known)
        return known

    def meaning(self, word: str) -> Meaning:
        """By the state, which comes first."""
        return meaning(word)

    def cancel(self, *ids: str) -> None:
        """All tasks of a chain; Slurm asks each process with SIGTERM, and kills it after its KillWait, usually 30 s."""
        for start in range(0, len(ids), AT_ONCE):
            give(["scancel", "--quiet", *ids[start : start + AT_ONCE]])
        self.words.expire()

    def alive(self) -> dict[str, str]:
        """By the comment of a job, or by the list of runs of an array."""
        found: dict[str, str] = {}
        for entry in queue():
            if meaning(entry.word) in ALIVE and entry.comment.startswith(COMMENT):
                token = entry.comment.removeprefix(COMMENT)
                members = self._members(token)
                if members and entry.task.isdecimal():
                    found[members[int(entry.task)]] = f"{entry.base}_{entry.task}"
                found[token] = entry.base
        return found

    def unavailable(self, job: Job) -> list[str]:
        """Programs that are missing, else whatever `sbatch --test-only` says."""
        return missing("sbatch", "squeue", "scancel", "scontrol") or _tested(self.render(job), job)

    def _shared(self, job: Job) -> list[str]:
        """Directives that all jobs of an array have in common."""
        asked, config = job.resources, self.config
        limit = None if job.wall_limit is None else minutes(job.wall_limit)
        kind = f"{asked.gpu}:" if asked.gpu else ""
        told = {
            "nodes": asked.nodes,
            "ntasks-per-node": 1,
            "cpus-per-task": asked.cpus,
            "mem": None if asked.memory is None else f"{mebibytes(asked.memory)}M",
            "gres": f"gpu:{kind}{asked.gpus}" if asked.gpus else None,
            "time": limit,
            "signal": f"B:USR1@{WARNING_S if limit is None else min(WARNING_S, 6 * limit)}",
            "partition": config.partition,
            "account": config.account,
            "qos": config.qos,
            "constraint": config.constraint,
            "exclude": self._excluded(job).rstrip(",") or None,
        }
        return [*directives(told), *(f"#SBATCH {option}" for option in config.options)]

    def _excluded(self, job: Job) -> str:
        return "".join(f"{node}," for node in dict.fromkeys((*self.config.exclude, *job.avoid)))

    def _script(self, batch: Sequence[Job]) -> str:
        if len(batch) == 1:
            return self.render(batch[0])
        name = f"{batch[0].name}+{len(batch) - 1}"
        told = {"job-name": name, "comment": f"{COMMENT}{_token(batch)}", "output": "/dev/null"}
        head = [*directives({**told, "array": f"0-{len(batch) - 1}"}), *self._shared(batch[0])]
        runs = [shlex.quote(str(job.script)) for job in batch]
        start = 'exec bash "${scripts[$SLURM_ARRAY_TASK_ID]}"'
        return "\n".join(["#!/bin/bash", *head, "scripts=(", *runs, ")", start, ""])

    def _batches(self, jobs: Sequence[Job], longest: int) -> Iterator[list[Job]]:
        """Neighbours that ask for the same; a chain alone."""
        for (is_chain, _), group in groupby(jobs, lambda job: (job.attempts > 1, self._shared(job))):
            alike, size = list(group), 1 if is_chain else longest
            yield from (alike[start : start + size] for start in range(0, len(alike), size))

    def _members_file(self, token: str) -> Path:
        return self.folder / f"{token}.json"

    def _members(self, token: str) -> list[str]:
        """The tokens of the runs of an array, by task; none if it is a job of one run."""
        path = self._members_file(token)
        members: list[str] = json.loads(path.read_text()) if path.is_file() else []
        return members

    def _ask(self, earlier: Mapping[str, str], asked: Collection[str]) -> dict[str, str]:
        """One squeue for all jobs of this user, and one sacct for what it no longer knows; why, if that fails."""
        now = word_by_id(queue())
        ended = {job_id: word for job_id, word in earlier.items() if job_id not in now and meaning(word) == "ended"}
        gone = [job_id for job_id in asked if job_id not in now and job_id not in ended]
        try:
            told = accounted(gone)
        except SchedulerError as error:
            told = dict.fromkeys(gone, str(error))
        return {**ended, **told, **now}


def _step(asked: ResourcesConfig) -> list[str]:
    """Options of a job step on every node but the first; srun does not take over the cores of a task from sbatch."""
    nodes = asked.nodes - 1
    return [f"--nodes={nodes}", f"--ntasks={nodes}", f"--cpus-per-task={asked.cpus}", "--relative=1", "--input=none"]


def _token(batch: Sequence[Job]) -> str:
    return hashlib.sha256("".join(job.token for job in batch).encode()).hexdigest()[:16]


def _tested(script: str, job: Job) -> list[str]:
    """What speaks against a job, by Slurm itself; it is not submitted."""
    try:
        give(["sbatch", "--test-only"], script, where=str(job.folder))
    except SchedulerError as error:
        avoided = f" (without {', '.join(job.avoid)}, where the run stalled)" if job.avoid else ""
        return [f"{error}{avoided}"]
    return []
