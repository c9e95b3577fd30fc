"""The shell script of a job that another computer runs, whatever the scheduler; open it when a signal gets lost.

The shell stays, for what has to be said to the scheduler afterwards. Every value is quoted: a name may hold anything.
"""

import math
import shlex
from collections.abc import Sequence

from assay.progress import STALLED, UNFINISHED
from assay.schedulers import SUSPECTS, Job

END_BESIDE = ("sleep 2  # by itself it ends quietly", 'kill "$beside" 2>/dev/null', 'wait "$beside"')
SUSPECTS_AT_MOST = 1
"""On how many nodes a run may stall before it is the run that is suspect; then its chain ends."""


def lines(  # noqa: PLR0913 - a scheduler's words, each under its own name
    job: Job, before: Sequence[str], forward: str, node: str, avoid: str, give_up: str, elsewhere: str
) -> list[str]:
    """The body. What a scheduler has to add, all in shell words:

    before: what comes first. forward: whether a warning signal is passed on, a test; if not, the command knows the end
    itself. node: this node's name. avoid: have the rest of the chain run elsewhere. give_up: drop the rest of it.
    elsewhere: starts what follows it on every other node of the job.
    """
    suspects = shlex.quote(str(job.log.with_name(SUSPECTS)))
    return [
        f"cd {shlex.quote(str(job.folder))} || exit 1",
        f"exec >>{shlex.quote(str(job.log))} 2>&1",
        *before,
        "trap : TERM INT  # a scheduler ends every process of a job itself; this shell waits for the others",
        f"""trap '{forward} && kill -USR1 "$child"' USR1""",
        *([f"{elsewhere} {shlex.join(job.beside)} &", "beside=$!"] if job.beside else []),
        f"{shlex.join(job.command)} &",
        "child=$!",
        'while wait "$child"; kill -0 "$child" 2>/dev/null; do :; done  # a signal ends `wait` early',
        'wait "$child"',
        "code=$?",
        *(END_BESIDE if job.beside else []),
        *([] if job.attempts == 1 else _afterwards(suspects, node, avoid, give_up)),
        'exit "$code"',
    ]


def _afterwards(suspects: str, node: str, avoid: str, give_up: str) -> list[str]:
    """With 75 the chain goes on, with 76 elsewhere, and else it is over. A shell that is killed says nothing."""
    return [
        f'if [ "$code" -eq {STALLED} ]; then',
        f"  echo {node} >>{suspects}",
        f'  if [ "$(sort -u {suspects} | wc -l)" -le {SUSPECTS_AT_MOST} ]; then {avoid}; else {give_up}; fi',
        f'elif [ "$code" -ne {UNFINISHED} ]; then',
        f"  {give_up}",
        "fi",
    ]


def minutes(seconds: float) -> int:
    """Whole minutes, as schedulers count: no less than asked for."""
    return max(1, math.ceil(seconds / 60))


def mebibytes(gibibytes: float) -> int:
    """Whole MiB, no less than asked for."""
    return math.ceil(gibibytes * 1024)
