"""GPU figures, from a stand-in for the driver's module: it has the same functions and three devices."""

import os
import sys
import time
from pathlib import Path

import pytest

from assay.runs import gpus, resources
from assay.runs.gpus import Gpus, Meter, describe, measure, visible_gpus
from assay.runs.processes import descendants, state

GIB = 2**30
FAKE = """
import os, time
from collections import namedtuple
Memory = namedtuple("Memory", "used total")
Rates = namedtuple("Rates", "gpu")
Process = namedtuple("Process", "pid usedGpuMemory")
NAMES = ["GPU-aa", "GPU-bb", "GPU-lost"]
class NVMLError(Exception): pass
def nvmlInit():
    if os.environ.get("FAKE_DRIVER") == "hangs": time.sleep(600)
def nvmlDeviceGetCount(): return 3
def nvmlDeviceGetHandleByIndex(index):
    if index not in range(3): raise NVMLError("no such device")
    return NAMES[index]
def nvmlDeviceGetHandleByUUID(name): return nvmlDeviceGetHandleByIndex(NAMES.index(name))
def answering(device):
    if device == "GPU-lost": raise NVMLError("GPU is lost")
    return 0 if device == "GPU-aa" else 1
def nvmlDeviceGetMemoryInfo(device): return Memory([2, 6][answering(device)] * 2**30, 8 * 2**30)
def nvmlDeviceGetUtilizationRates(device): return Rates([10, 90][answering(device)])
def nvmlDeviceGetUUID(device):
    answering(device)
    return device
def nvmlDeviceGetName(device): return f"Fake {device}"
def nvmlDeviceGetComputeRunningProcesses(device): return [Process(42, 2**30)]
"""


@pytest.fixture
def driver(tmp_path, monkeypatch) -> Path:
    """A driver that is there, and its module first on the path of whoever asks."""
    (tmp_path / "pynvml.py").write_text(FAKE)
    monkeypatch.setattr(gpus, "DRIVERS", (tmp_path,))
    sources = str(Path(gpus.__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), sources]))
    return tmp_path


@pytest.fixture
def nvml(driver, monkeypatch):
    monkeypatch.syspath_prepend(driver)
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    import pynvml

    yield pynvml
    del sys.modules["pynvml"]


@pytest.mark.parametrize(
    "visible, expected",
    [
        (None, Gpus(utilisation=50.0, used=8 * GIB, total=16 * GIB)),
        ("1", Gpus(utilisation=90.0, used=6 * GIB, total=8 * GIB)),
        ("GPU-aa", Gpus(utilisation=10.0, used=2 * GIB, total=8 * GIB)),
        ("0,1", Gpus(utilisation=50.0, used=8 * GIB, total=16 * GIB)),
        ("2", None),
        ("7", None),
        ("", None),
        ("-1", None),
    ],
)
def test_the_visible_devices_that_answer_are_measured_together(nvml, visible, expected):
    assert measure(nvml, visible) == expected


def test_a_stall_is_shown_what_is_on_each_device(nvml):
    text = describe(nvml, "0")
    assert text == "Fake GPU-aa: 2.0 of 8.0 GiB\n  10 % busy\n  process 42: 1073741824 bytes"


@pytest.mark.parametrize(
    "visible, ids", [(None, ["GPU-aa", "GPU-bb"]), ("1", ["GPU-bb"]), ("GPU-aa", ["GPU-aa"]), ("", [])]
)
def test_those_that_answer_and_are_visible_can_be_given_to_jobs(driver, monkeypatch, visible, ids):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_gpus() == ids


def test_a_driver_that_hangs_has_no_gpus_to_give(driver, monkeypatch):
    monkeypatch.setenv("FAKE_DRIVER", "hangs")
    monkeypatch.setattr(gpus, "IDS_WITHIN_S", 0.5)
    assert visible_gpus() == []


def test_figures_arrive_in_samples_and_the_meter_is_no_part_of_the_tree(driver, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    others = frozenset(descendants(os.getpid()))
    apart = set(others)
    sampler = resources.Sampler(os.getpid(), apart)
    (meter,) = apart - others
    end = time.monotonic() + 10
    while (sample := sampler.sample()).gpu_memory is None and time.monotonic() < end:
        time.sleep(0.02)
    assert (sample.gpu_utilisation, sample.gpu_memory, sample.gpu_memory_peak) == (90.0, 6 * GIB, 6 * GIB)
    assert sample.gpu_memory_limit == 8 * GIB
    assert sample.processes == 0
    del sampler
    os.waitpid(meter, 0)


def test_a_driver_that_hangs_holds_nobody_up(driver, monkeypatch):
    monkeypatch.setenv("FAKE_DRIVER", "hangs")
    begun = time.monotonic()
    meter = Meter()
    assert meter.latest() is None
    assert time.monotonic() - begun < 0.5
    assert state(meter.pid) is not None
    os.kill(meter.pid, 9)
    os.waitpid(meter.pid, 0)


def test_stale_figures_are_dropped(driver, monkeypatch):
    meter = Meter()
    end = time.monotonic() + 10
    while meter.latest() is None and time.monotonic() < end:
        time.sleep(0.02)
    assert meter.latest() is not None
    monkeypatch.setattr(gpus, "STALE_S", 0.0)
    assert meter.latest() is None
    os.kill(meter.pid, 9)
    os.waitpid(meter.pid, 0)


def test_a_meter_that_has_nothing_to_say_ends_and_is_collected(driver, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    meter = Meter()
    end = time.monotonic() + 10
    while meter.pid is not None and time.monotonic() < end:
        assert meter.latest() is None
        time.sleep(0.02)
    assert meter.pid is None
