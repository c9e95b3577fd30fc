"""What a process tree uses, what limits it, and what an end by memory looks like."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.runs import resources
from assay.runs.limits import ADDRESS_SPACE, Group, group_of
from assay.runs.processes import descendants, kill_tree
from assay.runs.record import Resources
from assay.runs.resources import Sampler, Total, looks_like_oom, warning

MIB = 2**20
AT_LIMIT = Resources(rss=950 * MIB, rss_peak=950 * MIB, memory_limit=1000 * MIB, memory_limit_source="cgroup v2 /job")
HOLD = "held = bytearray(b'x') * (100 * 2**20); print(flush=True); input()"
BURN = "import time\nwhile time.process_time() < 0.3: pass"
USED = 0.3 - 2 / os.sysconf("SC_CLK_TCK")
"""s: the kernel rounds user and system time down to ticks, each."""


@contextmanager
def started(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """A process with pipes: give it a line and it goes on."""
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, stdin=pipe, stdout=pipe, text=True, start_new_session=True) as process:
        try:
            yield process
        finally:
            kill_tree(process.pid, 5)
            process.kill()


def python(code: str):
    return started(sys.executable, "-c", code)


def until(true: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def group() -> Iterator[Group]:
    """A memory cgroup of 64 MiB inside this process's own."""
    around = group_of(os.getpid())
    if around is None or around.version != 1:
        pytest.skip("no version 1 memory cgroup to make groups in")
    made = replace(around, folder=around.folder / f"assay-test-{os.getpid()}")
    try:
        made.folder.mkdir()
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")
    (made.folder / "memory.limit_in_bytes").write_text(str(64 * MIB))
    yield made
    until(lambda: not (made.folder / "tasks").read_text())
    made.folder.rmdir()


def entering(group: Group, then: str) -> str:
    return f"import os; open('{group.folder}/tasks', 'w').write(str(os.getpid()))\n{then}"


def test_memory_is_summed_over_the_tree_and_its_peak_kept():
    with python(HOLD) as one:
        sampler = Sampler(one.pid)
        one.stdout.readline()
        held = sampler.sample()
        assert 100 * MIB < held.rss < 140 * MIB
        one.communicate("\n")
        after = sampler.sample()
        assert (after.rss, after.processes) == (0, 0)
        assert after.rss_peak == held.rss


def test_cpu_time_counts_descendants_that_have_ended_unseen():
    with started("sh", "-c", f"'{sys.executable}' -c '{BURN}'; echo; read line") as shell:
        shell.stdout.readline()
        sample = Sampler(shell.pid).sample()
        assert sample.processes == 1
        assert USED <= sample.cpu_s < 0.6


