"""The verbs: parse and call. Open it to add one; nothing here imports torch before a stage runs."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import assay
from assay.doctor import add_doctor
from assay.errors import ConfigError
from assay.images.verb import add_image
from assay.matrix import verbs as matrix_verbs
from assay.matrix.plan_verb import add_plan
from assay.rented import add_stop
from assay.reports.verb import add_report
from assay.stages import stage, verify
from assay.studies import study_config, study_names, study_params

EXIT_CODES = """\
exit codes:
  0   complete
  1   failed
  2   bad usage or configuration: one line says where, what was given, what is allowed, what to do
  75  stopped on request or by the deadline; the same command goes on from its checkpoint, if it has saved one
  76  stalled, and again after a new start, or the run's folder does not answer: try another node
  130 interrupted (Ctrl-C); 141 the reader of its output has gone
"""


SHELLS = ("bash", "zsh", "tcsh", "fish")


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line."""

    def error(self, message: str) -> NoReturn:
        """Print it and exit with code 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


class PrintCompletion(argparse.Action):
    """Imports the maker of completion scripts, 20 ms, only when one is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> None:
        """Print the script for the shell named, and exit."""
        import shtab

        print(shtab.complete(parser, given[1]))
        parser.exit()


def run(arguments: list[str]) -> int:
    """Parse the command line and call the verb; returns its exit code."""
    parser = build_parser()
    parsed, rest = parser.parse_known_args(arguments)
    if rest and parsed.verb not in ("stage", "verify"):
        parser.error(f"unrecognised arguments: {' '.join(rest)}")
    verb: Callable[..., int] = parsed.call
    return verb(parsed, rest)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="assay", description=assay.__doc__, epilog=EXIT_CODES, formatter_class=layout)
    parser.add_argument("--version", action="version", version=f"assay {assay.__version__}")
    completion = "print a completion script for this shell and exit"
    parser.add_argument("--print-completion", choices=SHELLS, action=PrintCompletion, help=completion)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, add in VERBS.items():
        text = add.__doc__ or ""
        verb = verbs.add_parser(
            name,
            help=text.partition("\n\n")[0],
            description=text,
            epilog=EXIT_CODES,
            formatter_class=layout,
            allow_abbrev=False,  # --seed is a key of the parameters, not short for --seed-of-interruption
        )
        add(verb)
    return parser


def _add_stage(verb: argparse.ArgumentParser) -> None:
    """Run one stage of a study in this process; it is what dvc.yaml calls.

    Every key of the parameter file can be given anew: --train.optimizer.lr 1e-3. A value is read as YAML.
    The resolved parameters of the run are written to results/STAGE/params.json, nulls too.

    examples:
      assay stage asl train --params params.yaml
      assay stage asl train --train.steps 100 --model.hidden_sizes [16,32]
      assay stage asl predict --predict.bids study/ --predict.output derivatives/
      assay stage asl train --keys          every key with its type, unit and meaning
    """
    verb.add_argument("study", metavar="STUDY", choices=study_names(), help=f"one of: {', '.join(study_names())}")
    verb.add_argument("stage", metavar="STAGE", help="a stage of the study's pipeline, e.g. train")
    _add_params(verb)
    verb.add_argument("--keys", action="store_true", help="list the keys this stage reads, and exit")
    together = "how many processes train one network together; default: ASSAY_PROCESSES, else 1"
    verb.add_argument("--processes", metavar="N", type=int, help=together)
    stacked = "train the runs that this file names in one pass; `assay submit --stack` writes it"
    verb.add_argument("--stack", metavar="FILE", type=Path, help=stacked)
    verb.set_defaults(call=stage)


def _add_check(verb: argparse.ArgumentParser) -> None:
    """Validate parameter files and say what they would run.

    examples:
      assay check asl params.yaml
      assay check burgers studies/burgers/params.yaml --json
    """
    verb.add_argument("study", metavar="STUDY", choices=study_names(), help=f"one of: {', '.join(study_names())}")
    verb.add_argument("files", metavar="FILE", nargs="+", type=Path, help="parameter files")
    verb.add_argument("--json", action="store_true", help="print JSON instead of text")
    verb.set_defaults(call=check)


def _add_schema(verb: argparse.ArgumentParser) -> None:
    """Print the JSON Schema of a study's parameter file, for completion and checks in an editor.

    example:
      assay schema asl > docs/schema/asl.json
    """
    verb.add_argument("study", metavar="STUDY", choices=study_names(), help=f"one of: {', '.join(study_names())}")
    verb.set_defaults(call=schema)


def _add_results(verb: argparse.ArgumentParser) -> None:
    """Show the metrics and summary tables that the stages wrote below a folder.

    example:
      assay results
    """
    verb.add_argument(
        "folder", metavar="FOLDER", nargs="?", default=Path("results"), type=Path, help="default: results"
    )
    verb.add_argument("--json", action="store_true", help="print JSON instead of tables")
    verb.set_defaults(call=results)


