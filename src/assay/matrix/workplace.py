"""One run from clone to result: the command of every job that `assay submit` submits; open it when a job goes wrong.

    python -m assay.matrix.workplace RUN

It may be given any number of times: a clone that is there is gone on with, a run that is complete is only handed back.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from ruamel.yaml import YAML

from assay.errors import AssayError, DataError, UserError
from assay.matrix.cells import METRICS, plain
from assay.matrix.git import git, with_identity
from assay.matrix.handback import hand_back
from assay.matrix.submission import Submission, read_submission
from assay.progress import UNFINISHED
from assay.runs.guardian import FORWARDED
from assay.runs.nodes import say_the_end
from assay.runs.processes import set_parent_death_signal
from assay.runs.record import HEARTBEAT_S, LOST_AFTER_S, Attempt
from assay.runs.store import RunFolder, is_held

STASH = "refs/assay/stash"
CACHE_NOTE = ".dvc/config.local"
"""In a clone: what DVC had queued of which the files are."""
TURN_S = 1.0
"""How often it is looked whether an earlier attempt is over."""


class Signals:
    """Requests to stop are the supervised command's business while it runs; before it, they end the job.

    One that was ignored when the job began, as in the pool, stays ignored.
    """

    def __init__(self) -> None:
        self.got: int | None = None
        self.command: subprocess.Popen[bytes] | None = None
        for number in FORWARDED:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.got = number
        if self.command is not None:
            self.command.send_signal(number)


def work(run: Path) -> int:
    """Clone, run and hand back; returns the exit code of `assay exec`.

    Raises:
        AssayError: the clone could not be made, or the result not handed back.
    """
    submission = read_submission(run)
    if submission is None:
        raise UserError(f"{run}: got no submission; allowed: the folder of a run; give assay submit")
    if (run / METRICS).is_file():
        _say("complete, and handed back: nothing to do")
        return 0
    signals = Signals()
    began = time.monotonic()
    if not _take_turn(run, signals):
        return UNFINISHED
    environment = with_identity(Path(submission.repository))
    os.environ.update(environment)
    prepare(submission)
    _say(f"clone ready after {time.monotonic() - began:.2f} s: {submission.clone}")
    code = _supervise(submission, run, signals)
    _say(f"the pipeline ended with {code} after {time.monotonic() - began:.2f} s")
    if code == 0:
        hand_back(submission, run)
        shutil.rmtree(submission.clone, ignore_errors=True)
        _say(f"handed back after {time.monotonic() - began:.2f} s as {submission.experiment}")
    return code


def _take_turn(run: Path, signals: Signals) -> bool:
    """Wait for an attempt on another node to be taken for dead, which the job before this one may have left.

    False: it lives, or this job was asked to end.
    """
    end = time.monotonic() + LOST_AFTER_S + HEARTBEAT_S
    while held := _held(run):
        if signals.got is not None or time.monotonic() > end:
            _say(f"attempt {held.number} still runs on {held.holder.host}")
            return False
        time.sleep(TURN_S)
    return True


def _held(run: Path) -> Attempt | None:
    """The newest attempt, if it keeps others from beginning."""
    attempts = RunFolder(run).read().attempts
    return attempts[-1] if attempts and is_held(attempts[-1], time.time()) else None


def prepare(submission: Submission) -> None:
    """A clone of the commit with the overrides in its params.yaml; one that is there already is kept.

    Raises:
        DataError: git failed, or params.yaml is not what was planned.
    """
    clone, root = submission.clone, Path(submission.repository)
    params = clone / submission.pipeline / "params.yaml"
    _follow(root, clone)
    if _is_usable(submission, params):
        return
    shutil.rmtree(clone, ignore_errors=True)
    clone.parent.mkdir(parents=True, exist_ok=True)
    git(root, "clone", "--quiet", "--shared", "--no-checkout", str(root), str(clone))
    git(clone, "checkout", "--quiet", "--detach", submission.commit)
    if submission.stash:
        git(clone, "checkout", submission.stash, "--", ".")
        git(clone, "reset", "--quiet")
        git(clone, "update-ref", STASH, submission.stash)
    _share_cache(root, clone)
    if submission.overrides:
        _apply(params, submission.overrides)
    if submission.params is not None and _read(params) != submission.params:
        raise DataError(f"{params}: not what was planned after {submission.overrides}; quote the values in study.yaml")


def _follow(root: Path, clone: Path) -> None:
    """A clone that was moved together with its repository still names the old place, where another's may be now."""
    borrowed = clone / ".git/objects/info/alternates"
    objects = os.path.realpath(root / git(root, "rev-parse", "--git-path", "objects"))
    if borrowed.is_file() and os.path.realpath(borrowed.read_text().strip()) != objects:
        borrowed.write_text(f"{objects}\n")
        if (clone / CACHE_NOTE).is_file():
            _note_cache(root, clone)


