"""Single faults of memory, numbers, loaders, clocks, processes and checkpoints: each ends clearly, or does no harm."""

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
from tests.runs.conftest import Supervised
from tests.torture.places import memory_cgroup, stage

from assay.engine.checkpoint import read_tensors
from assay.runs.diagnose import Diagnosis, diagnose
from assay.runs.store import RunFolder

pytestmark = pytest.mark.torture

MIB = 2**20
WITHIN_S = 60.0
DAY_S = 86400.0
HOG = "import time\nkept = [bytearray(1000 * 2**20)]\nwhile True: kept.append(bytearray(2**20)); time.sleep(0.1)"
LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_AS, (200 * 2**20, 200 * 2**20))\n"
LOADER = """
    from torch.utils.data import DataLoader, Dataset

    class Bad(Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            if index == 2:
                raise ValueError("sample 2 is torn")
            return index

    for _ in DataLoader(Bad(), num_workers=2):
        pass
"""
JUMPY = """
    import time
    from pathlib import Path

    real, file = time.time, Path(__file__).with_name("jump")
    time.time = lambda: real() + (float(file.read_text()) if file.exists() else 0.0)
"""
STEPS = """
    import time
    from assay import progress

    with progress.phase("train", total=120) as p:
        for _ in range(p.total):
            time.sleep(0.05)
            p.advance()
            print("step", p.done)
"""


def diagnosed(supervised: Supervised) -> Diagnosis:
    """What the record says now."""
    return diagnose(RunFolder(supervised.folder / "run").read(), time.time())


def test_a_job_out_of_memory_is_warned_of_and_recognised(supervised):
    with memory_cgroup(1200 * MIB) as supervised.prefix:
        code, said = supervised.run(command=[sys.executable, "-c", HOG], within_s=WITHIN_S)
        found, resources = diagnosed(supervised), supervised.attempt()["resources"]
        assert supervised.ended()
    assert code == 137
    assert found.cause == "host OOM"
    assert resources["oom_kills"] == 1
    assert resources["memory_limit"] == 1200 * MIB
    assert "GiB of 1.2 GiB" in said and "ask for more" in said


def test_a_program_out_of_address_space_is_recognised(supervised):
    code, said = supervised.run(command=[sys.executable, "-c", LIMITED + HOG.replace("1000", "150")], within_s=WITHIN_S)
    assert code == 1
    assert diagnosed(supervised).cause == "host OOM"
    assert "RLIMIT_AS" in said


def test_a_loss_that_is_no_number_fails_the_stage_with_its_step(supervised):
    code, said = supervised.run(command=stage("--bad-from", "7"), within_s=WITHIN_S)
    assert code == 1
    assert "step 7: " in said and "is not finite" in said
    assert diagnosed(supervised).cause == "NaN"


def test_an_exception_in_a_loader_is_named_with_its_line(supervised):
    script = supervised.script("loads.py", LOADER)
    code, said = supervised.run(command=[sys.executable, script], within_s=WITHIN_S)
    assert code == 1
    assert "sample 2 is torn" in said
    assert diagnosed(supervised).cause == "ValueError"
    assert supervised.ended()


@pytest.mark.parametrize("who", ["supervisor", "guardian", "both"])
def test_supervisors_that_were_stopped_see_no_stall(supervised, who):
    script = supervised.script("steps.py", STEPS)
    process = supervised.start("--stall-after", "2", command=[sys.executable, script])
    supervised.wait_for("step 3\n")
    guardian = psutil.Process(process.pid)
    (supervisor,) = guardian.children()
    stopped = {"supervisor": [supervisor], "guardian": [guardian], "both": [guardian, supervisor]}[who]
    for one in stopped:
        one.suspend()
    time.sleep(4)
    for one in stopped:
        one.resume()
    assert process.wait(WITHIN_S) == 0
    assert len(supervised.attempt()["tries"]) == 1
    assert supervised.log().count(" step ") == 120


