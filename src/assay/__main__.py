"""Entry point of `assay` and `python -m assay`: runs a verb, turns errors into one line and an exit code."""

import errno
import io
import os
import sys
import traceback
from typing import NoReturn

from assay import progress
from assay.errors import AssayError, NonFiniteError, Unfinished

STUDIES = f"{os.sep}assay{os.sep}studies{os.sep}"
REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "; make room"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "; correct its permissions, or choose another place"),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EISDIR), "; correct the path, or run first what writes it"),
}
"""What to do when the system refuses something, by its number."""
ERROR_CHARACTERS = 10_000
"""Longest error message that is sent to the supervisor; the socket takes about 200,000 bytes."""


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit code (0, 1, 2, 75; 130 interrupted, 141 broken pipe)."""
    # Read by OpenMP when torch is imported: how long its threads spin at a barrier before they sleep. By default they
    # spin for milliseconds, and where another process shares the cores a training step takes six times as long
    # (measured, a Fourier operator: 1.1 s against 0.2 s); if they never spin, it takes three times as long on quiet
    # cores (0.163 s against 0.060 s).
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    _mend_streams()
    from assay.cli import run

    given = sys.argv[1:] if arguments is None else arguments
    tell = progress.verdict if given[:1] == ["stage"] else _nobody
    try:
        code = run(given)
    except (AssayError, KeyboardInterrupt, OSError) as error:
        place = _place(error) if given[:1] == ["stage"] else ""
        code = _report(error, place)
        tell(code, f"{error}{place}"[:ERROR_CHARACTERS], type(error).__name__)
    except BaseException as error:
        tell(_code_of(error), str(error)[:ERROR_CHARACTERS], type(error).__name__)
        raise
    else:
        tell(code)
    return code


def _mend_streams() -> None:
    """Standard streams that the caller has closed lead nowhere; what a terminal's encoding lacks is shown escaped."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # as this number, the lowest that is not open
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _nobody(code: int, error: str | None = None, kind: str | None = None) -> None:
    """A verb that is no stage has no verdict to give, even within a run."""


def _place(error: BaseException) -> str:
    """Where a study's code met what the system refused: a path is seldom wrong where it is opened."""
    frames = traceback.extract_tb(error.__traceback__) if isinstance(error, OSError) else []
    own = [each for each in frames if STUDIES in each.filename]
    return f" ({own[-1].filename}:{own[-1].lineno}, in {own[-1].name})" if own else ""


def _reader_has_gone() -> bool:
    """Whether nobody reads our output: what could not be written is tried again."""
    try:
        print(end="", flush=True)
    except OSError:
        return True
    return False


def _report(error: AssayError | KeyboardInterrupt | OSError, place: str = "") -> int:
    """Say what went wrong, a line each; returns the exit code."""
    if isinstance(error, BrokenPipeError) and _reader_has_gone():  # what was asked for is not done
        sys.stderr = None
        return 141
    remedy = REMEDIES.get(error.errno or 0, "") if isinstance(error, OSError) else ""
    text, code = f"{error}{place}{remedy}", 1
    if isinstance(error, AssayError):
        text, code = str(error), error.exit_code
    elif isinstance(error, KeyboardInterrupt):
        text, code = "interrupted", 130
    rank = os.environ.get("RANK", "0")
    if rank != "0" and isinstance(error, Unfinished | NonFiniteError):
        return code  # all ranks agree on these, and the first one says so
    for line in text.splitlines():
        print(f"assay: {line}" if rank == "0" else f"assay: rank {rank}: {line}", file=sys.stderr)
    return code


def _code_of(error: BaseException) -> int:
    """The exit code of a process that ends with this exception unhandled."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 1


def leave(code: int) -> NoReturn:
    """End the process; a rank at once. To take torch down took 2 to 4 s on busy cores, when a deadline is near."""
    if "RANK" not in os.environ:
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main())
