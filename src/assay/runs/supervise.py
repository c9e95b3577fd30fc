"""The supervisor: starts a command, hears it, and ends it in time; read `Supervisor.run` from top to bottom.

One thread, one loop, no operation on the run's file system. It decides when to ask for a stop (deadline, signal), when
silence is a stall, when to kill, and which exit code tells the truth.
"""

import math
import os
import selectors
import signal
import time

from assay import progress
from assay.machine import MachineConfig
from assay.runs.clients import Client, Listener, messages, watched
from assay.runs.command import KILL_WITHIN_S, Command
from assay.runs.deadline import ENFORCED_S, TAIL_S, lead, plain_lead
from assay.runs.guardian import FORWARDED, ORPHANED, RECEIVED
from assay.runs.history import CHECKPOINT
from assay.runs.journal import LAST_CHANCE_S, Journal
from assay.runs.record import Stage, Stall, Stop, Try
from assay.runs.resources import Sampler, warning
from assay.runs.watch import Activity, Silence

TICK_S = 0.1
GATHER_S = 0.005
"""What comes within this time is taken in at once: a thousand messages a second cost less than half."""
SAMPLE_EVERY_S = 1.0
SAME_SIGNAL_S = 1.0
"""A scheduler may signal every process of a job, and the guardian passes its own on: within this time it is one."""
STOOD_STILL_S = 1.0
"""A loop that was away for longer was itself stopped, or the machine slept."""
EVIDENCE_WITHIN_S = 5.0
BETWEEN_STAGES_S = 5.0
"""How long a pipeline tool may take from one stage that speaks to the next."""
TERM_BEFORE_KILL_S = 1.0
"""A last word to what does not listen: the signal before the kill."""
NOT_PASSED_ON = (signal.SIGUSR2, signal.SIGXCPU)
"""Requests to the supervisor that mean something else to a program: the command gets SIGTERM."""
ENDED_BY_REQUEST = {-number for number in (*FORWARDED, signal.SIGKILL)} | {128 + number for number in FORWARDED}
"""Codes of a plain command, or its shell, that a request to stop has ended."""


