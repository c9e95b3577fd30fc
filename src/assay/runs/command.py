"""The command under supervision: its start, its output, its processes and their end; open it when one will not die."""

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress

from assay.errors import UserError
from assay.runs.output import Lines
from assay.runs.processes import descendants, kill_tree, set_parent_death_signal

TERM_WITHIN_S = 5.0
KILL_WITHIN_S = 5.0
LINGER_S = 0.2
"""How long a pipe is read after the last process has ended."""


class Command:
    """A started command. apart: children of this process that are not the command's: scribes."""

    def __init__(
        self,
        arguments: list[str],
        environment: dict[str, str],
        selector: selectors.BaseSelector,
        heard: Callable[[str, int], None],
        apart: Collection[int],
    ) -> None:
        """Start it in a session of its own; `heard(line, stream)` gets what it prints.

        Raises UserError if there is no such program.
        """
        self.apart, self.selector, self.heard = apart, selector, heard
        try:
            self.process = subprocess.Popen(
                arguments,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                preexec_fn=lambda: set_parent_death_signal(signal.SIGKILL),
            )
        except OSError as error:
            raise UserError(f"{arguments[0]}: cannot be started ({error.strerror}); give a program after --") from None
        pipes = [pipe for pipe in (self.process.stdout, self.process.stderr) if pipe is not None]
        self.outputs = [Lines(pipe.fileno(), stream) for stream, pipe in enumerate(pipes, start=1)]
        for output in self.outputs:
            selector.register(output.descriptor, selectors.EVENT_READ, lambda output=output: self._read(output))

    def ended(self) -> bool:
        """Whether the command itself has ended; orphans it left may still run."""
        return self.process.poll() is not None

    def processes(self) -> list[int]:
        """Everything that descends from the command, orphans too; parents first."""
        return descendants(os.getpid(), self.apart)

    def signal(self, number: int) -> None:
        """Signal every process of the command."""
        for pid in self.processes():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def terminate(self) -> Iterator[None]:
        """TERM, then KILL what has not ended; yields while it waits, for output and verdicts still come."""
        self.signal(signal.SIGTERM)
        end = time.monotonic() + TERM_WITHIN_S
        while self.processes() and time.monotonic() < end:
            self.reap()
            yield
        self.kill()

    def kill(self, within_s: float = KILL_WITHIN_S) -> list[int]:
        """KILL everything; returns what is uninterruptible and has been given up."""
        left = kill_tree(os.getpid(), within_s, self.apart)
        self.reap()
        return left

    def reap(self) -> None:
        """Collect every child that has ended; the command's own end is kept for `code`."""
        with suppress(ChildProcessError):
            while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if found.si_pid == self.process.pid:
                    self.process.poll()
                else:
                    os.waitpid(found.si_pid, os.WNOHANG)

    def drain(self) -> None:
        """Read what is left in the pipes and let go of them."""
        end = time.monotonic() + LINGER_S
        while any(output.open for output in self.outputs) and time.monotonic() < end:
            for output in self.outputs:
                self._read(output)
            time.sleep(0.005)
        for output in self.outputs:
            for line in output.flush():
                self.heard(line, output.stream)
            self._forget(output)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    def pass_on_held(self) -> None:
        """Lines without an end that have waited long enough."""
        for output in self.outputs:
            for line in output.held():
                self.heard(line, output.stream)

    def code(self) -> int:
        """Exit code, or minus the signal's number; a command that could not be killed counts as killed."""
        code = self.process.poll()
        return -signal.SIGKILL if code is None else code

    def _read(self, output: Lines) -> None:
        if output.open:
            for line in output.read():
                self.heard(line, output.stream)
            if not output.open:
                self._forget(output)

    def _forget(self, output: Lines) -> None:
        with suppress(KeyError, ValueError):
            self.selector.unregister(output.descriptor)
