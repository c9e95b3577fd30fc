"""What every scheduler has to do for `assay submit`; a new one is added to `SCHEDULERS` and passes all of this.

Slurm, LSF and vast.ai are stood in for by commands that parse what they are given, tests/stubs; tests/backends has a
real Slurm.
"""

import builtins
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.stubs.vast_world import World

from assay.machine import MachineConfig
from assay.schedulers import ALIVE, SUSPECTS, Job, Scheduler, registry
from assay.schedulers.config import LsfConfig, ResourcesConfig, SlurmConfig, VastConfig
from assay.schedulers.local import Local
from assay.schedulers.lsf import Lsf
from assay.schedulers.slurm import Slurm
from assay.schedulers.vast import Vast

STUBS = Path(__file__).parents[1] / "stubs"
WITHIN_S = 60.0
SCHEDULERS: dict[str, Callable[[Path], Scheduler]] = {
    "local": lambda folder: Local(folder / "pool", jobs=1),
    "slurm": lambda folder: Slurm(folder / "slurm", SlurmConfig(partition="main")),
    "lsf": lambda folder: Lsf(folder / "lsf", LsfConfig(queue="normal")),
    "vast": lambda folder: Vast(folder / "vast", VastConfig(image="lab/assay", python=sys.executable), poll_s=0.4),
}
CHAINED = [name for name in SCHEDULERS if name != "local"]
"""Those with a wall limit: they are given a number of attempts, where local gives one job again and again."""
CLUSTERS = ["slurm", "lsf"]
"""Those whose nodes have names that a job knows."""
HOSTILE = "a b'c\"d;rm -rf $HOME `id` %j \\n #"


@pytest.fixture
def stubs(tmp_path, monkeypatch) -> Path:
    """The folder of the cluster that the stand-ins play; whatever is asked is asked at once."""
    monkeypatch.setenv("PATH", os.pathsep.join([str(STUBS), str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("STUB_CLUSTER", str(tmp_path / "cluster"))
    monkeypatch.setattr("assay.schedulers.words.POLL_S", 0.0)
    return tmp_path / "cluster"


@pytest.fixture
def service(tmp_path, stubs, monkeypatch) -> Iterator[None]:
    """Machines that are rented have the folder of the test in common with this computer, as nodes of a cluster have."""
    monkeypatch.setenv("VASTAI_STUB", str(tmp_path / "service"))
    world = World(tmp_path / "service", {1: 0.3, 2: 0.4}, shared=(f"/{tmp_path.parts[1]}",))
    yield
    left = SCHEDULERS["vast"](tmp_path)
    left.cancel(*left.alive().values())
    world.end()


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.vast] * (name == "vast")) for name in SCHEDULERS])
def scheduler(request, tmp_path, stubs) -> Scheduler:
    if request.param == "vast":
        request.getfixturevalue("service")
    return SCHEDULERS[request.param](tmp_path)


@pytest.fixture
def job(tmp_path, scheduler) -> Callable[..., Job]:
    """A job of some lines of Python, which run in the folder `tmp_path`; its script is written."""

    def make(code: str, name: str = "job", **more: object) -> Job:
        logs = tmp_path / "logs" / name
        logs.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-S", "-c", code]
        made = Job(name=name, command=command, folder=tmp_path, log=logs / "job.log", script=logs / "job.sh", **more)
        made.script.write_text(scheduler.render(made))
        return made

    return make


def meaning(scheduler: Scheduler, job_id: str) -> str:
    return scheduler.meaning(scheduler.states([job_id]).get(job_id, ""))


def wait_until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < end, f"waited {WITHIN_S} s"
        time.sleep(0.1)


def wait_for_end(scheduler: Scheduler, *ids: str) -> None:
    wait_until(lambda: all(meaning(scheduler, each) == "ended" for each in ids))


def test_every_scheduler_of_a_machine_file_passes_these_tests():
    assert registry.SCHEDULERS.keys() == SCHEDULERS.keys()
    for name, make in registry.SCHEDULERS.items():
        assert make(Path(), MachineConfig()).name == name


