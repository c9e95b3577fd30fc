"""Writing without waiting: a forked process does the file operations, so only it hangs when a file system does.

Messages are JSON lines over a pipe. The supervisor never blocks on it: what the pipe does not take stays in a bounded
backlog, and what the backlog does not take is dropped and counted. Every message is answered, in order. Text is sent in
batches, and only while no message waits: a heartbeat never queues behind megabytes of log.
"""

import json
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

BACKLOG_BYTES = 16 * 2**20
"""Of messages, and again (in characters) of text."""
BATCH = 65536
"""Characters of text in one message, and bytes written at once: what a pipe holds."""
Handler = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass
class _Batch:
    head: dict[str, Any]
    lines: list[str] = field(default_factory=list)
    size: int = 0


class Scribe:
    """A process that calls `handler` with each message sent; `answers` collects what it returned.

    kept: the descriptors that the handler writes to. dead: it has ended, so that nothing is written any more.
    dropped: how many messages and texts found no room; full: texts find none at the moment.
    """

    def __init__(self, handler: Handler, *kept: int) -> None:
        messages, self.messages = os.pipe()
        self.replies, replies = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            close_others(messages, replies, *kept)
            _serve(handler, messages, replies)
        os.close(messages)
        os.close(replies)
        os.set_blocking(self.messages, False)
        os.set_blocking(self.replies, False)
        self.backlog = bytearray()
        self.waiting = self.dropped = self._size = 0
        self.dead = self.full = False
        self._texts: deque[_Batch] = deque()
        self._partial = b""

    def send(self, message: dict[str, Any]) -> None:
        """Queue one message, before all text."""
        if self.dead:
            return
        line = json.dumps(message).encode() + b"\n"
        if len(self.backlog) + len(line) > BACKLOG_BYTES:
            self.dropped += 1
            return
        self.backlog += line
        self.waiting += 1
        self.pump()

    def add(self, head: dict[str, Any], text: str) -> None:
        """Queue text; with what has the same head it becomes one message, `head` and "text", at the next `pump`.

        Once there is no room, all is dropped until a pump finds half the room: few gaps rather than many.
        """
        self.full |= self._size + len(text) > BACKLOG_BYTES
        if self.dead or self.full:
            self.dropped += 1
            return
        if not self._texts or self._texts[-1].head != head or self._texts[-1].size >= BATCH:
            self._texts.append(_Batch(head))
        batch = self._texts[-1]
        batch.lines.append(text)
        batch.size += len(text)
        self._size += len(text)
        if batch.size >= BATCH:
            self.pump()

    def pump(self) -> None:
        """Move what the pipe takes."""
        with suppress(BlockingIOError, BrokenPipeError):  # one that has ended is noticed by its silence: `answers`
            while self.backlog or self._texts:
                if not self.backlog:
                    self._take_text()
                del self.backlog[: os.write(self.messages, self.backlog[:BATCH])]
        self.full &= self._size > BACKLOG_BYTES // 2

    def busy(self) -> bool:
        """Whether something is not sent, or not answered."""
        return bool(self.waiting or self._texts)

    def answers(self) -> list[dict[str, Any]]:
        """The answers that have come since the last call."""
        with suppress(BlockingIOError):
            while chunk := os.read(self.replies, BATCH):
                self._partial += chunk
            self.dead = True
        *lines, self._partial = self._partial.split(b"\n")
        self.waiting -= len(lines)
        if self.dead:
            self.waiting = 0
            self.backlog.clear()
            self._texts.clear()
        return [json.loads(line) for line in lines]

    def drain(self, within_s: float) -> list[dict[str, Any]]:
        """Wait until everything is answered, or time is over, or it has ended; returns the answers."""
        end, found = time.monotonic() + within_s, self.answers()
        while self.busy() and time.monotonic() < end:
            self.pump()
            time.sleep(0.002)
            found += self.answers()
        return found

    def close(self) -> None:
        """Let it end; one that hangs is killed, and left to the guardian."""
        os.close(self.messages)
        if self.busy():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def _take_text(self) -> None:
        batch = self._texts.popleft()
        self._size -= batch.size
        self.backlog += json.dumps({**batch.head, "text": "".join(batch.lines)}).encode() + b"\n"
        self.waiting += 1


def _serve(handler: Handler, messages: int, replies: int) -> None:
    """The forked process: until the pipe ends, one answer for each message. Signals are the supervisor's affair."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    code = 0
    try:
        with os.fdopen(messages, "rb") as lines:
            for line in lines:
                os.write(replies, json.dumps(handler(json.loads(line))).encode() + b"\n")
    except BrokenPipeError:
        code = 1
    finally:
        os._exit(code)


def close_others(*kept: int) -> None:
    """Close every descriptor but these: a fork that hangs must not hold anybody's pipes or sockets open.

    The standard streams too: who reads our output waits for the end of all that could write to it.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for name in map(int, os.listdir("/dev/fd")):
        if name not in kept:
            with suppress(OSError):
                os.dup2(nothing, name) if name <= 2 else os.close(name)
