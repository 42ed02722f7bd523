"""`s3dataset ls`: lists a prefix, however large, with counts."""

import argparse
import sys
import time
import warnings
from datetime import UTC, datetime
from typing import Any

from s3dataset._cli._options import add_connection_options


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    parser = commands.add_parser(
        "ls",
        help="list the objects below a prefix, in parallel, with counts",
        description="Lists every object below a prefix in key order: size in bytes, time of last change (UTC), URI. "
        "Objects and bytes are counted on standard error. Exits with 1 when there is nothing.",
    )
    parser.add_argument("uri", metavar="s3://BUCKET[/PREFIX]")
    parser.add_argument("--pattern", help='glob on the key after the prefix, as "**/*.jpg" or "shard-{000..099}.tar"')
    parser.add_argument("--count", action="store_true", help="print the counts only")
    add_connection_options(parser)
    signing = parser.add_mutually_exclusive_group()
    signing.add_argument("--profile", help="whose credentials and settings to use, from ~/.aws; default: AWS_PROFILE")
    signing.add_argument("--unsigned", action="store_true", help="use no credentials: for public buckets")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from s3dataset._config import S3ClientConfig  # noqa: PLC0415 - `--help` need not load them
    from s3dataset._manifest import Manifest  # noqa: PLC0415

    begin = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        listing = Manifest.from_prefix(
            arguments.uri,
            pattern=arguments.pattern,
            region=arguments.region,
            endpoint=arguments.endpoint,
            s3client_config=S3ClientConfig(profile=arguments.profile, unsigned=arguments.unsigned),
        )
        objects, total_bytes = listing.num_objects, listing.num_bytes
    seconds = time.perf_counter() - begin
    for warning in caught:
        print(f"s3dataset: {warning.message}", file=sys.stderr)
    if not arguments.count:
        print_rows(listing)
    summary = f"{objects:,} objects, {total_bytes:,} bytes ({readable_bytes(total_bytes)}), listed in {seconds:.2f} s"
    print(summary, file=sys.stdout if arguments.count else sys.stderr)
    return 0 if objects else 1


def print_rows(listing: Any) -> None:
    for index in range(len(listing)):
        changed = listing.mtime(index)
        when = datetime.fromtimestamp(changed, UTC).strftime("%Y-%m-%d %H:%M:%S") if changed else "-"
        print(f"{listing.size(index):>14} {when:19} {listing.uri(index)}")


def readable_bytes(count: float) -> str:
    """The count with a decimal unit: 1,234,567 is "1.2 MB"."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} PB"