def _is_usable(submission: Submission, params: Path) -> bool:
    """Whether a clone is of this commit and says what this run is to be."""
    if not params.is_file() or not (submission.clone / CACHE_NOTE).is_file():
        return False
    try:
        same = git(submission.clone, "rev-parse", "HEAD") == submission.commit
        stash = git(submission.clone, "for-each-ref", "--format=%(objectname)", STASH)
        return same and stash == (submission.stash or "") and submission.params in (None, _read(params))
    except DataError:
        return False


def _apply(params: Path, overrides: list[str]) -> None:
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import apply_overrides

    try:
        apply_overrides(params, overrides)
    except DvcException as error:
        raise DataError(f"{params}: DVC refuses {overrides} ({error}); correct the study file") from error


def _read(params: Path) -> object:
    return plain(YAML(typ="safe", pure=True).load(params.read_text(encoding="utf-8")))


def _share_cache(root: Path, clone: Path) -> None:
    """The main repository's cache, so that nothing is stored or computed twice, and data need no copy.

    It is noted once the data are there: by that note a clone is known as whole.
    """
    from dvc.repo import Repo

    if git(clone, "ls-files", "--", "*.dvc"):
        with Repo(str(clone), config={"cache": {"dir": _cache_of(root)}}) as repo:
            repo.checkout(allow_missing=True)
    _note_cache(root, clone)


def _note_cache(root: Path, clone: Path) -> None:
    (clone / CACHE_NOTE).write_text(f"[cache]\n    dir = {_cache_of(root)}\n")


def _cache_of(root: Path) -> str:
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        found: str = repo.cache.local_cache_dir
    return found


def _supervise(submission: Submission, run: Path, signals: Signals) -> int:
    """`assay exec` of the clone's own code; its exit code."""
    machine = ["--machine", submission.machine] if submission.machine else []
    command = [sys.executable, "-m", "assay", "exec", "--run", str(run), *machine, "--", "dvc", "repro"]
    source, path = submission.clone / "src", os.environ.get("PYTHONPATH")
    searched = [*([str(source)] if source.is_dir() else []), *([path] if path else [])]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": os.pathsep.join(searched),
    }
    if signals.got is not None:  # nothing has begun, so the next job of the chain begins it
        return UNFINISHED
    signals.command = subprocess.Popen(
        command,
        cwd=submission.clone / submission.pipeline,
        env=environment,
        stdin=subprocess.DEVNULL,
        preexec_fn=lambda: set_parent_death_signal(signal.SIGTERM),
    )
    if signals.got is not None:  # it came while the command was being started
        signals.command.send_signal(signals.got)
    code = signals.command.wait()
    return code if code >= 0 else 128 - code


def _say(text: str) -> None:
    print(f"assay: {text}", flush=True)


def main(run: Path) -> int:
    """The exit code of the job; an error takes one line."""
    try:
        return work(run)
    except AssayError as error:
        print(f"assay: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    finally:
        say_the_end(run, os.environ)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
