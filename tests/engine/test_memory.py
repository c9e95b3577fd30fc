"""Freed memory is used again: steps that free and take megabytes do not fault each page in anew."""

import os
import platform
import subprocess
import sys

import pytest

ROUNDS = 20
STEPS = f"""
import resource
import numpy
from assay.engine.memory import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    return len([numpy.ones(2**20) for _ in range(4)])  # 8 MiB each, as activations: all taken, then all freed

{{}}
step()
before = faults()
for _ in range({ROUNDS}):
    step()
print(faults() - before)
"""


def faults(call: str, **variables: str) -> int:
    """Pages that were faulted in over all rounds."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | variables
    command = [sys.executable, "-c", STEPS.format(call)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has an allocator of its own")
def test_freed_memory_is_used_again():
    assert faults("keep_freed_memory()") < faults("") / 50


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has an allocator of its own")
def test_what_the_environment_says_of_the_allocator_counts():
    said = {"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536"}
    assert faults("keep_freed_memory()", **said) > faults("") / 2
