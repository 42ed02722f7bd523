"""The command `s3dataset`. Each subcommand is a module with `add_parser` and `run`."""

import argparse
import os
import sys
from collections.abc import Sequence

import s3dataset
from s3dataset._cli import _checkpoint, _demo, _index, _ls, _pack, _serve
from s3dataset.errors import S3Exception
from s3dataset.testing import ServerError

INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended

__all__ = ["main"]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="s3dataset", description="Train PyTorch models straight from Amazon S3.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"s3dataset {s3dataset.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (_demo, _serve, _ls, _index, _pack, _checkpoint):
        command.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; -> the exit status.

    0; 1: it failed, and the reason is on standard error; 2: it was called wrongly; 130: Ctrl-C.
    """
    arguments = build_parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except (S3Exception, ServerError) as error:
        notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", ()))
        print(f"s3dataset: {error}{notes}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of a pipe (head, less) has gone; the interpreter must not complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a folder that cannot be written to, a disk that is full
        print(f"s3dataset: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("s3dataset: interrupted", file=sys.stderr)
        return INTERRUPTED
    return status
