"""The verb `assay plan`: parse and call; open it to give it another option."""

import argparse
import json
import shlex
from pathlib import Path

PILOT_MINUTES = 10.0


def add_plan(verb: argparse.ArgumentParser) -> None:
    """Resolve and validate every arm x seed of a study file; show what differs, and what it will take.

    Everything that is wrong is listed at once, as soon as no key is missing and every value is of its type. Arms that
    would run exactly the same are named. The forecast is learnt from the runs that there are; nothing is run unless
    --pilot or --probe asks for it.

    examples:
      assay plan study.yaml
      assay plan study.yaml --only '1*' --json
      assay plan study.yaml --pilot         measure a few steps of every shape that no run tells about
      assay plan study.yaml --probe         which arms change nothing in their first steps?
    """
    verb.add_argument("file", metavar="STUDY.yaml", type=Path, help="a study file")
    verb.add_argument("--only", metavar="GLOB", help="arms whose names match, e.g. 'unet_*'")
    verb.add_argument("--machine", metavar="FILE", type=Path, help="a machine file; default: the study's")
    pilot = f"run every shape that is not known for a few steps, here, for {PILOT_MINUTES:g} minutes or so many at most"
    verb.add_argument("--pilot", metavar="MINUTES", type=float, nargs="?", const=PILOT_MINUTES, help=pilot)
    verb.add_argument("--probe", action="store_true", help="train every arm for a few steps on tiny data, and compare")
    verb.add_argument("--json", action="store_true", help="print JSON instead of a table")
    verb.set_defaults(call=plan)


def plan(parsed: argparse.Namespace, rest: list[str]) -> int:
    """Show the arms of a study file."""
    from assay.matrix import plan as planning
    from assay.matrix.arms import resolve
    from assay.matrix.forecast.forecast import forecast, machine_of
    from assay.matrix.verbs import say

    resolved = resolve(parsed.file, parsed.only)
    machine = machine_of(parsed.file, resolved, parsed.machine)
    if parsed.pilot is not None:
        from assay.matrix.forecast.pilot import pilot

        pilot(parsed.file, resolved, machine, parsed.pilot, say)
    inert: dict[str, str] = {}
    if parsed.probe:
        from assay.matrix.forecast.probe import probe

        inert = probe(parsed.file, resolved, say)
    found = forecast(parsed.file, resolved, machine)
    if parsed.json:
        print(json.dumps(planning.as_json(parsed.file, resolved, found, inert), indent=2))
    else:
        given = {"--only": parsed.only, "--machine": parsed.machine}
        options = "".join(f" {name} {shlex.quote(str(value))}" for name, value in given.items() if value is not None)
        planning.show(parsed.file, resolved, found, inert, options)
    return 0
