"""`s3dataset cat`: an object's bytes to standard output."""

import argparse
import sys
from typing import Any

from s3dataset._cli._options import add_connection_options, client_of, place
from s3dataset._cli._output import EXIT_STATUS, HelpLayout

_WHOLE_OBJECTS = "cat prints one object, and {uri} names a prefix: 's3dataset ls {uri}' lists what is below it"


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    parser = commands.add_parser(
        "cat",
        help="print an object, or a range of it",
        description="Prints an object's bytes, as they are. Large objects are fetched in parallel and compared with "
        "the checksum that the service has stored; what was printed before a mismatch was found stays printed, and "
        "the exit status is 1.",
        epilog="examples:\n"
        "  s3dataset cat s3://bucket/data/labels.csv | head\n"
        "  s3dataset cat s3://bucket/train/shard-000000.tar | tar t\n"
        "  s3dataset cat s3://bucket/model.safetensors --range 0-7 | xxd      the first eight bytes\n"
        "  s3dataset cat s3://bucket/run.log --range -2000                    the last 2,000 bytes\n\n"
        f"{EXIT_STATUS}; 141: whoever read the output has gone",
        formatter_class=HelpLayout,
    )
    parser.add_argument("uri", type=place, metavar="s3://BUCKET/KEY")
    add_range(parser)
    add_connection_options(parser)
    parser.set_defaults(run=run, parser=parser)


def add_range(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--range", type=span, metavar="A-B", help='only these bytes, as in HTTP: "0-99" (both count), "100-", "-100"'
    )


def span(text: str) -> Any:
    from s3dataset._transfer import Span  # noqa: PLC0415 - `--help` need not load it

    try:
        return Span.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run(arguments: argparse.Namespace) -> int:
    from s3dataset._transfer import receive  # noqa: PLC0415 - likewise
    from s3dataset._uri import S3Uri  # noqa: PLC0415

    uri = S3Uri.parse_prefix(arguments.uri)
    if not uri.key or uri.key.endswith("/"):
        arguments.parser.error(_WHOLE_OBJECTS.format(uri=uri))
    receive(client_of(arguments), uri, to_stdout, span=arguments.range)
    return 0


def to_stdout(data: memoryview) -> None:
    """Past Python's buffer, so that a reader that has gone is noticed at once."""
    sys.stdout.flush()
    out = sys.stdout.buffer
    out.write(data)
    out.flush()
