"""Entry point of `assay` and `python -m assay`: runs a verb, turns errors into one line and an exit code."""

import sys

from assay.errors import AssayError


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit code (0, 1, 2, 75)."""
    from assay.cli import run

    try:
        return run(sys.argv[1:] if arguments is None else arguments)
    except AssayError as error:
        for line in str(error).splitlines():
            print(f"assay: {line}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        return 0


if __name__ == "__main__":
    sys.exit(main())
