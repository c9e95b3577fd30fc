"""Stand-ins for Slurm's commands: sbatch's own way to read directives, and refusals in its words."""

import os
import re
import sys

from cluster import add, cancel, count, directives, folder, jobs, options, read, refuse

BATCH = {
    "--job-name": ".+",
    "--comment": ".*",
    "--output": ".+",
    "--open-mode": "append|truncate",
    "--nodes": r"\d+",
    "--ntasks-per-node": r"\d+",
    "--cpus-per-task": r"\d+",
    "--mem": r"\d+[KMGT]?",
    "--gres": r"gpu(:[\w.-]+)?:\d+",
    "--time": r"\d+",
    "--signal": r"(B:)?[A-Z0-9]+(@\d+)?",
    "--partition": ".+",
    "--account": r"\w+",
    "--qos": r"\w+",
    "--constraint": r"[\w&|]+",
    "--exclude": r"[\w,.\[\]-]+",
    "--array": r"\d+-\d+(%\d+)?",
    "--mail-type": r"\w+",
}
MAX_ARRAY_SIZE = int(os.environ.get("STUB_MAX_ARRAY_SIZE", "1001"))
ARGUMENTS = {"--parsable": "", "--test-only": ""}


def words(line: str) -> list[str]:
    """As sbatch splits a directive: a backslash makes any character ordinary, but white space only within quotes."""
    found, current, quoted, escaped = [], "", "", False
    for character in line:
        if escaped:
            if character.isspace() and not quoted:
                refuse(f"sbatch: error: Invalid directive found in batch script: {line}")
            current, escaped = current + character, False
        elif character == "\\":
            escaped = True
        elif quoted:
            quoted, current = ("", current) if character == quoted else (quoted, current + character)
        elif character in "'\"":
            quoted = character
        elif character == "#":
            break
        elif character.isspace():
            found, current = [*found, current], ""
        else:
            current += character
    if quoted or escaped:
        refuse(f"sbatch: error: unterminated quote in directive: {line}")
    return [word for word in [*found, current] if word]


def sbatch() -> None:
    count("sbatch")
    script = sys.stdin.read()
    if not script.startswith("#!"):
        refuse("sbatch: error: This does not look like a batch script.")
    asked = options(sys.argv[1:], ARGUMENTS, "sbatch")
    told = options([word for line in directives(script, "#SBATCH") for word in words(line)], BATCH, "sbatch")
    if "--partition" in told and told["--partition"] not in ("main", "gpu_a100"):
        refuse(f"sbatch: error: invalid partition specified: {told['--partition']}")
    tasks = array(told["--array"]) if "--array" in told else [None]
    if max(task or 0 for task in tasks) >= MAX_ARRAY_SIZE:
        refuse("sbatch: error: Batch job submission failed: Invalid job array specification")
    if int(told.get("--mem", "0M").rstrip("KMGT")) > 8000:
        refuse("allocation failure: Requested node configuration is not available")
    if "--test-only" in asked:
        return
    output = re.sub(r"%(.)", lambda found: {"%": "%", "j": "0"}[found[1]], told["--output"])
    shared = {
        "name": told["--job-name"],
        "comment": told.get("--comment", ""),
        "output": output,
        "exclude": told.get("--exclude", "").split(","),
        "after": [],
        "variables": {"SLURM_JOB_ID": "{number}", "SLURMD_NODENAME": "{node}"},
    }
    arrays = {"SLURM_ARRAY_JOB_ID": "{number}", "SLURM_ARRAY_TASK_ID": "{task}"} if "--array" in told else {}
    new = [{**shared, "task": task, "variables": {**shared["variables"], **arrays}} for task in tasks]
    print(add(new, script))


def array(text: str) -> list[int]:
    first, last = text.partition("%")[0].split("-")
    return list(range(int(first), int(last) + 1))


def squeue() -> None:
    count("squeue")
    allowed = {"--noheader": "", "--array": "", "--states": "all", "--user": r"\d+", "--format": ".+"}
    told = options(sys.argv[1:], allowed, "squeue")
    for job in read():
        name = str(job["number"]) if job["task"] is None else f"{job['number']}_{job['task']}"
        state = "RUNNING" if job["state"] == "STARTING" else job["state"]
        reason = {"PENDING": "Resources", "FAILED": "NonZeroExitCode"}.get(job["state"], "None")
        line = {"i": name, "T": state, "r": reason, "k": job["comment"] or "(null)"}
        print(re.sub("%(.)", lambda found, line=line: line[found[1]], told["--format"]))


def scancel() -> None:
    count("scancel")
    ids = [word for word in sys.argv[1:] if not word.startswith("-")]
    given = [word for word in sys.argv[1:] if word.startswith("-")]
    told = options(given, {"--quiet": "", "--state": "PENDING|RUNNING"}, "scancel")
    if not ids:
        refuse("scancel: error: No job identification provided")

    def chosen(job: dict) -> bool:
        named = {str(job["number"]), f"{job['number']}_{job['task']}"} & set(ids)
        return bool(named) and told.get("--state", job["state"]) == job["state"]

    cancel(chosen)


def scontrol() -> None:
    count("scontrol")
    match sys.argv[1:]:
        case ["show", "config"]:
            print(f"ClusterName             = stub\nMaxArraySize            = {MAX_ARRAY_SIZE}")
        case ["update", job_id, exclude] if job_id.startswith("JobId=") and exclude.startswith("ExcNodeList="):
            with jobs() as found:
                for job in found:
                    if job["state"] == "PENDING" and str(job["number"]) == job_id.partition("=")[2]:
                        job["exclude"] = exclude.partition("=")[2].split(",")
        case other:
            refuse(f"scontrol: error: invalid entity: {other}")


def sacct() -> None:
    """With the file `accounting` in the folder: its lines about the jobs that are asked for, or an error."""
    count("sacct")
    fields = "JobID,State"
    allowed = {"--noheader": "", "--allocations": "", "--parsable2": "", "--format": fields, "--jobs": r"\d+(,\d+)*"}
    told = options(sys.argv[1:], allowed, "sacct")
    if not (folder() / "accounting").exists():
        refuse("Slurm accounting storage is disabled")
    said = (folder() / "accounting").read_text()
    if said.startswith("sacct: error: "):
        refuse(said)
    for line in said.splitlines():
        if re.match(r"\d+", line)[0] in told["--jobs"].split(","):
            print(line)
