"""`s3dataset cp`: one object, between S3 and a file, a pipe or another place in S3."""

import argparse
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s3dataset._cli._cat import add_range, to_stdout
from s3dataset._cli._options import add_connection_options, client_of, place
from s3dataset._cli._output import EXIT_STATUS, HelpLayout, print_json, readable_bytes, tell

if TYPE_CHECKING:
    from s3dataset._client import Client
    from s3dataset._progress import Progress
    from s3dataset._transfer import Received
    from s3dataset._uri import S3Uri

_INSTEAD = (
    "cp copies one object. For whole prefixes: 'aws s3 sync' or s5cmd copy them to and from disks, 's3dataset pack' "
    "makes shards of them within S3, and a dataset reads them where they are (S3MapDataset.from_prefix)"
)


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    parser = commands.add_parser(
        "cp",
        help="copy one object: from S3, to S3, within S3; '-' is a pipe",
        description="Copies one object. The target appears whole, or stays as it was: a file is written beside it and "
        "renamed, an upload that does not end well is aborted. Large objects travel in parallel. Downloads are "
        "compared with the checksum that the service has stored, uploads carry one that the service compares; a copy "
        "within S3 is made by the service.",
        epilog="examples:\n"
        "  s3dataset cp s3://bucket/run/epoch-3.pt .                     to ./epoch-3.pt\n"
        "  s3dataset cp model.pt s3://bucket/run/                        to s3://bucket/run/model.pt\n"
        "  s3dataset cp s3://bucket/run/epoch-3.pt s3://bucket/best.pt   within S3\n"
        "  tar c images | s3dataset cp - s3://bucket/images.tar          from a pipe\n"
        "  s3dataset cp s3://bucket/images.tar - | tar x                 to a pipe\n"
        "  s3dataset cp s3://bucket/train.bin head.bin --range 0-1048575\n\n"
        "For whole prefixes use 'aws s3 sync' or s5cmd, 's3dataset pack' for shards, or a dataset, which reads them\n"
        "where they are.\n\n"
        f"{EXIT_STATUS}",
        formatter_class=HelpLayout,
    )
    parser.add_argument("source", type=place_or_file, help="s3://BUCKET/KEY, a file, or - for standard input")
    parser.add_argument(
        "target",
        type=place_or_file,
        help="s3://BUCKET/KEY, s3://BUCKET/FOLDER/, a file or folder, or - for standard output",
    )
    add_range(parser)
    parser.add_argument("-n", "--no-clobber", action="store_true", help="fail if the target exists")
    parser.add_argument("--content-type", metavar="TYPE", help="media type of an object that is uploaded")
    parser.add_argument("--no-progress", action="store_true", help="show no bar on a terminal")
    parser.add_argument("--json", action="store_true", help="print what was copied as JSON; not with '-' as target")
    parser.add_argument("-r", "-R", "--recursive", action="store_true", help=argparse.SUPPRESS)
    add_connection_options(parser)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    source, target = arguments.source, arguments.target
    check(arguments)
    # What a writer would log is what the exception says.
    logging.getLogger("s3dataset").addHandler(logging.NullHandler())
    client = client_of(arguments)
    begin = time.perf_counter()
    if is_s3(source) and is_s3(target):
        facts = within(arguments, client)
    elif is_s3(source):
        facts = down(arguments, client)
    else:
        facts = up(arguments, client)
    facts["seconds"] = round(time.perf_counter() - begin, 3)
    if arguments.json:
        print_json(facts)
    else:
        tell_done(facts)
    return 0


def check(arguments: argparse.Namespace) -> None:
    """Refuses what is no copy of one object, before anything is sent."""
    source, target, error = arguments.source, arguments.target, arguments.parser.error
    if arguments.recursive:
        error(_INSTEAD)
    if not source or not target:
        error("source and target must not be empty: is a variable unset? '.' is the current folder")
    if not is_s3(source) and not is_s3(target):
        error(f"neither {source!r} nor {target!r} is in S3: write one of them as s3://BUCKET/KEY")
    if is_s3(source):
        if source.endswith("/") or source.count("/") < 3:
            error(f"{source} is a prefix, not an object. {_INSTEAD}")
    elif source != "-" and Path(source).is_dir():
        error(f"{source} is a folder. {_INSTEAD}")
    if arguments.range is not None and not (is_s3(source) and not is_s3(target)):
        error("--range is for downloads")
    if arguments.content_type is not None and is_s3(source):
        error("--content-type is for uploads; a copy within S3 keeps its source's")
    if target == "-" and arguments.json:
        error("--json and '-' both want standard output")
    if target == "-" and arguments.no_clobber:
        error("--no-clobber says nothing about standard output")