class Supervisor:
    """Runs one command as one attempt. end_at: when the job must be over, on the monotonic clock."""

    def __init__(self, arguments: list[str], journal: Journal, machine: MachineConfig, end_at: float) -> None:
        self.arguments, self.journal, self.machine = arguments, journal, machine
        now = time.monotonic()
        self.end_at = end_at
        self.plain_lead = plain_lead(machine.grace, end_at - now)
        self.listener = Listener()
        self.selector = selectors.DefaultSelector()
        self.clients: list[Client] = []
        self.spoken: list[Client] = []
        self.earlier: list[Stage] = []
        self.sampler = Sampler(os.getpid(), journal.processes)
        self.signals = RECEIVED
        self.fallen_silent = now
        self.signalled = False
        self.kill_at: float | None = None
        self.killed_by: int | None = None
        self.given_up = False
        self.ticked = self.sampled = now

    def run(self) -> int:
        """Start the command, again after a stall if the machine's watch allows it; returns the exit code."""
        self.selector.register(self.listener.socket, selectors.EVENT_READ, self._accept)
        try:
            for left in range(self.machine.watch.retries, -1, -1):
                code, stall = self._try()
                if stall is None or self.journal.attempt.stop is not None:
                    break
                self.journal.say("starting it again" if left else "giving up; this node is suspect: exit code 76")
            return self._exit_code(code, stall)
        finally:
            self.listener.close()

    def _try(self) -> tuple[int, Stall | None]:
        """One start of the command, to its end or its stall."""
        journal, now = self.journal, time.monotonic()
        self.clients, self.spoken, stall = [], [], None
        tries, self.earlier = journal.attempt.tries, journal.attempt.stages
        started = time.time()
        journal.change(tries=[*tries, Try(started=started)])
        environment = {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", **os.environ}
        environment[progress.SOCKET] = str(self.listener.address)
        self.command = Command(self.arguments, environment, self.selector, self._print, journal.processes)
        self.silence, self.activity = Silence(self.machine.watch, "command", now), Activity(now)
        self.sampled = now - SAMPLE_EVERY_S + TICK_S  # soon, for a short command too
        journal.write(now, at_once=True)
        while stall is None and self._going_on():
            self._wait()
            stall = self._tick(time.monotonic())
        self._end(stall)
        code = self.command.code()
        done = Try(started=started, ended=time.time(), code=code, stall=stall)
        journal.change(tries=[*tries, done])
        return code, stall

    def _going_on(self) -> bool:
        """Until the command has ended; once a stop was asked for, all of it, for a shell ends before its child."""
        if self.journal.attempt.stop is None:
            return not self.command.ended()
        self.command.reap()
        return bool(self.command.processes()) and not self.given_up

    def _wait(self) -> None:
        """Hear whoever speaks first."""
        for key, _ in self.selector.select(TICK_S):
            key.data()
        time.sleep(GATHER_S)
        self.command.pass_on_held()
        self.journal.pump()

    def _tick(self, now: float) -> Stall | None:
        """Whatever is due: samples, heartbeat, signals, the deadline, the watch."""
        if now - self.ticked > STOOD_STILL_S:
            for silence in (self.silence, *(client.silence for client in self.clients)):
                silence.excuse(now - self.ticked)
        self.ticked = now
        if now - self.sampled >= SAMPLE_EVERY_S:
            self.sampled = now
            self._sample(now)
        if self.journal.superseded:
            self._kill("another attempt of this run has taken over")
        self._obey(now)
        if self.journal.attempt.stop is None and now >= self.end_at - self._lead():
            self._stop("deadline", signal.SIGTERM, now)
        self._press(now)
        stalled = next((silence for silence in self._silences() if silence.stalled(now)), None)
        return None if stalled is None else self._describe(stalled, now)

    def _silences(self) -> list[Silence]:
        """Whose silence counts: that of those who speak; without any, the command's."""
        return [client.silence for client in watched(self.clients)] or [self.silence]

    def _sample(self, now: float) -> None:
        """Resources, and for a command that says nothing, signs of life."""
        self.command.reap()
        resources = self.sampler.sample()
        if self.activity.active(now, *self.sampler.activity()):
            self.silence.alive(now)
        speakers = self.clients or self.spoken
        shown = [client for client in speakers if not client.rank] or speakers
        latest = shown[-1].progress() if shown else self.journal.attempt.progress
        stages = [*self.earlier, *(client.record() for client in self.spoken if client.counts)]
        self.journal.change(resources=resources, progress=latest, stages=stages)
        trouble = warning(resources, self.sampler.address_space)
        if trouble and not any(line.startswith(trouble.partition(":")[0]) for line in self.journal.attempt.warnings):
            self.journal.change(warnings=[*self.journal.attempt.warnings, trouble])
            self.journal.say(trouble)
        self.journal.write(now)

    def _lead(self) -> float:
        """How long before the deadline to ask; the slowest of those who speak decides.

        A stage that keeps no checkpoints and has needed longer than is left in an earlier attempt is asked at once.
        """
        if not self.clients:
            between = self.spoken and time.monotonic() - self.fallen_silent < BETWEEN_STAGES_S
            return TAIL_S if between else self.plain_lead
        known = self.journal.known
        saving = max(lead(client.step_s(), client.checkpoint_s() or known.get(CHECKPOINT)) for client in self.clients)
        wanting = [known[client.stage] - client.elapsed_s() for client in self.clients if client.stage in known]
        return max(saving, *wanting) if wanting else saving

    def _obey(self, now: float) -> None:
        """Signals: the first asks, one that comes later ends everything at once, as does the guardian's death.

        In a job of LSF only the same one again does: by itself bkill sends SIGINT, and SIGTERM ten seconds later.
        """
        if not self.signals:
            return
        number, last = self.signals[0][0], self.signals[-1][0]
        times = [at for one, at in self.signals if one == last or "LSB_JOBID" not in os.environ]
        if any(received == ORPHANED for received, _ in self.signals):
            self.killed_by = ORPHANED
            self._kill("the guardian process was killed")
        elif times[-1] - times[0] > SAME_SIGNAL_S and self.killed_by is None:
            self.killed_by = last
            self._kill("second signal")
        elif self.journal.attempt.stop is None:
            self._stop(signal.Signals(number).name, number, now)

    def _stop(self, reason: str, number: int, now: float) -> None:
        """Ask for a stop: those who speak over the socket, others by signal. Enforced by `_press`."""
        self.journal.change(stop=Stop(reason=reason, at=time.time()))
        self.journal.event("stop", reason=reason)
        self.journal.say(f"{reason}: asking the command to stop")
        patience = self.machine.grace + (self._lead() if self.clients else 0.0)
        self.kill_at = min(self.end_at - ENFORCED_S, math.inf if reason == "deadline" else now + patience)
        if not self.spoken:
            self._signal(number)
        self.journal.write(now, at_once=True)

    def _signal(self, number: int) -> None:
        """Signal the command, once."""
        if not self.signalled:
            self.signalled = True
            self.command.signal(number if number not in NOT_PASSED_ON else signal.SIGTERM)

    def _press(self, now: float) -> None:
        """After a stop was asked for: every client hears of it, also a stage that starts only now; then force."""
        if self.kill_at is None:
            return
        for client in self.clients:
            client.ask_to_stop()
        silent = not self.clients and now - self.fallen_silent > BETWEEN_STAGES_S
        if silent or now >= self.kill_at - TERM_BEFORE_KILL_S:
            self._signal(signal.SIGTERM)
        if now >= self.kill_at:
            self._kill("it did not stop in time")

    def _kill(self, reason: str) -> None:
        self.journal.say(f"{reason}: killing the command")
        self.journal.event("kill", reason=reason)
        left = self.command.kill(self._patience())
        if left:
            self.given_up = True
            self.journal.say(f"given up: processes {', '.join(map(str, left))} cannot be killed (uninterruptible)")
        self.clients.clear()

    def _patience(self) -> float:
        """How long to wait for what has been killed, in s: not beyond the deadline."""
        return min(KILL_WITHIN_S, max(LAST_CHANCE_S, self.end_at - ENFORCED_S - time.monotonic()))

    def _describe(self, silence: Silence, now: float) -> Stall:
        """The stall, with whatever names its culprit."""
        from assay.runs import evidence  # needed when something hangs, and seldom

        client = next((client for client in self.clients if client.silence is silence), None)
        stacks = {client.pid: client.stacks for client in self.clients if client.stacks is not None}
        found = evidence.collect(os.getpid(), stacks, EVIDENCE_WITHIN_S, self.journal.processes)
        stage = client.stage or None if client is not None else None
        ranks = {one.pid: f"rank {one.rank} of {one.world}" for one in self.clients if one.rank is not None}
        found |= evidence.rank(found, ranks)
        stall = Stall(
            phase=silence.phase, stage=stage, silent_s=silence.silent(now), bound_s=silence.bound(), evidence=found
        )
        places = {"on": found.get("rank"), "at": evidence.culprit(found)}
        where = "".join(f" {word} {place}" for word, place in places.items() if place)
        self.journal.say(
            f"stalled in {stall.phase}{where}: silent for {stall.silent_s:.1f} s, allowed are {stall.bound_s:.1f} s"
        )
        self.journal.event("stall", phase=stall.phase, stage=stage, silent_s=stall.silent_s)
        return stall

    def _end(self, stall: Stall | None) -> None:
        """Nothing of the command stays: stalled processes are asked, then killed; orphans are killed."""
        if stall is not None:
            for _ in self.command.terminate():
                self._wait()
        elif not self.given_up:
            self.command.kill(self._patience())
        self._wait()
        self.command.drain()
        for client in list(self.clients):
            self._hear(client)
        self._sample(time.monotonic())

    def _exit_code(self, code: int, stall: Stall | None) -> int:
        """0, 75, 76, or the command's own: a pipeline tool hides what its stage said, so the stage's word counts."""
        said = [client.code for client in self.spoken]
        stopped = self.journal.attempt.stop is not None
        if self.killed_by is not None:
            return 128 + self.killed_by
        if progress.UNFINISHED in said or (stopped and code in ENDED_BY_REQUEST):
            return progress.UNFINISHED
        if stall is not None or progress.STALLED in said:
            return progress.STALLED
        return code if code >= 0 else 128 - code

    def _print(self, line: str, stream: int) -> None:
        self.silence.moved(time.monotonic(), "command")
        self.journal.line(line, stream)

    def _accept(self) -> None:
        client = self.listener.accept(self.machine.watch, time.monotonic())
        if self.end_at < math.inf:
            client.tell_limit(self.end_at - ENFORCED_S - time.monotonic())
        self.clients.append(client)
        self.spoken.append(client)
        self.selector.register(client.connection, selectors.EVENT_READ, lambda: self._hear(client))

    def _hear(self, client: Client) -> None:
        """Take in what a client says; when it has gone, the command's own silence counts again."""
        now = time.monotonic()
        for message in messages(client):
            if message is not None:
                client.hear(message, now)
                self.silence.alive(now)
                continue
            self.selector.unregister(client.connection)
            client.connection.close()
            client.ended = time.time()
            self.fallen_silent = now
            self.silence.alive(now)
            if client in self.clients:
                self.clients.remove(client)