def test_a_job_runs_in_its_folder_and_its_output_is_appended_to_its_log(scheduler, job, tmp_path):
    made = job("import os; print('here', os.getcwd())")
    made.log.write_text("earlier\n")
    wait_for_end(scheduler, scheduler.submit(made))
    assert made.log.read_text() == f"earlier\nhere {tmp_path}\n"


def test_rendering_touches_nothing_and_says_the_same_each_time(scheduler, job, monkeypatch):
    made = job("pass", resources=ResourcesConfig(cpus=2, memory=1.5, gpus=1, gpu="a100"), wall_limit=90.0, attempts=3)

    def forbidden(*_, **__):
        raise AssertionError("rendering reads and starts nothing")

    with monkeypatch.context() as patched:
        for module, name in ((subprocess, "run"), (subprocess, "Popen"), (builtins, "open"), (time, "time")):
            patched.setattr(module, name, forbidden)
        patched.setattr(os, "environ", {})
        texts = {scheduler.render(made), scheduler.render(made)}
    assert len(texts) == 1 and all(text.startswith("#!") for text in texts)


def test_a_job_is_alive_from_its_submission_to_its_end(scheduler, job, tmp_path):
    hold = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)"
    job_id = scheduler.submit(job(hold))
    assert meaning(scheduler, job_id) in ALIVE
    wait_until(lambda: meaning(scheduler, job_id) == "running")
    (tmp_path / "go").touch()
    wait_for_end(scheduler, job_id)


def test_ids_are_never_used_twice(scheduler, job):
    first, second = scheduler.submit_all([job("pass", "first"), job("pass", "second")])
    wait_for_end(scheduler, first, second)
    assert len({first, second, scheduler.submit(job("pass"))}) == 3


def test_many_jobs_are_submitted_in_order_and_each_runs_once(scheduler, job, tmp_path):
    jobs = [job(f"open('order', 'a').write('{number}')", f"job{number}") for number in range(4)]
    ids = list(scheduler.submit_all(jobs))
    wait_for_end(scheduler, *ids)
    assert (tmp_path / "order").read_text() == "0123"
    assert len(set(ids)) == 4


def test_a_job_whose_id_was_lost_is_found_while_it_is_alive(scheduler, job, tmp_path):
    hold = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)"
    several = [job(hold, "first"), job(hold, "second")]
    alone, nobody = job(hold, "alone", attempts=2), job(hold, "nobody")
    ids = [*scheduler.submit_all(several), scheduler.submit(alone)]
    found = scheduler.find([each.script for each in (*several, alone, nobody)])
    assert found == dict(zip([each.script for each in (*several, alone)], ids, strict=True))
    (tmp_path / "go").touch()
    wait_for_end(scheduler, *ids)
    assert scheduler.find([each.script for each in several]) == {}


def test_a_job_that_nobody_submitted_is_unknown_and_can_be_cancelled_without_harm(scheduler):
    scheduler.cancel("999999")
    assert scheduler.states(["999999"]) == {}
    assert scheduler.meaning("a word of no scheduler") == "unknown"


def test_a_queued_job_that_is_cancelled_never_runs(scheduler, job, tmp_path):
    first = scheduler.submit(job("import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)", "first"))
    second = scheduler.submit(job("open('ran', 'w')", "second"))
    scheduler.cancel(second)
    (tmp_path / "go").touch()
    wait_for_end(scheduler, first, second)
    assert not (tmp_path / "ran").exists()


def test_a_running_job_that_is_cancelled_is_asked_to_end(scheduler, job, tmp_path):
    code = (
        "import signal, sys, time\n"
        "def end(*_):\n    open('asked', 'w').close()\n    sys.exit(75)\n"
        "signal.signal(signal.SIGINT, end); signal.signal(signal.SIGTERM, end)\n"
        "open('ready', 'w').close()\n"
        "while True: time.sleep(0.01)"
    )
    job_id = scheduler.submit(job(code, attempts=2))
    wait_until((tmp_path / "ready").exists)
    scheduler.cancel(job_id)
    wait_for_end(scheduler, job_id)
    assert (tmp_path / "asked").exists()