def place_or_file(text: str) -> str:
    """A type of arguments."""
    return place(text) if is_s3(text) else text


def is_s3(text: str) -> bool:
    return text.startswith("s3://")


def target_uri(text: str, name: str, arguments: argparse.Namespace) -> "S3Uri":
    """The object that is meant: of a folder, the one of that name in it."""
    from s3dataset._uri import S3Uri  # noqa: PLC0415 - `--help` need not load it

    uri = S3Uri.parse_prefix(text)
    if uri.key and not uri.key.endswith("/"):
        return uri
    if name == "-":
        arguments.parser.error(f"standard input has no name for an object below {text}: write s3://BUCKET/KEY")
    return S3Uri(uri.bucket, uri.key + name)


def progress_of(arguments: argparse.Namespace) -> bool | None:
    return False if arguments.no_progress else None


# -- The three ways ----------------------------------------------------------------------------------------------------


def within(arguments: argparse.Namespace, client: "Client") -> dict[str, Any]:
    from s3dataset._transfer import copy  # noqa: PLC0415 - `--help` need not load it
    from s3dataset._uri import S3Uri  # noqa: PLC0415

    source = S3Uri.parse(arguments.source, need_key=True)
    target = target_uri(arguments.target, source.key.rpartition("/")[2], arguments)
    if source == target:
        arguments.parser.error(f"{source} and {target} are the same object")
    info = copy(client, source, target, replace=not arguments.no_clobber)
    return facts_of(str(source), str(target), info.size, info.etag, "copied by the service")


def down(arguments: argparse.Namespace, client: "Client") -> dict[str, Any]:
    from s3dataset._progress import showing  # noqa: PLC0415 - `--help` need not load them
    from s3dataset._transfer import download, receive  # noqa: PLC0415
    from s3dataset._uri import S3Uri  # noqa: PLC0415

    source = S3Uri.parse(arguments.source, need_key=True)
    name = source.key.rpartition("/")[2]

    target = Path(arguments.target)
    is_pipe = arguments.target == "-"
    if not is_pipe and (target.is_dir() or arguments.target.endswith("/")):
        target /= name

    def fetch(tell: "Progress | None") -> "Received":
        if is_pipe:
            return receive(client, source, to_stdout, span=arguments.range, progress=tell)
        return download(client, source, target, span=arguments.range, replace=not arguments.no_clobber, progress=tell)

    with showing(progress_of(arguments), name) as tell_progress:
        received = fetch(tell_progress)
    how = (
        "checksum compared"
        if received.compared
        else "a range: nothing to compare it with"
        if arguments.range
        else "no checksum stored to compare with"
    )
    return facts_of(str(source), str(target), received.nbytes, received.etag, how)


def up(arguments: argparse.Namespace, client: "Client") -> dict[str, Any]:
    from s3dataset._progress import showing  # noqa: PLC0415 - `--help` need not load them
    from s3dataset._transfer import upload  # noqa: PLC0415

    path = Path(arguments.source)
    is_pipe = arguments.source == "-"
    target = target_uri(arguments.target, "-" if is_pipe else path.name, arguments)
    title = target.key.rpartition("/")[2]
    with (
        open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) if is_pipe else path.open("rb", buffering=0) as file,
        showing(progress_of(arguments), title) as tell_progress,
    ):
        info = upload(
            client,
            file,
            target,
            name="standard input" if is_pipe else str(path),
            content_type=arguments.content_type,
            replace=not arguments.no_clobber,
            progress=tell_progress,
        )
    how = "checksum compared by the service" if client.checksum else "no checksum sent"
    return facts_of(arguments.source, str(target), info.size, info.etag, how)


def facts_of(source: str, target: str, nbytes: int, etag: str, how: str) -> dict[str, Any]:
    return {"source": source, "target": target, "bytes": nbytes, "etag": etag, "integrity": how}


def tell_done(facts: dict[str, Any]) -> None:
    speed = facts["bytes"] / facts["seconds"] if facts["seconds"] else 0
    tell(
        f"{facts['source']} -> {facts['target']}: {readable_bytes(facts['bytes'])} in {facts['seconds']:.2f} s "
        f"({readable_bytes(speed)}/s; {facts['integrity']})"
    )
