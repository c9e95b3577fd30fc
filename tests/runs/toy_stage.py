"""Commands to be supervised: a stage that counts steps and stops on request, alone or behind a pipeline tool."""

import sys

PYTHON = sys.executable
STAGE = """
    import sys, time
    from assay import progress

    progress.announce("toy", "train", identity="abc")
    with progress.phase("train", total=int(sys.argv[1]), unit="steps") as p:
        for step in range(p.total):
            if progress.stop_requested():
                with progress.phase("checkpoint"):
                    time.sleep(0.05)
                progress.verdict(75, f"stopped at {step}", "Unfinished")
                sys.exit(75)
            time.sleep(0.05)
            p.advance(loss=1 / (step + 1))
            print("step", step)
    progress.verdict(0)
"""
HIDDEN = ["sh", "-c", '"$0" "$@" || exit 255', PYTHON]
"""How a pipeline tool stands between: a process in between, and every failure is 255."""
