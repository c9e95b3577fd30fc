"""What a command prints, cut into lines with their time; open it to change how output looks in logs."""

import codecs
import os
import time
from functools import lru_cache

HELD_S = 0.5
"""A line without an end is passed on after this time: a prompt, or a program that hangs in mid-sentence."""
CHUNK_BYTES = 65536


class Lines:
    """Assembles the lines of one pipe. `stream` is 1 for standard output and 2 for standard error."""

    def __init__(self, descriptor: int, stream: int) -> None:
        self.descriptor = descriptor
        self.stream = stream
        self.open = True
        self.partial = ""
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a piece may end within a character
        self.since = 0.0
        os.set_blocking(descriptor, False)

    def read(self) -> list[str]:
        """The whole lines that have come; at the pipe's end, what is left."""
        try:
            chunk = os.read(self.descriptor, CHUNK_BYTES)
        except BlockingIOError:
            return []
        self.open = bool(chunk)
        text = (self.partial + self.decoder.decode(chunk)).replace("\r\n", "\n").replace("\r", "\n")
        known = bool(self.partial)
        *lines, self.partial = text.split("\n")
        if lines or not known:  # what is held now has only just begun
            self.since = time.monotonic()
        if not self.open:
            return lines + self.flush()
        return lines if len(self.partial) < CHUNK_BYTES else lines + self._pass_on()

    def held(self) -> list[str]:
        """A line that has waited long enough for its end."""
        return self._pass_on() if self.partial and time.monotonic() - self.since > HELD_S else []

    def flush(self) -> list[str]:
        """A line that has no end, and will have none."""
        self.partial += self.decoder.decode(b"", final=True)
        return self._pass_on()

    def _pass_on(self) -> list[str]:
        whole, self.partial = self.partial, ""
        return [whole] if whole else []


def stamped(line: str, at: float) -> str:
    """A line of the log: time in UTC with milliseconds, then what was printed."""
    return f"{_universal(int(at))}.{int(at % 1 * 1000):03d}Z {line}\n"


def shown(line: str, at: float) -> str:
    """The same for the terminal or job output: local time, in seconds."""
    return f"{_local(int(at))} {line}\n"


@lru_cache(1)
def _universal(second: int) -> str:
    """Made once a second, not for each of the thousands of lines a second may have."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


@lru_cache(1)
def _local(second: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(second))
