"""The command `s3dataset`. Each subcommand is a module with `add_parser` and `run`."""

import argparse
import sys
from collections.abc import Sequence

import s3dataset
from s3dataset._cli import _bench, _cat, _checkpoint, _completion, _cp, _demo, _doctor, _index, _ls, _pack, _serve
from s3dataset._cli._output import EXIT_STATUS, HelpLayout, failed, tell
from s3dataset._cli._parser import Parser
from s3dataset._cli._signals import Terminated, ended_by_sigterm
from s3dataset._cli._streams import give_up_output, prepare_streams
from s3dataset.errors import S3Exception
from s3dataset.testing import ServerError

INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended
NO_READER = 141  # likewise: SIGPIPE
TERMINATED = 143  # likewise: SIGTERM

_COMMANDS = (_demo, _serve, _doctor, _bench, _ls, _cat, _cp, _index, _pack, _checkpoint, _completion)

__all__ = ["build_parser", "main"]


def build_parser() -> Parser:
    parser = Parser(
        prog="s3dataset",
        description="Train PyTorch models straight from Amazon S3.",
        epilog="first steps:\n"
        "  s3dataset doctor s3://bucket/prefix/          does this machine reach the bucket? what is in the way?\n"
        "  s3dataset ls s3://bucket/prefix/ --summary    what lies there, and what a dataset should do with it\n"
        "  s3dataset bench s3://bucket/prefix/           how fast it can be read from here, and with how many workers\n"
        "  s3dataset demo                                a training run, without an account\n\n"
        "'s3dataset COMMAND --help' has examples of each.\n\n"
        f"{EXIT_STATUS}",
        formatter_class=HelpLayout,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"s3dataset {s3dataset.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; -> the exit status.

    0; 1: it failed, and the reason is on standard error; 2: it was called wrongly; 130: Ctrl-C; 141: whoever read its
    output has gone; 143: SIGTERM.
    """
    arguments = argparse.Namespace()
    try:
        prepare_streams()
        arguments = build_parser().parse_args(argv)
        with ended_by_sigterm(arguments.run is not _serve.run):
            status: int = arguments.run(arguments)
            sys.stdout.flush()
    except (S3Exception, ServerError) as error:
        return failed(arguments, error)
    except BrokenPipeError:
        give_up_output()  # its reader (head, less) has gone
        return NO_READER
    except OSError as error:  # a folder that cannot be written to, a disk that is full
        status = failed(arguments, error)
        try:
            sys.stdout.flush()
        except OSError:
            give_up_output()
        return status
    except (KeyboardInterrupt, Terminated) as error:
        for note in getattr(error, "__notes__", ()):
            tell(note)
        is_signal = isinstance(error, Terminated)
        tell("terminated" if is_signal else "interrupted")
        return TERMINATED if is_signal else INTERRUPTED
    return status
