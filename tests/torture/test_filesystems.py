"""The run's folder on a file system that hangs or is full: the job ends in time all the same, or goes on."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.runs.conftest import Supervised
from tests.torture.places import Hanging, fill, hanging, stage, tiny_disk, unkillable

from assay.engine.checkpoint import read_tensors

pytestmark = pytest.mark.torture

BOUND_S = 2.0
DEADLINE_S = 12.0
END_WITHIN_S = 40.0
"""For two stalled starts, or the last words of a record that no one takes."""
WORK = """
    import sys, time
    from pathlib import Path
    from assay import progress

    with progress.phase("train", total=int(sys.argv[1])) as p:
        for step in range(p.total):
            if progress.stop_requested():
                progress.verdict(75)
                sys.exit(75)
            if len(sys.argv) > 2:
                Path(sys.argv[2]).write_text("kept")
            print("step", step, flush=True)
            time.sleep(0.05)
            p.advance()
"""
IMPATIENT = """
import sys
from assay.runs import journal
journal.BEGIN_WITHIN_S = 3.0
from assay.__main__ import main
sys.exit(main(sys.argv[4:]))
"""


@pytest.fixture(params=[False, True], ids=["killable", "uninterruptible"])
def hung(request, tmp_path) -> Iterator[Hanging]:
    """A folder on FUSE, and whether those who wait for it can be killed."""
    with hanging(tmp_path, deep=request.param) as made:
        yield made


def start(supervised: Supervised, hung: Hanging, *options: str, command: list[str]) -> tuple[subprocess.Popen, dict]:
    """A run in that folder, which hangs from the third step on; and what the record said till then."""
    process = supervised.start(*options, command=command, run=str(hung.folder / "run"))
    log = hung.folder / "run/logs/0001.log"
    supervised.wait_until(lambda: log.exists() and "step 3" in log.read_text(), 60, "step 3")
    attempt = json.loads((hung.folder / "run/attempts/0001.json").read_text())
    hung.hang()
    return process, attempt


def only_unkillable_left(supervised: Supervised, hung: Hanging) -> None:
    """Nothing but what waits for the file system is left, and nothing at all once it answers."""
    deep = len(hung.daemons) == 2
    supervised.wait_until(
        lambda: all(deep and unkillable(one) for one in supervised.processes()), 10, "the end of all but the unkillable"
    )
    hung.answer()
    assert supervised.ended(10)


def test_a_folder_that_does_not_answer_at_the_start_is_given_up(supervised, hung):
    (hung.folder / "run").mkdir()
    hung.hang()
    begun = time.monotonic()
    supervised.prefix = [sys.executable, "-c", IMPATIENT]
    process = supervised.start(command=["true"], run=str(hung.folder / "run"))
    assert process.wait(20) == 76
    assert "no answer in 3 s" in process.stdout.read()
    assert time.monotonic() - begun < 20
    only_unkillable_left(supervised, hung)


def test_a_stage_that_does_not_use_it_goes_on_to_its_end(supervised, hung, report):
    script = supervised.script("work.py", WORK)
    process, _ = start(supervised, hung, "--stall-after", str(BOUND_S), command=[sys.executable, script, "100"])
    begun = time.monotonic()
    assert process.wait(END_WITHIN_S) == 0
    report(f"hung_folder_{'deep' if len(hung.daemons) == 2 else 'plain'}", {"end_s": time.monotonic() - begun})
    assert "the end of the record is missing" in process.stdout.read()
    only_unkillable_left(supervised, hung)


def test_a_stage_that_hangs_with_it_is_a_stall(supervised, hung):
    script = supervised.script("work.py", WORK)
    command = [sys.executable, script, "1000", str(hung.folder / "result")]
    process, _ = start(supervised, hung, "--stall-after", str(BOUND_S), command=command)
    assert process.wait(2 * END_WITHIN_S) == 76
    said = process.stdout.read()
    assert said.count("stalled in train at") == 2
    assert f"work.py:{WORK[: WORK.index('write_text')].count(chr(10)) + 1} " in said
    only_unkillable_left(supervised, hung)


@pytest.mark.parametrize("uses_it", [False, True])
def test_the_deadline_holds(supervised, hung, report, uses_it):
    script = supervised.script("work.py", WORK)
    command = [sys.executable, script, "1000", *([str(hung.folder / "result")] if uses_it else [])]
    process, known = start(supervised, hung, "--deadline", str(DEADLINE_S), command=command)
    assert process.wait(END_WITHIN_S) == 75
    early = known["deadline"] - time.time()
    report(f"deadline_hung_{len(hung.daemons)}_{uses_it}", {"early_s": round(early, 2)})
    assert early > 0
    only_unkillable_left(supervised, hung)


def test_what_was_not_written_while_it_hung_is_written_afterwards(supervised, hung):
    script = supervised.script("work.py", WORK)
    process, _ = start(supervised, hung, command=[sys.executable, script, "200"])
    time.sleep(4)
    hung.answer()
    assert process.wait(END_WITHIN_S) == 0
    run = hung.folder / "run"
    lines = (run / "logs/0001.log").read_text().splitlines()
    assert [line.split()[-1] for line in lines if " step " in line] == [str(step) for step in range(200)]
    assert json.loads((run / "attempts/0001.json").read_text())["code"] == 0


def test_a_full_folder_is_said_and_made_good_when_there_is_room(supervised, tmp_path):
    script = supervised.script("work.py", WORK.replace('"step"', '"x" * 400, "step"'))
    with tiny_disk(tmp_path / "disk", "512k") as disk:
        process = supervised.start(command=[sys.executable, script, "300"], run=str(disk / "run"))
        log = disk / "run/logs/0001.log"
        supervised.wait_until(lambda: log.exists() and "step 3\n" in log.read_text(), 60, "step 3")
        filler = fill(disk)
        time.sleep(4)
        assert process.poll() is None
        written = log.read_text()
        filler.unlink()
        assert process.wait(60) == 0
        steps = [line.split()[-1] for line in log.read_text().splitlines() if " step " in line]
        attempt = json.loads((disk / "run/attempts/0001.json").read_text())
    assert written.count("\n") < 30
    assert steps == [str(step) for step in range(300)]
    assert attempt["code"] == 0
    assert any("No space left on device" in warning for warning in attempt["warnings"])
    assert "No space left on device" in process.stdout.read()
    assert supervised.ended()


def test_a_folder_that_is_full_to_the_end_keeps_the_code(supervised, tmp_path):
    script = supervised.script("work.py", WORK)
    with tiny_disk(tmp_path / "disk", "512k") as disk:
        process = supervised.start(command=[sys.executable, script, "20"], run=str(disk / "run"))
        log = disk / "run/logs/0001.log"
        supervised.wait_until(lambda: log.exists() and "step 3\n" in log.read_text(), 60, "step 3")
        fill(disk)
        assert process.wait(60) == 0
        json.loads((disk / "run/attempts/0001.json").read_text())
    assert "the end of the record is missing" in process.stdout.read()


def test_a_folder_that_is_full_at_the_start_is_one_line(supervised, tmp_path):
    with tiny_disk(tmp_path / "disk", "64k") as disk:
        (disk / "run/attempts").mkdir(parents=True)
        fill(disk)
        process = supervised.start(command=["touch", "started"], run=str(disk / "run"))
        assert process.wait(60) == 2
        said = process.stdout.read()
    assert "No space left on device" in said and len(said.splitlines()) == 1
    assert not (supervised.folder / "started").exists()


def test_a_full_disk_of_checkpoints_fails_the_stage_which_goes_on_later_with_the_same_bits(supervised, tmp_path):
    assert supervised.run(command=stage("--out", "undisturbed"))[0] == 0
    with tiny_disk(tmp_path / "disk", "128k") as disk:
        supervised.environment["ASSAY_CHECKPOINTS"] = str(disk)
        process = supervised.start(command=stage("--pause", "0.2", "--out", "disturbed"), run="full")
        supervised.wait_until(lambda: list(disk.glob("*/step-*5.safetensors")), 60, "the first checkpoint")
        filler = fill(disk)
        assert process.wait(60) == 2
        filler.unlink()
        attempt = json.loads((supervised.folder / "full/attempts/0001.json").read_text())
        again = supervised.start(command=stage("--out", "disturbed"), run="full")
        assert again.wait(60) == 0
        said = again.stdout.read()
    assert "No space left on device); make room, then run it again" in attempt["stages"][0]["error"]
    assert "step 5" in said
    assert model(supervised.folder / "disturbed") == model(supervised.folder / "undisturbed")


def model(folder: Path) -> dict[str, list]:
    """The trained weights."""
    return {name: tensor.tolist() for name, tensor in read_tensors(folder / "model.safetensors")[0].items()}
