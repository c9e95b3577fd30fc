"""The verbs that run a study: submit, status, logs, cancel; parse and call. Open it to give one another option."""

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.errors import ConfigError

if TYPE_CHECKING:
    from assay.matrix.submit import Decision, Study
    from assay.runs.diagnose import Diagnosis


def _add_submit(verb: argparse.ArgumentParser) -> None:
    """Submit the runs of a study that are missing, and those only.

    What is complete, queued or running is left alone, so the command may be given at any time, and again after anything
    went wrong. Each run gets a clone of the last commit. It goes on from its checkpoint. Its result becomes a DVC
    experiment STUDY-ARM-sSEED. The hypotheses are registered before the first run.

    examples:
      assay submit study.yaml --dry-run
      assay submit study.yaml --only 'unet_*' --machine machines/local.yaml
      assay submit study.yaml --probe       leave arms alone that change nothing in their first steps
      assay submit study.yaml --stack       train arms together first that differ in their optimisation alone
      assay submit study.yaml --queued      also what `dvc exp run --queue -S ...` has queued, and of that what failed
    """
    _add_study(verb)
    verb.add_argument("--machine", metavar="FILE", type=Path, help="a machine file; default: the study's")
    verb.add_argument("--dry-run", action="store_true", help="show what would be submitted, and do nothing")
    probe = "train every arm for a few steps on tiny data, here, and submit no arm that changes nothing"
    verb.add_argument("--probe", action="store_true", help=probe)
    stacked = "first train runs together, here, that differ in optimiser, schedule, clipping, average or patience alone"
    verb.add_argument("--stack", action="store_true", help=stacked)
    verb.add_argument("--queued", action="store_true", help="DVC's own queue too, and what was taken from it")
    verb.add_argument("--again", action="store_true", help="also those that met NaN at this very commit")
    verb.add_argument("--json", action="store_true", help="print JSON instead of text")
    verb.set_defaults(call=submit)


def _add_status(verb: argparse.ArgumentParser) -> None:
    """Show how every run of a study, or below a folder, stands: state, cause with evidence, progress, what to do next.

    It reads the runs' records. Of a study it shows missing and queued runs too, and after the arms what DVC had queued.
    A run with other parameters than the study now has is shown as changed, and is not submitted. Nothing is changed.

    examples:
      assay status study.yaml --watch
      assay status study.yaml --only 'unet_*'
      assay status runs/asl-amplitude --json
    """
    verb.add_argument("place", metavar="STUDY.yaml|DIR", type=Path, help="a study file, a folder with runs, or one run")
    verb.add_argument("--only", metavar="GLOB", help="arms whose names match, e.g. 'unet_*'")
    verb.add_argument("--watch", action="store_true", help="show it every 2 s until nothing is queued or running")
    verb.add_argument("--json", action="store_true", help="print JSON instead of a table")
    verb.set_defaults(call=status)


def _add_logs(verb: argparse.ArgumentParser) -> None:
    """Print what the newest attempt of a run has printed, each line with its time (UTC).

    examples:
      assay logs runs/asl-amplitude/02_full/0
      assay logs runs/asl-amplitude/02_full/0 -f
    """
    verb.add_argument("run", metavar="RUN", type=Path, help="a run's folder")
    verb.add_argument("-f", "--follow", action="store_true", help="go on until the run ends")
    verb.set_defaults(call=logs)


def _add_cancel(verb: argparse.ArgumentParser) -> None:
    """End the runs of a study that are queued or running; what runs is asked to save first.

    A cancelled run is missing: `assay submit` submits it again (of what DVC had queued: with --queued), and it goes on
    from its checkpoint. `assay status` shows it as partial if it ended with 75, as cancelled if it did not or if the
    scheduler calls it that; the cause is the signal.

    examples:
      assay cancel study.yaml
      assay cancel study.yaml --only 'unet_*'
      assay cancel study.yaml --only queued     what DVC had queued
    """
    _add_study(verb)
    verb.add_argument("--json", action="store_true", help="print JSON instead of text")
    verb.set_defaults(call=cancel)


