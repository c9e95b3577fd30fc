"""The command line as a person meets it: verbs, exit codes, one-line refusals, quick starts."""

import json
import os
import re
import statistics
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import assay
from assay import errors
from assay.__main__ import main
from assay.cli import EXIT_CODES
from assay.cli import VERBS as VERB_TEXTS
from assay.progress import STALLED

ROOT = Path(__file__).parents[1]
PARAMS = ROOT / "params.yaml"
VERBS = [
    "exec",
    "stage",
    "check",
    "plan",
    "schema",
    "results",
    "submit",
    "status",
    "logs",
    "cancel",
    "verify",
    "report",
]


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"assay {assay.__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_a_summary_an_example_and_the_exit_codes(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"assay {verb} " in text and "exit codes:" in text and "example" in text


@pytest.mark.parametrize("verb", VERBS)
def test_the_files_of_the_examples_are_there(verb):
    """From the top of the repository; a run's folder is that of an arm and a seed of the default study."""
    text = VERB_TEXTS[verb].__doc__ or ""
    words = {word for line in text.splitlines() if "  assay " in f"  {line}" for word in line.split()}
    assert all((ROOT / word).is_file() for word in words if word.endswith(".yaml"))
    study = YAML(typ="safe").load(ROOT / "study.yaml")
    for word in words if verb in ("status", "logs") else ():
        if word.startswith("runs/"):
            name, arm, seed = [*word.split("/")[1:], "02_full", "0"][:3]
            assert (name, arm in study["arms"], int(seed) in study["seeds"]) == (study["name"], True, True)


def test_help_says_where_the_record_of_a_command_without_a_run_is(capsys):
    with pytest.raises(SystemExit):
        main(["exec", "--help"])
    assert "default: .assay/runs/exec/TIME/PID" in " ".join(capsys.readouterr().out.split())


def test_the_manual_has_every_exit_code():
    manual = (ROOT / "docs/configuration.md").read_text().partition("## Exit codes")[2]
    codes = {each.exit_code for each in vars(errors).values() if isinstance(each, type)}
    for code in codes | {0, int(STALLED), *map(int, re.findall(r"\b\d+\b(?= )", EXIT_CODES))}:
        assert f"\n| {code} | " in manual, code


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_without_a_model_starts_in_half_a_second_and_without_torch(verb):
    """Median of five starts, for the machine may be busy."""

    def start() -> float:
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-m", "assay", verb, "--help"], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - begun

    assert statistics.median(start() for _ in range(5)) < 0.5


def test_validating_parameters_does_not_import_torch():
    code = (
        "import sys; from assay.__main__ import main; "
        f"code = main(['check', 'asl', {str(PARAMS)!r}]); sys.exit(code or ('torch' in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_completion_scripts_are_printed(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--print-completion", "bash"])
    assert ended.value.code == 0
    assert "complete" in capsys.readouterr().out


def test_check_says_what_a_file_would_run(capsys):
    assert main(["check", "asl", str(PARAMS)]) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"{PARAMS}: valid; homogeneous") and "steps" in line and "epochs" in line