def _add_exec(verb: argparse.ArgumentParser) -> None:
    """Supervise any command: progress, stalls, deadline, resources, and a record of the attempt.

    The command is stopped in time for its deadline, which comes from --deadline, from Slurm or LSF, or from the machine
    file. One that stalls is ended, with the stacks of its processes on record, and started once more.
    SIGTERM, SIGINT and SIGUSR1 ask it to save and stop; a second one ends it at once. The exit code is the command's
    own, 75 if it stopped on request or for the deadline, saved or not, 76 if it stalled.

    examples:
      assay exec -- dvc repro
      assay exec --run runs/asl/baseline/0 --deadline 21600 -- dvc repro
      assay exec --stall-after 900 -- ./any-script.sh
    """
    unnamed = "the run's folder; default: .assay/runs/exec/TIME/PID"
    verb.add_argument("--run", metavar="DIR", type=_named_folder, help=unnamed)
    verb.add_argument("--deadline", metavar="SECONDS", type=float, help="how long the command may take")
    verb.add_argument("--stall-after", metavar="SECONDS", type=float, help="how long any phase may be silent")
    verb.add_argument("--grace", metavar="SECONDS", type=float, help="from a request to stop to its enforcement")
    verb.add_argument("--machine", metavar="FILE", type=Path, help="a machine file, e.g. machines/local.yaml")
    verb.add_argument("command", metavar="-- COMMAND", nargs=argparse.REMAINDER, help="what to run, after --")
    verb.set_defaults(call=execute)


def _named_folder(text: str) -> Path:
    """An empty name would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("got an empty name; allowed: a folder, e.g. runs/asl/baseline/0; name one")
    return Path(text)


def _add_verify(verb: argparse.ArgumentParser) -> None:
    """Train a few steps twice, and once more with an interruption, and compare everything bit for bit.

    Names the first step and tensor that differ. Nothing is written to results, checkpoints or logs.
    The steps are the first of the whole schedule; keys of the parameter file can be given anew as for `assay stage`.

    examples:
      assay verify asl train
      assay verify asl train --steps 50 --train.device cpu --json
      assay verify asl train --seed-of-interruption 7      the interruption of an earlier call
    """
    verb.add_argument("study", metavar="STUDY", choices=study_names(), help=f"one of: {', '.join(study_names())}")
    verb.add_argument("stage", metavar="STAGE", help="a stage that trains")
    _add_params(verb)
    verb.add_argument("--steps", metavar="K", type=int, default=20, help="optimiser steps to compare; default 20")
    verb.add_argument("--seed-of-interruption", metavar="R", type=int, help="draws the step; default: a new one")
    verb.add_argument("--json", action="store_true", help="print JSON instead of text")
    verb.set_defaults(call=verify)


VERBS = {
    "exec": _add_exec,
    "stage": _add_stage,
    "check": _add_check,
    "plan": add_plan,
    "schema": _add_schema,
    "results": _add_results,
    "verify": _add_verify,
    "report": add_report,
    "image": add_image,
    "doctor": add_doctor,
    **matrix_verbs.VERBS,
    "stop": add_stop,
}


def _add_params(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--params", metavar="FILE", type=Path, default=Path("params.yaml"), help="parameter file; default params.yaml"
    )


def execute(parsed: argparse.Namespace, rest: list[str]) -> int:
    """Supervise a command."""
    from assay.machine import MachineConfig, load_machine
    from assay.runs import execute as execution

    command = parsed.command[1:] if parsed.command[:1] == ["--"] else parsed.command
    if not command:
        raise ConfigError("exec: got no command; allowed: assay exec [options] -- COMMAND; give one after --")
    machine = MachineConfig() if parsed.machine is None else load_machine(parsed.machine)
    machine = execution.watched(machine, parsed.stall_after, parsed.grace)
    return execution.execute(command, parsed.run, parsed.deadline, machine)


def check(parsed: argparse.Namespace, rest: list[str]) -> int:
    """Validate files; prints one line per valid file and one per problem."""
    from assay.config import resolved

    config = study_config(parsed.study)
    found: list[dict[str, Any]] = []
    for path in parsed.files:
        try:
            params = study_params(parsed.study, path)
        except ConfigError as error:
            found.append({"file": str(path), "valid": False, "problems": str(error).splitlines()})
            continue
        runs = config.describe(params)
        found.append({"file": str(path), "valid": True, "runs": runs, "params": resolved(params)})
    if parsed.json:
        print(json.dumps(found, indent=2))
    for item in [] if parsed.json else found:
        for line in [f"{item['file']}: valid; {item['runs']}"] if item["valid"] else item["problems"]:
            print(line, file=sys.stdout if item["valid"] else sys.stderr)
    return 0 if all(item["valid"] for item in found) else ConfigError.exit_code


def schema(parsed: argparse.Namespace, rest: list[str]) -> int:
    """Print the JSON Schema of a study."""
    from assay.config import json_schema

    print(json.dumps(json_schema(study_config(parsed.study).Params, parsed.study), indent=2))
    return 0


def results(parsed: argparse.Namespace, rest: list[str]) -> int:
    """Print what the stages found."""
    from assay.reports.tables import collect, show
    from assay.runs.record import finite

    found = collect(parsed.folder)
    if parsed.json:
        print(json.dumps(finite(found), indent=2, allow_nan=False))
    else:
        show(found)
    return 0