VERBS = {"submit": _add_submit, "status": _add_status, "logs": _add_logs, "cancel": _add_cancel}


def _add_study(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("file", metavar="STUDY.yaml", type=Path, help="a study file")
    verb.add_argument("--only", metavar="GLOB", help="arms whose names match, e.g. 'unet_*'")


def submit(parsed: argparse.Namespace, rest: list[str]) -> int:
    """Submit what is missing."""
    from assay.matrix import submit as submission
    from assay.matrix.jobs import scheduler_of
    from assay.matrix.queued import take_over

    study = submission.open_study(parsed.file, parsed.only, parsed.machine)
    scheduler = scheduler_of(study.root, study.machine)
    scripts, inert = None, {}
    if parsed.probe:
        inert = submission.probed(study, submission.decide(study, scheduler, parsed.again), say)
    if parsed.stack:
        stack(study, submission.leave_alone(submission.decide(study, scheduler, parsed.again), inert), parsed.dry_run)
    if parsed.dry_run:
        decisions = submission.leave_alone(submission.decide(study, scheduler, parsed.again), inert)
        scripts = submission.render(study, scheduler, decisions)
    else:
        decisions = submission.submit(study, scheduler, parsed.again, inert)
    if parsed.queued:
        decisions += take_over(study, scheduler, parsed.dry_run, parsed.again)
    if parsed.json:
        print(json.dumps([vars(each) for each in decisions], indent=2))
    else:
        submission.show(decisions, scripts)
    return 0


def stack(study: "Study", decisions: "list[Decision]", dry: bool) -> None:
    """Train together, or only say, what can be."""
    from assay.matrix.stack import train_stacks

    train_stacks(study, decisions, say, dry)


def say(text: str) -> None:
    """Progress, beside what is printed for a program."""
    print(text, file=sys.stderr, flush=True)


def status(parsed: argparse.Namespace, rest: list[str]) -> int:
    """Say how the runs of a study, or below a folder, stand."""
    from assay.matrix.submitted import folder_status
    from assay.runs.diagnose import Diagnosis
    from assay.runs.status import show

    look: Callable[[], list[Diagnosis]] = partial(folder_status, parsed.place)
    tell: Callable[[list[Diagnosis]], None] = show
    if parsed.place.is_file():
        from assay.matrix.standing import show_study, study_status

        look, tell = partial(study_status, parsed.place, parsed.only), partial(show_study, parsed.place, parsed.only)
    elif parsed.only:
        raise ConfigError(f"--only: got {parsed.place}, a folder; allowed: with a study file; name a folder below it")
    if parsed.json:
        tell = _print_json
    if parsed.watch:
        from assay.matrix.standing import watch

        watch(look, tell, clear=sys.stdout.isatty())
    else:
        tell(look())
    return 0


def _print_json(found: list["Diagnosis"]) -> None:
    from assay.runs.status import as_json

    print(json.dumps(as_json(found), indent=2))


def logs(parsed: argparse.Namespace, rest: list[str]) -> int:
    """Print a run's log."""
    from assay.matrix.standing import log_lines

    for line in log_lines(parsed.run, parsed.follow):
        print(line, end="", flush=parsed.follow)
    return 0


def cancel(parsed: argparse.Namespace, rest: list[str]) -> int:
    """End what is queued or running."""
    from assay.matrix.submit import cancel as end

    ended: list[dict[str, Any]] = end(parsed.file, parsed.only)
    if parsed.json:
        print(json.dumps(ended, indent=2))
    for each in [] if parsed.json else ended:
        print(f"{each['arm']}/{each['seed']}: asked job {each['job']} to end; it was {each['state']}")
    if not ended and not parsed.json:
        print("nothing is queued or running")
    return 0