def test_cpu_time_of_what_the_measuring_process_has_itself_waited_for_is_kept():
    """In a process of its own: this one may have children of other tests."""
    code = (
        "import os, subprocess, sys\nfrom assay.runs.resources import Sampler\nsampler = Sampler(os.getpid())\n"
        f"subprocess.run([sys.executable, '-c', {BURN!r}], check=True)\nprint(sampler.sample().cpu_s)"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert USED <= float(said) < 0.6


def test_reading_from_the_page_cache_and_from_a_pipe_counts_as_activity(tmp_path):
    file = tmp_path / "data"
    file.write_bytes(bytes(MIB))
    with python(f"input(); open({str(file)!r}, 'rb').read(); print(flush=True); input()") as reader:
        sampler = Sampler(reader.pid)
        before = sampler.sample()
        reader.stdin.write("\n")
        reader.stdin.flush()
        reader.stdout.readline()
        assert MIB <= sampler.sample().read_bytes - before.read_bytes < 10 * MIB
        assert sampler.activity()[1] >= MIB


def test_a_sleeping_process_shows_no_activity():
    with started("sleep", "60") as sleeper:
        sampler = Sampler(sleeper.pid)
        time.sleep(0.1)
        sampler.sample()
        first = sampler.activity()
        time.sleep(0.3)
        sampler.sample()
        assert sampler.activity() == first


def test_the_measuring_process_and_what_is_set_apart_are_not_measured():
    others = set(descendants(os.getpid()))
    with started("sleep", "60") as counted, started("sh", "-c", "sleep 60; :") as apart:
        until(lambda: descendants(apart.pid))
        assert Sampler(os.getpid(), {apart.pid, *others}).sample().processes == 1
        assert Sampler(counted.pid).sample().processes == 1


def test_a_sample_of_ten_processes_takes_less_than_3_ms():
    with started("sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 60 & done; wait") as shell:
        until(lambda: len(descendants(shell.pid)) == 9)
        sampler = Sampler(shell.pid)
        seconds = []
        for _ in range(20):
            begun = time.perf_counter()
            assert sampler.sample().processes == 10
            seconds.append(time.perf_counter() - begun)
        assert min(seconds) < 0.003


@given(st.lists(st.floats(0, 1e6), max_size=30))
def test_a_total_never_decreases(levels):
    total, before = Total(), 0.0
    for level in levels:
        total.reach(level)
        assert total.value >= before
        before = total.value


@given(st.lists(st.integers(0, 10), min_size=1, max_size=30), st.data())
def test_a_total_is_right_although_single_readings_are_low(steps, data):
    total, true = Total(), 0
    for step in steps:
        true += step
        total.reach(true)
        total.reach(data.draw(st.integers(0, true)))
        total.reach(true)
        assert total.value == true


def test_a_total_goes_on_after_a_count_was_lost_for_good():
    total = Total()
    for level in (100.0, 20.0, 20.0, 25.0, 30.0):
        total.reach(level)
    assert total.value == 110.0


def test_the_limit_of_a_cgroup_is_found_with_its_source(group):
    with python(entering(group, HOLD.replace("100", "30"))) as process:
        process.stdout.readline()
        sample = Sampler(process.pid).sample()
        assert sample.memory_limit == 64 * MIB
        assert sample.memory_limit_source == str(group)
        assert str(group).startswith("cgroup v1 /")
        assert 30 * MIB < sample.rss <= 64 * MIB
        assert warning(sample) is None


def test_the_tightest_limit_is_that_of_a_group_further_out(group):
    inner = replace(group, folder=group.folder / "inner")
    inner.folder.mkdir()
    try:
        assert inner.limit() == (64 * MIB, group)
        (inner.folder / "memory.limit_in_bytes").write_text(str(32 * MIB))
        assert inner.limit() == (32 * MIB, inner)
    finally:
        inner.folder.rmdir()


def test_shared_pages_are_bounded_by_the_cgroups_own_account(group):
    sharing = "held = bytearray(b'x') * (20 * 2**20)\nfor _ in range(3): os.fork()\nprint(flush=True); input()"
    with python(entering(group, sharing)) as process:
        until(lambda: len(descendants(process.pid)) == 7)
        assert Sampler(process.pid).sample().rss < 64 * MIB, "8 processes show 20 MiB each, which they share"


def test_a_kill_by_the_kernel_is_recognised_and_the_limit_remembered(group):
    hungry = "print(flush=True); input(); held = bytearray(b'x') * (100 * 2**20)"
    with python(entering(group, hungry)) as process:
        process.stdout.readline()
        sampler = Sampler(process.pid)
        assert sampler.sample().oom_kills == 0
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(timeout=30) == -signal.SIGKILL
        after = sampler.sample()
    assert (after.oom_kills, after.memory_limit) == (1, 64 * MIB)
    assert looks_like_oom(-9, after, "") == "the kernel killed 1 process(es) of its memory cgroup (oom_kill)"


def test_kills_before_the_sampler_began_are_not_its_own(group):
    with python(entering(group, "held = bytearray(b'x') * (100 * 2**20)")) as process:
        process.wait(timeout=30)
    assert group.oom_kills() == 1
    with python(entering(group, "print(flush=True); input()")) as process:
        process.stdout.readline()
        assert Sampler(process.pid).sample().oom_kills == 0


def test_the_address_space_is_a_limit_of_a_process_by_itself():
    limited = f"import resource, mmap; resource.setrlimit(resource.RLIMIT_AS, ({512 * MIB}, {512 * MIB}))\n"
    filling = f"held = mmap.mmap(-1, {480 * MIB}); print(flush=True); input(); bytearray({600 * MIB})"
    with python(limited + filling) as process:
        process.stdout.readline()
        sampler = Sampler(process.pid)
        sample = sampler.sample()
        assert (sample.memory_limit, sample.memory_limit_source) == (512 * MIB, ADDRESS_SPACE)
        assert warning(sample) is None, "resident memory is far below it"
        assert warning(sample, sampler.address_space).startswith("memory: 0.5 GiB of 0.5 GiB (RLIMIT_AS): ")


def test_a_version_2_group_is_read(tmp_path):
    job = tmp_path / "slurm" / "job_7"
    job.mkdir(parents=True)
    for file, text in {
        "slurm/memory.max": f"{8 * MIB}\n",
        "slurm/job_7/memory.max": "max\n",
        "slurm/job_7/memory.current": f"{5 * MIB}\n",
        "slurm/job_7/memory.stat": f"anon 1\ninactive_file {2 * MIB}\nactive_file 3\n",
        "slurm/job_7/memory.events": "low 0\nhigh 0\nmax 8\noom 3\noom_kill 2\noom_group_kill 0\n",
    }.items():
        (tmp_path / file).write_text(text)
    group = Group(version=2, folder=job, top=tmp_path)
    limit, setter = group.limit()
    assert (limit, str(setter)) == (8 * MIB, "cgroup v2 /slurm")
    assert group.usage() == 3 * MIB
    assert group.oom_kills() == 2
    (job / "memory.events.local").write_text("oom_kill 1\n")
    assert group.oom_kills() == 1, "without those of the groups within, which are counted by themselves"


def test_a_group_that_has_vanished_limits_nothing(tmp_path):
    gone = Group(version=2, folder=tmp_path / "gone", top=tmp_path)
    assert (gone.limit(), gone.usage(), gone.oom_kills()) == (None, None, 0)


def test_a_warning_comes_at_90_percent_and_says_what_to_do():
    assert warning(replace(AT_LIMIT, rss=899 * MIB)) is None
    text = warning(replace(AT_LIMIT, rss=int(7.3 * 2**30), memory_limit=8 * 2**30))
    assert text.startswith("memory: 7.3 GiB of 8.0 GiB (cgroup v2 /job): ask for more")
    assert warning(Resources(rss=2**40)) is None, "no limit, no warning"


@pytest.mark.parametrize("code", [-9, 137])
def test_a_sigkill_counts_as_memory_only_at_the_limit(code):
    assert looks_like_oom(code, AT_LIMIT, "") == "SIGKILL with memory at 0.9 GiB of 1.0 GiB (cgroup v2 /job)"
    assert looks_like_oom(code, replace(AT_LIMIT, rss_peak=500 * MIB), "") is None
    assert looks_like_oom(code, Resources(), "") is None
    assert looks_like_oom(1, AT_LIMIT, "") is None


@pytest.mark.parametrize(
    "text, where",
    [
        ("  File 'a.py'\nMemoryError\n", "out of memory: 'MemoryError'"),
        ("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 9 GiB", "out of memory: '_ArrayMemoryError'"),
        ("OSError: [Errno 12] Cannot allocate memory", "out of memory: 'Cannot allocate memory'"),
        ("terminate called after throwing an instance of 'std::bad_alloc'", "out of memory: 'std::bad_alloc'"),
        ("DefaultCPUAllocator: can't allocate memory: you tried", 'out of memory: "can\'t allocate memory"'),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried", "GPU out of memory: 'torch.OutOfMemoryError'"),
        ("RuntimeError: CUDA out of memory. Tried", "GPU out of memory: 'CUDA out of memory'"),
    ],
)
def test_what_a_program_says_when_memory_is_out_is_recognised(text, where):
    assert looks_like_oom(1, Resources(), text) == f"{where} in the output"


def test_an_ordinary_failure_is_not_taken_for_memory():
    assert looks_like_oom(1, Resources(), "ValueError: memory of the room is 3") is None


def test_a_machine_without_a_driver_has_no_gpu_figures(monkeypatch):
    monkeypatch.setattr("assay.runs.gpus.DRIVERS", ())
    apart: set[int] = set()
    sample = resources.Sampler(os.getpid(), apart).sample()
    assert apart == set()
    assert sample.gpu_utilisation is sample.gpu_memory is sample.gpu_memory_peak is sample.gpu_memory_limit is None
