"""What the visible GPUs are doing, asked in a process of its own: a driver that hangs takes only that process along.

`python -m assay.runs.gpus` prints a line of JSON a second until nobody reads; with `once`, a text for people; with
`ids`, what CUDA_VISIBLE_DEVICES may name.
"""

import importlib
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""Without one of these there is no NVIDIA driver, and no process is started."""
EVERY_S = 1.0
STALE_S = 10.0
"""Figures of a process that has said nothing for so long are nobody's."""
IDS_WITHIN_S = 30.0
"""A driver that has not started by then has no GPUs to give."""
COMMAND = [sys.executable, "-P", "-m", "assay.runs.gpus"]


@dataclass(frozen=True, kw_only=True)
class Gpus:
    """All visible GPUs together. utilisation: mean percent (None: not told); used, total: bytes, by anybody."""

    utilisation: float | None
    used: int
    total: int


class Meter:
    """The process that asks. It ends by itself when this one ends or forgets its meter."""

    def __init__(self) -> None:
        """Starts nothing where there is no driver: `pid` is None then."""
        self.pid: int | None = None
        self._gpus: Gpus | None = None
        self._heard, self._torn = -STALE_S, b""
        if not any(driver.exists() for driver in DRIVERS):
            return
        self._pipe, write = os.pipe()
        os.set_blocking(self._pipe, False)
        quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 2)]
        actions = [*quiet, (os.POSIX_SPAWN_DUP2, write, 1)]
        self.pid = os.posix_spawn(sys.executable, COMMAND, os.environ, file_actions=actions, setpgroup=0)
        os.close(write)

    def latest(self) -> Gpus | None:
        """The newest figures; None if there are none or they are stale. Never blocks."""
        if self.pid is None:
            return None
        with suppress(BlockingIOError):
            while received := os.read(self._pipe, 65536):
                *lines, self._torn = (self._torn + received).split(b"\n")
                if lines:
                    self._gpus, self._heard = Gpus(**json.loads(lines[-1])), time.monotonic()
        if _has_ended(self.pid):
            self.close()
        return self._gpus if time.monotonic() - self._heard < STALE_S else None

    def close(self) -> None:
        """Let the process end: its next line finds no reader."""
        if self.pid is not None:
            os.close(self._pipe)
            self.pid = None

    __del__ = close


def _has_ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def visible_gpus() -> list[str]:
    """Ids of the GPUs that this process may use, for CUDA_VISIBLE_DEVICES; none where the driver does not answer."""
    if not any(driver.exists() for driver in DRIVERS):
        return []
    with suppress(OSError, subprocess.TimeoutExpired):
        asked = subprocess.run([*COMMAND, "ids"], capture_output=True, text=True, check=False, timeout=IDS_WITHIN_S)
        return asked.stdout.split()
    return []


def measure(nvml: Any, visible: str | None) -> Gpus | None:
    """Ask the driver. nvml: the pynvml module, initialised. visible: CUDA_VISIBLE_DEVICES, None for all.

    Indices are the driver's (CUDA_DEVICE_ORDER=PCI_BUS_ID). A device that does not answer is left out.
    """
    utilisations, used, total = [], 0, 0
    for device in _devices(nvml, visible):
        with suppress(nvml.NVMLError):
            memory = nvml.nvmlDeviceGetMemoryInfo(device)
            used, total = used + memory.used, total + memory.total
            utilisations.append(nvml.nvmlDeviceGetUtilizationRates(device).gpu)
    if total == 0:
        return None
    mean = sum(utilisations) / len(utilisations) if utilisations else None
    return Gpus(utilisation=mean, used=used, total=total)


def describe(nvml: Any, visible: str | None) -> str:
    """A line for each visible device and each process on it."""
    lines = []
    for device in _devices(nvml, visible):
        with suppress(nvml.NVMLError):
            memory = nvml.nvmlDeviceGetMemoryInfo(device)
            lines.append(
                f"{nvml.nvmlDeviceGetName(device)}: {memory.used / 2**30:.1f} of {memory.total / 2**30:.1f} GiB"
            )
            lines.append(f"  {nvml.nvmlDeviceGetUtilizationRates(device).gpu} % busy")
            processes = nvml.nvmlDeviceGetComputeRunningProcesses(device)
            lines += [f"  process {process.pid}: {process.usedGpuMemory} bytes" for process in processes]
    return "\n".join(lines)


def _devices(nvml: Any, visible: str | None) -> list[Any]:
    names = [str(i) for i in range(nvml.nvmlDeviceGetCount())] if visible is None else visible.split(",")
    found = []
    for name in filter(None, map(str.strip, names)):
        with suppress(nvml.NVMLError):
            index = name.lstrip("-").isdecimal()
            ask = nvml.nvmlDeviceGetHandleByIndex if index else nvml.nvmlDeviceGetHandleByUUID
            found.append(ask(int(name) if index else name))
    return found


def main(arguments: list[str]) -> None:
    """Measure until nobody reads, or describe `once`, or name `ids`."""
    nvml = importlib.import_module("pynvml")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    with suppress(nvml.NVMLError, BrokenPipeError):
        nvml.nvmlInit()
        if arguments == ["once"]:
            print(describe(nvml, visible))
            return
        if arguments == ["ids"]:
            for device in _devices(nvml, visible):
                with suppress(nvml.NVMLError):
                    print(nvml.nvmlDeviceGetUUID(device))
            return
        while gpus := measure(nvml, visible):
            print(json.dumps(asdict(gpus)), flush=True)
            time.sleep(EVERY_S)


if __name__ == "__main__":
    main(sys.argv[1:])