def test_a_job_that_ends_with_75_is_given_again(scheduler, job, tmp_path):
    code = "import os, sys; open('tries', 'a').write('x'); sys.exit(75 if os.path.getsize('tries') < 2 else 0)"
    wait_for_end(scheduler, scheduler.submit(job(code, attempts=4)))
    assert (tmp_path / "tries").read_text() == "xx"


def test_a_job_that_fails_is_not_given_again(scheduler, job, tmp_path):
    failing = job("import sys; open('tries', 'a').write('x'); sys.exit(3)", attempts=3)
    wait_for_end(scheduler, scheduler.submit(failing))
    assert (tmp_path / "tries").read_text() == "x"


def test_another_process_sees_the_same(scheduler, job, request, tmp_path):
    job_id = scheduler.submit(job("pass"))
    wait_for_end(scheduler, job_id)
    other = SCHEDULERS[request.node.callspec.params["scheduler"]](tmp_path)
    assert other.states([job_id]) == scheduler.states([job_id])


def test_names_and_arguments_may_hold_anything(scheduler, job, tmp_path):
    folder = tmp_path / f"{HOSTILE}\nnew line"
    folder.mkdir()
    made = job("import os, sys; print(os.getcwd(), sys.argv[1])", HOSTILE)
    strange = replace(made, folder=folder, log=folder / "job.log", script=folder / "job.sh")
    strange = replace(strange, command=[*made.command, f"{HOSTILE}\n)"])
    strange.script.write_text(scheduler.render(strange))
    wait_for_end(scheduler, *scheduler.submit_all([strange, job("pass", "another")]))
    assert strange.log.read_text() == f"{folder} {HOSTILE}\n)\n"


def test_what_is_shown_is_what_is_submitted(scheduler, job):
    jobs = [job("pass", "first"), job("pass", "second"), job("pass", "chain", attempts=3)]
    shown = scheduler.scripts(jobs)
    assert all(any(str(each.script) in text or each.command[-1] in text for text in shown) for each in jobs)
    assert scheduler.render(jobs[2]) in shown


@pytest.mark.parametrize("scheduler", CHAINED, indirect=True)
def test_no_more_attempts_are_made_than_a_chain_has_jobs(scheduler, job, tmp_path):
    code = "import sys; open('tries', 'a').write('x'); sys.exit(75)"
    wait_for_end(scheduler, scheduler.submit(job(code, attempts=3)))
    assert (tmp_path / "tries").read_text() == "xxx"


NODE = "(os.environ.get('SLURMD_NODENAME') or os.environ['LSB_HOSTS']).split()[0]"


@pytest.mark.parametrize("scheduler", CLUSTERS, indirect=True)
def test_the_node_of_a_job_that_ends_with_76_gets_no_more_of_its_chain(scheduler, job, tmp_path):
    code = f"import os, sys; node = {NODE}; open('nodes', 'a').write(node); sys.exit(76 if node == 'n1' else 0)"
    made = job(code, attempts=3)
    wait_for_end(scheduler, scheduler.submit(made))
    assert (tmp_path / "nodes").read_text() == "n1n2"
    assert made.log.with_name(SUSPECTS).read_text() == "n1\n"


@pytest.mark.parametrize("scheduler", CLUSTERS, indirect=True)
def test_a_job_that_ends_with_76_on_a_second_node_is_itself_suspect(scheduler, job, tmp_path):
    made = job(f"import os, sys; open('nodes', 'a').write({NODE}); sys.exit(76)", attempts=4)
    wait_for_end(scheduler, scheduler.submit(made))
    assert (tmp_path / "nodes").read_text() == "n1n2"


@pytest.mark.parametrize("scheduler", CLUSTERS, indirect=True)
def test_a_job_avoids_the_nodes_it_is_told_to(scheduler, job, tmp_path):
    wait_for_end(scheduler, scheduler.submit(job(f"import os; print({NODE})", avoid=("n1",))))
    assert (tmp_path / "logs/job/job.log").read_text() == "n2\n"