def test_check_lists_every_problem_of_every_file(tmp_path, capsys):
    bad = tmp_path / "bad.yaml"
    bad.write_text(PARAMS.read_text().replace("seed: 0", "sede: 0").replace("lesions:", "lesion:"))
    assert main(["check", "asl", str(PARAMS), str(bad)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert any("did you mean seed?" in line for line in lines)
    assert all(line.startswith(f"{bad}: ") for line in lines)


def test_check_as_json(capsys):
    assert main(["check", "asl", str(PARAMS), "--json"]) == 0
    (item,) = json.loads(capsys.readouterr().out)
    assert item["valid"] and item["params"]["model"]["first_norm"] is None


def test_a_wrong_key_ends_with_2_one_line_and_nothing_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["stage", "asl", "train", "--params", str(PARAMS), "--model.hiden_sizes", "[8, 16]"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "did you mean model.hidden_sizes?" in error and "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", [["stage", "burgers", "simulate", "--params"], ["check", "burgers"]])
def test_parameters_of_another_study_are_named_in_one_line(verb, capsys):
    assert main([*verb, str(PARAMS)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "got the parameters of asl; allowed: those of burgers; give its file, or the command in its folder" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stage", "asl", "trian"], "stage: got trian; allowed for study asl: simulate, train, validate"),
        (["stage", "asl", "train", "--seed"], "--seed: got no value; allowed: --seed VALUE"),
        (["stage", "asl", "train", "seed", "1"], "got a word where a --key was expected"),
        (["stage", "asl", "train", "--processes", "2"], "got 2 processes; allowed: 1, .*; give no --processes"),
        (["results", "nowhere"], "nowhere: got no results"),
    ],
)
def test_user_errors_end_with_2_and_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1


def test_stage_lists_its_keys_with_type_and_meaning(capsys):
    assert main(["stage", "asl", "train", "--keys"]) == 0
    text = capsys.readouterr().out
    assert "train.optimizer.lr\n    a number > 0\n    Learning rate" in text
    assert "evaluation." not in text


def test_the_committed_schema_is_current(capsys):
    assert main(["schema", "asl"]) == 0
    committed = PARAMS.parent / "docs" / "schema" / "asl.json"
    assert json.loads(capsys.readouterr().out) == json.loads(committed.read_text())


@pytest.mark.parametrize("text", ["{", "[1]", "\\x00"])
def test_a_damaged_result_is_refused_in_one_line(text, tmp_path, capsys):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "metrics.json").write_text(text)
    assert main(["results", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "metrics.json" in error and "run the stage again" in error and error.count("\n") == 1


def test_a_ragged_table_is_refused_and_markup_is_text(tmp_path, capsys):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "summary.csv").write_text("a,b\n[/red],2\n")
    assert main(["results", str(tmp_path)]) == 0
    assert "[/red]" in capsys.readouterr().out
    (tmp_path / "train" / "summary.csv").write_text("a,b\n1\n")
    assert main(["results", str(tmp_path)]) == 2
    assert "summary.csv: not a table" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(2, "No such file or directory", "x.csv"), "'x.csv'{place}; correct the path, or run first"),
        (PermissionError(13, "Permission denied", "x.csv"), "'x.csv'{place}; correct its permissions"),
        (OSError(28, "No space left on device"), "device{place}; make room"),
        (TimeoutError("the server did not answer"), "the server did not answer{place}"),
        (BrokenPipeError(32, "worker pipe"), "worker pipe{place}"),
    ],
)
def test_what_the_system_refuses_a_stage_is_told_with_its_place_and_what_may_help(error, said, monkeypatch, capsys):
    stage = "def run(params):\n    raise error\n"
    place = "/lab/src/assay/studies/asl/train.py"
    module = types.ModuleType("train")
    module.error = error
    exec(compile(stage, place, "exec"), vars(module))
    monkeypatch.setitem(sys.modules, "assay.studies.asl.train", module)
    assert main(["stage", "asl", "train", "--params", "params.yaml"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said.format(place=f" ({place}:2, in run)") in line


def test_a_reader_that_goes_away_does_not_make_a_verb_complete():
    command = f"{sys.executable} -m assay stage asl train --keys | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode != 0 and "Traceback" not in done.stderr


def test_results_are_shown_as_tables_and_as_json(tmp_path, capsys):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "metrics.json").write_text('{"loss": 0.123456, "steps": 10}')
    (tmp_path / "train" / "summary.csv").write_text("estimator,mae\nnetwork,0.5\n")
    assert main(["results", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "0.1235" in shown and "network" in shown
    assert main(["results", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["train"]["metrics"]["steps"] == 10


def test_numbers_that_are_none_are_null_in_json(tmp_path, capsys):
    def refuse(word):
        raise AssertionError(word)

    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "metrics.json").write_text('{"loss": NaN, "best": [Infinity, 1.5]}')
    assert main(["results", str(tmp_path), "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out, parse_constant=refuse)["train"]["metrics"]
    assert metrics == {"loss": None, "best": [None, 1.5]}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_a_terminal_has_no_letters_for_is_shown_escaped(encoding, tmp_path):
    (tmp_path / "train").mkdir()
    name = "pää→" + os.fsdecode(b"\xff")
    (tmp_path / "train" / "summary.csv").write_bytes(b"estimator,mae\np\xc3\xa4\xc3\xa4\xe2\x86\x92,1\n")
    (tmp_path / name).write_text("{")
    variables = {**os.environ, "PYTHONIOENCODING": encoding}
    for words, code in ((["results", str(tmp_path)], 0), (["check", "asl", name], 2)):
        command = [sys.executable, "-m", "assay", *words]
        done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, check=False)
        said = (done.stdout + done.stderr).decode(encoding)
        assert done.returncode == code and "Traceback" not in said
        assert ("→" if encoding == "utf-8" else "\\u2192") in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["exec", "--run", "", "--", "true"], "assay exec: argument --run: got an empty name; allowed: a folder, e.g."),
        (["stage", "asl"], "assay stage: the following arguments are required: STAGE; see assay stage --help"),
        (["exec", "--deadline", "x", "--", "true"], "assay exec: argument --deadline: invalid float value: 'x'"),
        (["bogus"], "assay: argument VERB: invalid choice: 'bogus' (choose from"),
    ],
)
def test_a_wrong_command_line_is_answered_in_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith(message) and said.count("\n") == 1 and said.endswith("--help\n")
