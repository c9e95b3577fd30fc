"""Stand-ins for LSF's commands: they check the resource, GPU and dependency syntax, and answer in LSF's words."""

import re
import shlex
import sys

from cluster import add, cancel, count, directives, jobs, read, refuse, wake

SECTION = r"(select\[(hname!='[\w.-]+'( && hname!='[\w.-]+')*)\]|span\[(hosts=1|ptile=\d+)\]|rusage\[mem=\d+[MG]B\])"
BATCH = {
    "-J": r"[\w.+=@-]+",
    "-g": r"/[\w/]+",
    "-o": r"/.+",
    "-q": "normal|gpu_a100|gpu_l4",
    "-P": r"\w+",
    "-n": r"\d+",
    "-R": f"{SECTION}( {SECTION})*",
    "-M": r"\d+[MG]B",
    "-gpu": r"num=\d+(:gmodel=\w+)?",
    "-W": r"(\d+:)?\d+",
    "-wt": r"\d+",
    "-wa": "USR1|USR2|URG",
    "-w": r"ended\(\d+\)",
}
STATES = {
    "PENDING": "PEND",
    "HELD": "PSUSP",
    "STARTING": "RUN",
    "RUNNING": "RUN",
    "COMPLETED": "DONE",
    "FAILED": "EXIT",
}


def parsed(words: list[str]) -> dict[str, str]:
    """`-name value` pairs, each checked."""
    found = {}
    for name, value in zip(words[::2], [*words[1::2], ""], strict=False):
        if name not in BATCH:
            refuse(f"{name}: Illegal option. Job not submitted.", 255)
        if not re.fullmatch(BATCH[name], value):
            refuse(f"{name} {value}: Bad syntax. Job not submitted.", 255)
        found[name] = value
    return found


def bsub() -> None:
    count("bsub")
    script = sys.stdin.read()
    held = "-H" in sys.argv[1:]
    told = parsed(
        [
            *(word for word in sys.argv[1:] if word != "-H"),
            *(word for line in directives(script, "#BSUB") for word in shlex.split(line)),
        ]
    )
    if ("-wa" in told) != ("-wt" in told):
        refuse("-wa and -wt must be used together. Job not submitted.", 255)
    after = re.findall(r"\d+", told.get("-w", ""))
    if set(after) - {str(job["number"]) for job in read()}:
        refuse("Dependency condition invalid or never satisfied. Job not submitted.", 255)
    new = {
        "name": told["-J"],
        "comment": told["-g"],
        "output": told["-o"],
        "exclude": re.findall(r"hname!='([\w.-]+)'", told.get("-R", "")),
        "after": after,
        "task": None,
        "state": "HELD" if held else "PENDING",
        "variables": {"LSB_JOBID": "{number}", "LSB_HOSTS": "{node} {node}"},
    }
    print(f"Job <{add([new], script)}> is submitted to queue <{told.get('-q', 'normal')}>.")


def bjobs() -> None:
    count("bjobs")
    words = sys.argv[1:]
    fields, _, separator = words[words.index("-o") + 1].partition(" delimiter=")
    group = words[words.index("-g") + 1] if "-g" in words else None
    known = {"jobid", "stat", "exit_reason", "job_group"}
    if "-noheader" not in words or set(fields.split()) - known:
        refuse(f"bjobs: illegal field in {fields}", 255)
    chosen = [job for job in read() if group in (None, job["comment"])]
    if "-p" in words:
        refuse("bjobs: -p has a format of its own", 255)
    chosen = [job for job in chosen if "-a" in words or STATES.get(job["state"]) not in (None, "DONE", "EXIT")]
    if not chosen:
        refuse("No job found", 255)
    for job in chosen:
        state = STATES.get(job["state"], "EXIT")
        reason = "TERM_OWNER: job killed by owner" if job["state"] == "CANCELLED" else "-"
        line = {"jobid": job["number"], "stat": state, "exit_reason": reason, "job_group": job["comment"]}
        print((separator.strip("'") or " ").join(str(line[name]) for name in fields.split()))


def bkill() -> None:
    count("bkill")
    match sys.argv[1:]:
        case ["-stat", "pend", "-g", group, "0"]:
            hit = cancel(lambda job: job["comment"] == group and job["state"] == "PENDING")
        case [*ids] if ids and all(each.isdecimal() for each in ids):
            hit = cancel(lambda job: str(job["number"]) in ids)
        case other:
            refuse(f"bkill: bad usage: {other}", 255)
    if not hit:
        refuse("Job has already finished", 255)


def bresume() -> None:
    count("bresume")
    with jobs() as found:
        held = [job for job in found if str(job["number"]) == sys.argv[1] and job["state"] == "HELD"]
        for job in held:
            job["state"] = "PENDING"
    if not held:
        refuse(f"Job <{sys.argv[1]}>: Job has not been suspended", 255)
    wake()


def bmod() -> None:
    count("bmod")
    match sys.argv[1:]:
        case ["-R", needs, job_id] if re.fullmatch(BATCH["-R"], needs):
            with jobs() as found:
                for job in found:
                    if str(job["number"]) == job_id:
                        job["exclude"] = re.findall(r"hname!='([\w.-]+)'", needs)
        case other:
            refuse(f"bmod: bad usage: {other}", 255)
