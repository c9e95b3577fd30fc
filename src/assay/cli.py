"""The verbs: parse and call. Open it to add one; nothing here imports torch before a stage runs."""

import argparse
import dataclasses
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import assay
from assay.errors import ConfigError
from assay.studies import study_config, study_names

EXIT_CODES = """\
exit codes:
  0   complete
  1   failed
  2   bad usage or configuration: one line says where, what was given, what is allowed, what to do
  75  stopped on request with a checkpoint; the same command goes on from there
"""


def run(arguments: list[str]) -> int:
    """Parse the command line and call the verb; returns its exit code."""
    parser = build_parser()
    parsed, rest = parser.parse_known_args(arguments)
    if rest and parsed.verb != "stage":
        parser.error(f"unrecognised arguments: {' '.join(rest)}")
    verb: Callable[..., int] = parsed.call
    return verb(parsed, rest)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    import shtab

    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="assay", description=assay.__doc__, epilog=EXIT_CODES, formatter_class=layout)
    parser.add_argument("--version", action="version", version=f"assay {assay.__version__}")
    shtab.add_argument_to(parser, "--print-completion", help="print a completion script for this shell and exit")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, add in VERBS.items():
        text = add.__doc__ or ""
        verb = verbs.add_parser(
            name, help=text.partition("\n\n")[0], description=text, epilog=EXIT_CODES, formatter_class=layout
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
    verb.set_defaults(call=stage)


def _add_check(verb: argparse.ArgumentParser) -> None:
    """Validate parameter files and say what they would run.

    examples:
      assay check asl params.yaml
      assay check asl arms/*.yaml --json
    """
    verb.add_argument("study", metavar="STUDY", choices=study_names(), help=f"one of: {', '.join(study_names())}")
    verb.add_argument("files", metavar="FILE", nargs="+", type=Path, help="parameter files")
    verb.add_argument("--json", action="store_true", help="print JSON instead of text")
    verb.set_defaults(call=check)


def _add_plan(verb: argparse.ArgumentParser) -> None:
    """Resolve and validate every arm x seed of a study file, and show what differs from the baseline.

    Nothing is run. Arms that would run exactly the same are named.

    example:
      assay plan study.yaml
    """
    verb.add_argument("file", metavar="STUDY.yaml", type=Path, help="a study file")
    verb.add_argument("--json", action="store_true", help="print JSON instead of a table")
    verb.set_defaults(call=plan)


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


VERBS = {
    "stage": _add_stage,
    "check": _add_check,
    "plan": _add_plan,
    "schema": _add_schema,
    "results": _add_results,
}


def _add_params(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--params", metavar="FILE", type=Path, default=Path("params.yaml"), help="parameter file; default params.yaml"
    )


def stage(parsed: argparse.Namespace, rest: list[str]) -> int:
    """Run one stage; the stage's module is the one of its name in the study's package."""
    config = study_config(parsed.study)
    if parsed.stage not in config.STAGES:
        allowed = ", ".join(config.STAGES)
        raise ConfigError(f"stage: got {parsed.stage}; allowed for study {parsed.study}: {allowed}")
    if parsed.keys:
        return _print_keys(config, config.STAGES[parsed.stage])
    from assay.config import load

    params = load(config.Params, parsed.params, _overrides(rest))
    importlib.import_module(f"assay.studies.{parsed.study}.{parsed.stage}").run(params)
    _record(params, Path("results") / parsed.stage / "params.json")
    return 0


def check(parsed: argparse.Namespace, rest: list[str]) -> int:
    """Validate files; prints one line per valid file and one per problem."""
    from assay.config import load, resolved

    config = study_config(parsed.study)
    found: list[dict[str, Any]] = []
    for path in parsed.files:
        try:
            params = load(config.Params, path)
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


def plan(parsed: argparse.Namespace, rest: list[str]) -> int:
    """Show the arms of a study file."""
    from assay.matrix import plan as planning

    planned = planning.plan(parsed.file)
    if parsed.json:
        print(json.dumps([dataclasses.asdict(arm) for arm in planned], indent=2))
    else:
        planning.show(planned)
    return 0


def schema(parsed: argparse.Namespace, rest: list[str]) -> int:
    """Print the JSON Schema of a study."""
    from assay.config import json_schema

    print(json.dumps(json_schema(study_config(parsed.study).Params, parsed.study), indent=2))
    return 0


def results(parsed: argparse.Namespace, rest: list[str]) -> int:
    """Print what the stages found."""
    from assay.reports.tables import collect, show

    found = collect(parsed.folder)
    if parsed.json:
        print(json.dumps(found, indent=2))
    else:
        show(found)
    return 0


def _overrides(rest: list[str]) -> list[str]:
    """`--a.b value` and `--a.b=value` as `a.b=value`."""
    overrides: list[str] = []
    items = iter(rest)
    for item in items:
        if not item.startswith("--"):
            raise ConfigError(f"{item}: got a word where a --key was expected; allowed: --dotted.key value")
        key, sign, value = item[2:].partition("=")
        overrides.append(f"{key}={value}" if sign else f"{key}={_next(items, key)}")
    return overrides


def _next(items: Any, key: str) -> str:
    try:
        return str(next(items))
    except StopIteration:
        raise ConfigError(f"--{key}: got no value; allowed: --{key} VALUE") from None


def _print_keys(config: ModuleType, keys: tuple[str, ...]) -> int:
    from assay.config.schema import key_help

    for key, allowed, text in key_help(config.Params):
        if any(f"{key}.".startswith(f"{wanted}.") for wanted in keys):
            print(f"{key}\n    {allowed}\n    {text}")
    return 0


def _record(params: Any, path: Path) -> None:
    from assay.config import resolved
    from assay.files import write_bytes

    write_bytes(path, (json.dumps(resolved(params), indent=2) + "\n").encode())
