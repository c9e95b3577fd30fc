"""Entry point of `assay` and `python -m assay`: runs a verb, turns errors into one line and an exit code."""

import os
import sys

from assay.errors import AssayError


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit code (0, 1, 2, 75; 130 interrupted, 141 broken pipe)."""
    # Read by OpenMP when torch is imported. Its threads spin at every barrier by default: where another process shares
    # the cores, a training step then takes ten times as long (measured: over 4 s against 0.75 s).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from assay.cli import run

    try:
        return run(sys.argv[1:] if arguments is None else arguments)
    except AssayError as error:
        for line in str(error).splitlines():
            print(f"assay: {line}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("assay: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone; what was asked for is not done
        sys.stderr = None
        return 141
    except OSError as error:
        print(f"assay: {error}; make room, or correct the path or its permissions", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
