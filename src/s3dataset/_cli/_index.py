"""`s3dataset index`: finds where the samples of shards lie, and keeps that beside them."""

import argparse
import time
from typing import TYPE_CHECKING, Any

from s3dataset._cli._options import add_connection_options, connection, pattern, place
from s3dataset._cli._output import HelpLayout, counted, failed, noted_warnings, print_json, readable_bytes
from s3dataset.errors import DecodeError, S3Exception

if TYPE_CHECKING:
    from s3dataset._manifest import Manifest


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    parser = commands.add_parser(
        "index",
        help="index the samples of shards, so that they can be read at random and shuffled",
        description="Finds where the samples of all shards below a prefix lie, and writes that beside them, to "
        ".s3dataset/FORMAT-index.manifest in their folder, where datasets find it. Run it again when shards were "
        "added or replaced: only these are scanned. Shards of small samples are read in full, over many "
        "connections; contents of more than 2 MiB are skipped.",
        epilog="examples:\n"
        "  s3dataset index s3://bucket/train/                       all shards below the prefix\n"
        '  s3dataset index s3://bucket/data/ --pattern "*.tar"      those among other objects\n'
        "  s3dataset index s3://bucket/train/ --check               is the index up to date?\n"
        "  s3dataset index s3://bucket/train/ --output train.manifest\n"
        "      a manifest of exactly these shards, for Dataset.from_manifest: a run on it fails if one is replaced\n\n"
        "exit status: 0: the index is up to date; 1: it failed, or --check found it out of date; 2: wrong usage",
        formatter_class=HelpLayout,
    )
    parser.add_argument("uri", type=place, metavar="s3://BUCKET[/PREFIX]")
    parser.add_argument(
        "--pattern", type=pattern, help='glob on the key after the prefix, as "**/*.tar" or "shard-{000..099}.tar"'
    )
    parser.add_argument(
        "--format",
        default="auto",
        metavar="NAME",
        help="what the shards are, as tar or jsonl; default: by their suffix",
    )
    parser.add_argument(
        "--output", metavar="PLACE", help="a path or s3://BUCKET/KEY for the index; default: beside the shards"
    )
    doing = parser.add_mutually_exclusive_group()
    doing.add_argument("--full", action="store_true", help="scan all shards, those that did not change too")
    doing.add_argument("--check", action="store_true", help="scan and write nothing; say what has changed")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    add_connection_options(parser)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    from s3dataset._manifest import Manifest, index_location, update_index  # noqa: PLC0415 - `--help` need not load them
    from s3dataset._progress import showing  # noqa: PLC0415

    begin = time.perf_counter()
    with noted_warnings():
        listed = Manifest.from_prefix(arguments.uri, pattern=arguments.pattern, **connection(arguments))
    if not len(listed):
        return failed(arguments, f"there is no object to index below {arguments.uri}", is_told=True)
    format = _format(arguments, listed)  # noqa: A001
    location = arguments.output or index_location(arguments.uri, format)
    if arguments.check:
        return _check(arguments, listed, format, location)
    try:
        with noted_warnings(), showing(None, "index") as bar:
            done = update_index(
                listed,
                format,
                location,
                full=arguments.full,
                shared=arguments.output is None,
                progress=None if bar is None else lambda now: bar(now.nbytes, now.num_bytes),
            )
    except DecodeError as error:
        if error.uri == location:
            error.add_note("Nothing was written: an index takes the place of an index only")
        raise
    seconds = time.perf_counter() - begin
    facts = {
        "index": location,
        "format": format.name,
        "shards": len(done.manifest),
        "samples": done.manifest.num_samples,
        "bytes": done.manifest.num_bytes,
        "scanned": done.scanned,
        "scanned_bytes": done.scanned_bytes,
        "kept": done.kept,
        "written": done.written,
        "fingerprint": done.manifest.fingerprint,
        "seconds": round(seconds, 3),
    }
    if arguments.json:
        print_json(facts)
        return 0
    print(
        f"{counted(done.manifest.num_samples, 'sample')} in {counted(len(done.manifest), 'shard')} of {format.name}, "
        f"{readable_bytes(done.manifest.num_bytes)}: {done.scanned:,} scanned "
        f"({readable_bytes(done.scanned_bytes)}), {done.kept:,} unchanged, in {seconds:.2f} s"
    )
    print(f"{'written to' if done.written else 'up to date:'} {location}")
    return 0


def _check(arguments: argparse.Namespace, listed: "Manifest", format: Any, location: str) -> int:  # noqa: A002
    from s3dataset._manifest import check_index, find_index  # noqa: PLC0415

    if arguments.output is not None:
        found = check_index(location, listed, format)
    else:
        found = find_index(listed.ref.get(), arguments.uri, listed, format)
    location = location if found is None else found.location
    current = found is not None and found.manifest is not None
    if arguments.json:
        facts = {"index": location, "format": format.name, "shards": len(listed), "current": current}
        if found is not None:
            facts |= {"missing": found.missing, "changed": found.changed}
        print_json(facts)
    elif found is None:
        print(
            f"there is no index of {'this shard' if len(listed) == 1 else f'these {len(listed):,} shards'}: {location}"
        )
    elif found.manifest is None:
        print(f"out of date: {location} {found.why}")
    else:
        holds = f"{counted(found.manifest.num_samples, 'sample')} in {counted(len(listed), 'shard')}"
        print(f"up to date: {location} ({holds})")
    return 0 if current else 1


def _format(arguments: argparse.Namespace, listed: "Manifest") -> Any:
    """The format of the shards.

    Raises:
        S3Exception: Their suffixes do not tell.
    """
    from s3dataset.formats import format_of_key, named_format  # noqa: PLC0415

    if arguments.format != "auto":
        try:
            return named_format(arguments.format)
        except ValueError as error:
            arguments.parser.error(f"argument --format: {error}")
    kinds: dict[Any, list[int]] = {}
    for row in range(len(listed)):
        kinds.setdefault(format_of_key(listed.key(row)), []).append(row)
    known = [kind for kind in kinds if kind is not None]
    if len(known) == 1 and len(kinds) == 1:
        return known[0]
    if not known:
        raise S3Exception(f"the suffix of {listed.uri(0)} is that of no format; name it with --format")
    examples = ", ".join(
        f"{len(rows):,} {'of no format' if kind is None else 'of ' + kind.name} ({listed.uri(rows[0])})"
        for kind, rows in kinds.items()
    )
    raise S3Exception(
        f"the objects below {arguments.uri} are of several kinds by their suffixes: {examples}. Choose the shards with "
        f'--pattern, as "*{known[0].suffix}", or say what all are with --format'
    )
