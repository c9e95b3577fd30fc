"""A cluster of one slot behind stand-ins for Slurm's and LSF's commands, which parse what they are given and refuse
whatever the real ones would; state is files in the folder $STUB_CLUSTER.

    python cluster.py FOLDER    works off the queue; started by whoever submits
"""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

NODES = ("n1", "n2")
LINGER_S = 1.0
Job = dict[str, Any]


def folder() -> Path:
    return Path(os.environ["STUB_CLUSTER"])


def refuse(message: str, code: int = 1) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(code)


@contextmanager
def jobs() -> Iterator[list[Job]]:
    """All jobs, under a lock; what is changed in them is kept. Counts how often anybody looked, by program."""
    place = folder()
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = place / "jobs.json"
        found = json.loads(path.read_text()) if path.exists() else []
        yield found
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(found))
        temporary.replace(path)


def count(program: str) -> None:
    """One line for each call."""
    folder().mkdir(parents=True, exist_ok=True)
    with (folder() / "calls").open("a") as file:
        file.write(f"{program} {' '.join(sys.argv[1:])}\n")
    if (folder() / "down").exists():
        refuse((folder() / "down").read_text())


def add(new: list[Job], script: str) -> int:
    """Put jobs into the queue, all of one number; returns it."""
    with jobs() as found:
        number = max((job["number"] for job in found), default=100) + 1
        path = folder() / f"{number}.sh"
        path.write_text(script)
        shared = {
            "number": number,
            "state": "PENDING",
            "script": str(path),
            "cwd": os.getcwd(),
            "env": dict(os.environ),
        }
        found += [{**shared, **job} for job in new]
    wake()
    return number


def wake() -> None:
    """Start a worker, which ends at once where there is one."""
    subprocess.Popen(
        [sys.executable, "-S", __file__, str(folder())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def cancel(chosen: Callable[[Job], bool]) -> int:
    """End the jobs that are chosen; returns how many had not ended."""
    with jobs() as found:
        hit = [job for job in found if chosen(job) and job["state"] in ("PENDING", "HELD", "RUNNING")]
        for job in hit:
            if job["state"] != "RUNNING":
                job["state"] = "CANCELLED"
            else:
                job["cancelled"] = True
                with suppress(ProcessLookupError):
                    os.killpg(job["pid"], signal.SIGTERM)
    return len(hit)


def directives(script: str, prefix: str) -> list[str]:
    """What follows the prefix on each line before the first that is no comment."""
    found = []
    for line in script.splitlines():
        if not line.startswith("#"):
            break
        if line.startswith(prefix):
            found.append(line.removeprefix(prefix).strip())
    return found


def work(place: Path) -> None:
    """Start what may start, one at a time, and say how it ended."""
    os.environ["STUB_CLUSTER"] = str(place)
    with (place / "worker").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        idle = time.monotonic()
        while time.monotonic() - idle < LINGER_S:
            job = take()
            if job is None:
                time.sleep(0.02)
                continue
            execute(job)
            idle = time.monotonic()


def take() -> Job | None:
    """The first job that nothing keeps from running, and a node for it."""
    with jobs() as found:
        ended = {str(job["number"]) for job in found if job["state"] in ("COMPLETED", "FAILED", "CANCELLED")}
        for job in found:
            free = [node for node in NODES if node not in job["exclude"]]
            if job["state"] == "PENDING" and set(job["after"]) <= ended and free:
                job["state"], job["node"] = "STARTING", free[0]
                job["pid"] = 0
                return dict(job)
    return None


def execute(job: Job) -> None:
    """In a session of its own, with the variables of its scheduler."""
    environment = {**job["env"], **{name: text.format(**job) for name, text in job["variables"].items()}}
    with open(job["output"], "ab") as output:
        process = subprocess.Popen(
            ["bash", job["script"]],
            cwd=job["cwd"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    note(job, state="RUNNING", pid=process.pid)
    code = process.wait()
    cancelled = next(each for each in read() if same(each, job)).get("cancelled")
    note(job, state="CANCELLED" if cancelled else "COMPLETED" if code == 0 else "FAILED", code=code)


def read() -> list[Job]:
    with jobs() as found:
        return found


def same(one: Job, other: Job) -> bool:
    return (one["number"], one["task"]) == (other["number"], other["task"])


def note(job: Job, **facts: Any) -> None:
    with jobs() as found:
        for each in found:
            if same(each, job):
                each.update(facts)


def options(given: list[str], allowed: dict[str, str], program: str) -> dict[str, str]:
    """`--name=value` checked against a pattern for each name; an empty pattern: no value."""
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if name not in allowed:
            refuse(f"{program}: unrecognized option '{name}'")
        if bool(equals) != bool(allowed[name]) or not re.fullmatch(allowed[name], value):
            refuse(f"{program}: error: Invalid value for {name}: {value}")
        found[name] = value
    return found


if __name__ == "__main__":
    work(Path(sys.argv[1]))
