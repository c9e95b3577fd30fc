"""Runs: supervise one, keep its record, read records back, say what went wrong and what to do next.

from assay.runs.diagnose import diagnose
from assay.runs.store import find

for folder in find(Path("runs")):
    record = folder.read()
    print(record.run.arm, record.run.seed, diagnose(record, time.time()).state)
"""
