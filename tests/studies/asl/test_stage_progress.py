"""What a stage tells its supervisor, and how it ends when asked to; the supervisor here is a bare socket."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assay.config.load import resolved
from assay.errors import Unfinished
from assay.studies.asl import dataset, predict, sensitivity, simulate, train, validate

Message = dict[str, Any]
ASSAY = [sys.executable, "-m", "assay"]


class Supervised:
    """A stage run to its end: its exit code, what it printed and what it told.

    `stop_at` sees each message; after the first one for which it is true the stage is asked to stop, or left alone.
    """

    def __init__(
        self, folder: Path, command: list[str], stop_at: Callable[[Message], bool] | None = None, hang_up: bool = False
    ) -> None:
        address = folder / "socket"
        address.unlink(missing_ok=True)
        self.told: list[Message] = []
        self.hang_up = hang_up
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
            server.bind(str(address))
            server.listen()
            server.settimeout(60)
            environment = {**os.environ, "ASSAY_PROGRESS": str(address)}
            with (folder / "said").open("w") as said:
                process = subprocess.Popen(command, cwd=folder, env=environment, stderr=said)
            connection, _ = server.accept()
            with connection:
                self._listen(connection, stop_at)
        self.code = process.wait()
        self.said = (folder / "said").read_text()

    def _listen(self, connection: socket.socket, stop_at: Any) -> None:
        connection.settimeout(60)
        asked = stop_at is None
        while message := connection.recv(2**20):
            self.told.append(json.loads(message))
            if not asked and stop_at(self.told[-1]):
                asked = True
                if self.hang_up:
                    return
                connection.send(b"{}")

    def phases(self) -> list[str]:
        """Begins and ends of phases in order, as `train(` and `)train`."""
        marks = {"phase": "{}(", "end": "){}"}
        return [marks[m["type"]].format(m["phase"]) for m in self.told if m["type"] in marks]


def prepare(folder: Path, params: Any, stage: str) -> list[str]:
    """The command of a stage with these parameters."""
    (folder / "params.json").write_text(json.dumps(resolved(params)))
    return [*ASSAY, "stage", "asl", stage, "--params", "params.json"]


def within(phase: str) -> Callable[[Message], bool]:
    """Once the phase has begun."""
    return lambda message: message["type"] == "phase" and message["phase"] == phase


def stepping(message: Message) -> bool:
    """Once a training step has been done."""
    return bool(message["type"] == "step" and message["phase"] == "train")


def test_training_tells_its_stage_parameters_phases_and_end(make_params, tmp_path):
    params = make_params("data.source=simulated")
    run = Supervised(tmp_path, prepare(tmp_path, params, "train"))
    assert run.code == 0, run.said
    assert run.told[0]["type"] == "hello"
    assert run.told[-1] == {"type": "verdict", "code": 0, "error": None, "kind": None}
    stages = [m for m in run.told if m["type"] == "stage"]
    assert {(m["study"], m["stage"]) for m in stages} == {("asl", "train")}
    facts = {name: value for m in stages for name, value in m["facts"].items()}
    assert facts["params"] == json.loads(json.dumps(resolved(params)))
    assert len(facts["identity"]) == 64 and facts["data"]

    unit = ["validate(", ")validate", "checkpoint(", ")checkpoint"]
    start = ["import(", ")import", "load(", ")load", "validate(", ")validate"]
    assert run.phases() == [*start, "train(", *unit, *unit, ")train"]
    begun = next(m for m in run.told if within("train")(m))
    assert (begun["of"], begun["done"], begun["unit"]) == (4, 0, "steps")
    ended = next(m for m in run.told if m["type"] == "end" and m["phase"] == "train")
    assert ended["done"] == 4 and ended["epoch"] == 0.5 and ended["loss"] > 0


def test_a_request_to_stop_ends_training_with_a_checkpoint_from_which_it_goes_on(make_params, tmp_path):
    params = make_params("data.source=simulated", "train.steps=2000", "train.checkpoint_every=1000000")
    stopped = Supervised(tmp_path, prepare(tmp_path, params, "train"), stepping)
    assert stopped.code == 75 and "the same command goes on from there" in stopped.said
    verdict = stopped.told[-1]
    assert (verdict["type"], verdict["code"], verdict["kind"]) == ("verdict", 75, "Unfinished")
    again = Supervised(tmp_path, prepare(tmp_path, params, "train"), stepping)
    begun = next(m for m in again.told if within("train")(m))
    assert again.code == 75 and begun["of"] == 2000 and begun["done"] > 0


def test_a_request_to_stop_ends_simulation_with_nothing_written(make_params, tmp_path):
    params = make_params("data.phantoms=4000", "data.path=there/data")
    (tmp_path / "there").mkdir()
    run = Supervised(tmp_path, prepare(tmp_path, params, "simulate"), within("simulate"))
    assert run.code == 75 and run.told[-1]["code"] == 75
    assert "of 4000 phantoms; it starts anew next time" in run.said
    assert list((tmp_path / "there").iterdir()) == [] and not (tmp_path / "results").exists()


def test_a_supervisor_that_dies_ends_training_with_a_checkpoint(make_params, tmp_path):
    params = make_params("data.source=simulated", "train.steps=2000", "train.checkpoint_every=1000000")
    run = Supervised(tmp_path, prepare(tmp_path, params, "train"), stepping, hang_up=True)
    assert run.code == 75 and list(tmp_path.glob(".assay/checkpoints/*/step-*.safetensors"))


@pytest.mark.parametrize(
    ("change", "code", "kind", "message"),
    [
        ({"seed": -1}, 2, "ConfigError", "seed: got -1"),
        ({}, 2, "DataError", "run the simulate stage"),
    ],
)
def test_a_refusal_is_told_with_its_code_kind_and_message(change, code, kind, message, make_params, tmp_path):
    command = prepare(tmp_path, make_params(), "train")
    params = json.loads((tmp_path / "params.json").read_text())
    (tmp_path / "params.json").write_text(json.dumps(params | change))
    run = Supervised(tmp_path, command)
    verdict = run.told[-1]
    assert (run.code, verdict["code"], verdict["kind"]) == (code, code, kind)
    assert message in verdict["error"] and message in run.said
    assert any(m["type"] == "stage" and m["stage"] == "train" for m in run.told)


@pytest.mark.parametrize(
    ("raised", "code", "kind"),
    [("ZeroDivisionError('x' * 10**6)", 1, "ZeroDivisionError"), ("SystemExit(143)", 143, "SystemExit")],
)
def test_what_nobody_expected_is_told_and_goes_on_to_a_traceback(raised, code, kind, make_params, tmp_path):
    prepare(tmp_path, make_params(), "simulate")
    (tmp_path / "broken.py").write_text(
        "import sys\nfrom assay.__main__ import main\nfrom assay.studies.asl import simulate\n"
        f"def run(params): raise {raised}\nsimulate.run = run\n"
        "sys.exit(main(['stage', 'asl', 'simulate', '--params', 'params.json']))\n"
    )
    run = Supervised(tmp_path, [sys.executable, "broken.py"])
    assert (run.code, run.told[-1]["code"], run.told[-1]["kind"]) == (code, code, kind)
    assert ("Traceback" in run.said) == (kind == "ZeroDivisionError")


def test_importing_torch_is_a_phase_so_that_a_hang_there_is_known(make_params, tmp_path):
    command = prepare(tmp_path, make_params(), "train")
    (tmp_path / "torch.py").write_text("raise SystemExit(7)\n")
    command[1:3] = ["-c", "import sys; sys.path.insert(0, '.'); from assay.__main__ import main; sys.exit(main())"]
    run = Supervised(tmp_path, command)
    assert run.code == 7 and run.phases() == ["import(", ")import"]


def test_a_verb_that_is_no_stage_tells_nothing(make_params, tmp_path):
    prepare(tmp_path, make_params(), "train")
    code = "import sys; from assay.__main__ import main; main(['check', 'asl', 'params.json']); main(sys.argv[1:])"
    run = Supervised(tmp_path, [sys.executable, "-c", code, "stage", "asl", "nonsense"])
    assert [m["type"] for m in run.told] == ["hello", "verdict"] and run.told[-1]["code"] == 2


@pytest.fixture
def after_first(monkeypatch) -> Callable[[Any, str, signal.Signals], None]:
    """A signal to this process once the named function of a module has been called."""

    def arrange(module: Any, name: str, number: signal.Signals) -> None:
        original = getattr(module, name)
        first = iter([True])

        def call(*inputs: Any, **named: Any) -> Any:
            result = original(*inputs, **named)
            if next(first, False):
                os.kill(os.getpid(), number)
            return result

        monkeypatch.setattr(module, name, call)

    return arrange


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_stops_each_stage_at_its_next_boundary_with_nothing_half_written(
    number, make_params, tmp_path, monkeypatch, after_first
):
    monkeypatch.chdir(tmp_path)
    params = make_params("data.source=simulated")
    train.run(params)
    after_first(validate, "score_maps", number)
    with pytest.raises(Unfinished, match=r"validate: stopped at 1 of 2 evaluations; it starts anew next time"):
        validate.run(params)
    assert not list((tmp_path / "results/validate").glob("*.[cj]s*"))
    after_first(sensitivity, "respond", number)
    with pytest.raises(Unfinished, match=r"sensitivity: stopped at 1 of 4 estimators; it starts anew next time"):
        sensitivity.run(params)
    assert not (tmp_path / "results/sensitivity").exists()


def test_a_signal_stops_simulation_and_the_data_set_that_stood_there_stays(make_params, tmp_path, after_first):
    simulate.run(make_params())
    before = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    after_first(dataset, "simulate_block", signal.SIGTERM)
    with pytest.raises(Unfinished, match="simulate: stopped at 128 of 300 phantoms"):
        simulate.run(make_params("data.phantoms=300"))
    assert {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_signal_during_the_last_unit_lets_the_stage_finish(make_params, tmp_path, after_first):
    after_first(dataset, "simulate_block", signal.SIGTERM)
    simulate.run(make_params())
    assert (tmp_path / "data" / "manifest.json").exists()


def test_predict_stops_between_two_series_and_the_first_is_complete(
    make_params, bids_dataset, tmp_path, monkeypatch, after_first
):
    monkeypatch.chdir(tmp_path)
    raw = bids_dataset(plds=(500.0, 1000.0, 1500.0, 2000.0, 2500.0, 3000.0))
    for subject in ("sub-01", "sub-02"):
        raw.write_joint(folder=f"{subject}/perf", subject=subject)
    params = make_params("data.source=simulated", f"predict.bids={raw.root}", "predict.output=maps")
    train.run(params)
    after_first(predict, "write_maps", signal.SIGUSR1)
    with pytest.raises(Unfinished, match="predict: stopped at 1 of 2 series"):
        predict.run(params)
    assert (tmp_path / "maps/sub-01/perf/sub-01_desc-assayQuality.png").exists()
    assert not (tmp_path / "maps/sub-02").exists()
