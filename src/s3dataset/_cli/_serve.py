"""`s3dataset serve`: the local S3, in the foreground."""

import argparse
import signal
import threading
from pathlib import Path
from typing import Any

from s3dataset._cli._options import whole_number
from s3dataset._cli._output import HelpLayout

DEFAULT_BUCKET = "s3dataset"


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    parser = commands.add_parser(
        "serve",
        help="run an S3 server on this machine, for tests and trials",
        description="Runs an S3 server on loopback until Ctrl-C. It is for demos, tests and benchmarks: nothing is "
        "durable unless --directory is given, and it checks no permissions beyond its one pair of keys. It prints the "
        "environment variables by which every program on this machine finds it.",
        epilog="examples:\n"
        "  s3dataset serve                                  one bucket, s3dataset, in memory\n"
        "  s3dataset serve train val --port 9000            two buckets, always at the same address\n"
        "  s3dataset serve train --directory ~/s3           objects stay as files\n\n"
        "exit status: 0: ended by Ctrl-C or SIGTERM; 1: it did not start; 2: wrong usage",
        formatter_class=HelpLayout,
    )
    parser.add_argument(
        "buckets", nargs="*", default=[DEFAULT_BUCKET], metavar="BUCKET", help=f"default: {DEFAULT_BUCKET}"
    )
    parser.add_argument("--directory", type=Path, help="keep objects as files below this folder instead of in memory")
    parser.add_argument("--port", type=whole_number(0, 65535), default=0, metavar="PORT", help="default: any free one")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from s3dataset.testing import LocalS3  # noqa: PLC0415 - `--help` need not load it

    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with LocalS3(*arguments.buckets, directory=arguments.directory, port=arguments.port, activate=False) as server:
        where = (
            f"files below {arguments.directory}" if arguments.directory else "memory; all of it is gone when this ends"
        )
        print(f"a local S3 at {server.endpoint}, buckets {', '.join(arguments.buckets)} (in {where})")
        print("\nin another shell:")
        for name, value in server.environment.items():
            print(f"  export {name}={value}")
        print(f"  s3dataset ls s3://{arguments.buckets[0]}/\n\nCtrl-C ends it.", flush=True)
        while not ended.wait(0.5):
            pass
    print("ended")
    return 0
