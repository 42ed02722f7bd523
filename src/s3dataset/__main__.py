"""The command `s3dataset`, also as `python -m s3dataset`."""

import sys

_INTERRUPTED = 130


def main() -> int:
    """Runs it. Ctrl-C while its modules are loaded ends it as later."""
    try:
        from s3dataset._cli import main as run  # noqa: PLC0415 - takes a tenth of a second
    except KeyboardInterrupt:
        sys.stderr.write("s3dataset: interrupted\n")
        return _INTERRUPTED
    return run()


if __name__ == "__main__":
    sys.exit(main())