def test_a_supervisor_that_was_stopped_still_sees_the_deadline(supervised):
    process = supervised.start("--deadline", "5", command=["sh", "-c", "echo ready; sleep 100"])
    supervised.wait_for("ready")
    (supervisor,) = psutil.Process(process.pid).children()
    supervisor.suspend()
    time.sleep(5)
    supervisor.resume()
    assert process.wait(WITHIN_S) == 75
    assert diagnosed(supervised).cause == "time limit"


def test_a_stage_that_was_stopped_and_goes_on_within_its_bound_is_no_stall(supervised):
    script = supervised.script("steps.py", STEPS)
    process = supervised.start("--stall-after", "4", command=[sys.executable, script])
    supervised.wait_for("step 3\n")
    (training,) = [one for one in supervised.processes() if one.cmdline()[1:] == [script]]
    training.suspend()
    time.sleep(2)
    training.resume()
    assert process.wait(WITHIN_S) == 0
    assert len(supervised.attempt()["tries"]) == 1


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S], ids=["forward", "back"])
def test_a_clock_that_jumps_changes_nothing(supervised, jump_s):
    supervised.script("sitecustomize.py", JUMPY)
    supervised.environment["PYTHONPATH"] = f"{supervised.folder}:{supervised.environment['PYTHONPATH']}"
    script = supervised.script("steps.py", STEPS)
    options = ("--stall-after", "3", "--deadline", "60")
    process = supervised.start(*options, command=[sys.executable, script])
    supervised.wait_for("step 3\n")
    (supervised.folder / "jump").write_text(str(jump_s))
    assert process.wait(WITHIN_S) == 0
    attempt = supervised.attempt()
    assert (attempt["code"], attempt["stop"], len(attempt["tries"])) == (0, None, 1)
    assert diagnosed(supervised).state == "complete"


def test_of_many_started_together_one_runs(supervised):
    started = [supervised.start(command=["sh", "-c", "echo ran >> ran; sleep 3"]) for _ in range(6)]
    assert sorted(process.wait(WITHIN_S) for process in started) == [0, 2, 2, 2, 2, 2]
    assert (supervised.folder / "ran").read_text() == "ran\n"
    assert sorted(os.listdir(supervised.folder / "run/attempts")) == ["0001.json"]


def interrupted(supervised: Supervised) -> list[Path]:
    """A training that was told to stop; returns its checkpoints, newest first."""
    process = supervised.start(command=stage("--pause", "0.1"))
    folder = supervised.folder / "run/checkpoints"
    supervised.wait_until(lambda: list(folder.glob("*/step-*10.safetensors")), WITHIN_S, "the second checkpoint")
    process.send_signal(signal.SIGTERM)
    assert process.wait(WITHIN_S) == 75
    return sorted(folder.glob("*/step-*.safetensors"), reverse=True)


def model(folder: Path) -> dict[str, list]:
    """The trained weights."""
    return {name: tensor.tolist() for name, tensor in read_tensors(folder / "model.safetensors")[0].items()}


def test_a_truncated_checkpoint_is_said_and_the_one_before_it_taken(supervised):
    assert supervised.start(command=stage("--out", "undisturbed"), run="other").wait(WITHIN_S) == 0
    newest, before = interrupted(supervised)
    os.truncate(newest, newest.stat().st_size // 2)
    code, said = supervised.run(command=stage(), within_s=WITHIN_S)
    assert code == 0
    assert f"{newest.name}: damaged" in said
    assert f"goes on from step {int(before.stem.removeprefix('step-'))}" in said
    assert model(supervised.folder / "out") == model(supervised.folder / "undisturbed")


def test_a_foreign_checkpoint_is_refused(supervised):
    newest, _ = interrupted(supervised)
    newest.parent.rename(newest.parent.with_name("toy-another-run-1234"))
    code, said = supervised.run(command=stage("--identity", "another-run-1234"), within_s=WITHIN_S)
    assert code == 2
    assert "belongs to run 0123456789ab; allowed: run another-run-; move it away" in said
    assert supervised.attempt(2)["stages"][0]["kind"] == "CheckpointError"
