"""`s3dataset ls`: lists a prefix, however large, with counts, sizes and what a dataset should do with it."""

import argparse
import re
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from s3dataset._cli._options import add_connection_options, connection, pattern, place
from s3dataset._cli._output import (
    EXIT_STATUS,
    HelpLayout,
    Paint,
    as_json,
    bar,
    binary_bytes,
    columns,
    counted,
    noted_warnings,
    paragraph,
    print_json,
    readable_bytes,
)

if TYPE_CHECKING:
    from s3dataset._manifest import Manifest
    from s3dataset._survey import Survey

_BAR_WIDTH: Final = 40
_LEAST_BAR_WIDTH: Final = 8
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_KEYS_LOOKED_AT: Final = 1000


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    parser = commands.add_parser(
        "ls",
        help="list the objects below a prefix, in parallel, with counts, sizes and advice",
        description="Lists every object below a prefix in key order: size in bytes, time of last change (UTC), URI. "
        "Control characters in keys are escaped here; --json has keys as they are. Objects and bytes are counted on "
        "standard error. Exits with 1 when there is nothing.",
        epilog="examples:\n"
        "  s3dataset ls s3://bucket/train/                          every object\n"
        '  s3dataset ls s3://bucket/train/ --pattern "**/*.jpg"     those with such keys\n'
        "  s3dataset ls s3://bucket/train/ --count                  how many, how many bytes\n"
        "  s3dataset ls s3://bucket/train/ --summary                how large they are, and what to do with them\n"
        "  s3dataset ls s3://bucket/train/ --summary --json         the same for programs\n"
        "  s3dataset ls s3://bucket/train/ --json | jq -r '.entries[] | select(.size == 0) | .uri'\n\n"
        f"{EXIT_STATUS}",
        formatter_class=HelpLayout,
    )
    parser.add_argument("uri", type=place, metavar="s3://BUCKET[/PREFIX]")
    parser.add_argument(
        "--pattern", type=pattern, help='glob on the key after the prefix, as "**/*.jpg" or "shard-{000..099}.tar"'
    )
    showing = parser.add_mutually_exclusive_group()
    showing.add_argument("--count", action="store_true", help="print the counts only")
    showing.add_argument(
        "--summary",
        "--histogram",
        action="store_true",
        help="print the counts, a histogram of the sizes, and what a dataset should do with such objects",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    add_connection_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from s3dataset._client import Client  # noqa: PLC0415 - `--help` need not load them
    from s3dataset._manifest import Manifest  # noqa: PLC0415

    Client.preload()
    begin = time.perf_counter()
    with noted_warnings():
        listing = Manifest.from_prefix(arguments.uri, pattern=arguments.pattern, **connection(arguments))
    seconds = time.perf_counter() - begin
    objects, total_bytes = listing.num_objects, listing.num_bytes
    counts = f"{counted(objects, 'object')}, {total_bytes:,} bytes ({readable_bytes(total_bytes)})"
    summary = f"{counts}, listed in {seconds:.2f} s"
    if arguments.json:
        facts = {"uri": arguments.uri, "objects": objects, "bytes": total_bytes, "seconds": round(seconds, 3)}
        if arguments.summary:
            print_json(facts | facts_of(survey_of(listing), arguments.uri))
        elif arguments.count:
            print_json(facts)
        else:
            print_json_rows(listing, facts)
    elif arguments.summary:
        print(paragraph(summary))
        if objects:
            print_survey(survey_of(listing), arguments.uri)
    elif arguments.count:
        print(summary)
    else:
        print_rows(listing)
        print(summary, file=sys.stderr)
    return 0 if objects else 1


def print_rows(listing: "Manifest") -> None:
    for index in range(len(listing)):
        changed = listing.mtime(index)
        when = datetime.fromtimestamp(changed, UTC).strftime("%Y-%m-%d %H:%M:%S") if changed else "-"
        print(f"{listing.size(index):>14} {when:19} {in_a_line(listing.uri(index))}")


def in_a_line(text: str) -> str:
    """Control characters escaped: a key may hold a newline, or what a terminal obeys."""
    return text if text.isprintable() else _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def print_json_rows(listing: "Manifest", facts: dict[str, Any]) -> None:
    """One document, a line for each object, so that ten million of them need no memory."""
    print(f'{as_json(facts)[:-1]}, "entries": [', end="")
    for index in range(len(listing)):
        entry = {
            "uri": listing.uri(index),
            "size": listing.size(index),
            "mtime": listing.mtime(index),
            "etag": listing.etag(index),
        }
        print(",\n" if index else "\n", as_json(entry), sep="", end="")
    print("\n]}")


# -- The summary -------------------------------------------------------------------------------------------------------


def survey_of(listing: "Manifest") -> "Survey":
    """Counts what was listed."""
    from s3dataset._survey import survey  # noqa: PLC0415 - `--help` need not load it

    step = max(1, len(listing) // _KEYS_LOOKED_AT)
    sizes = listing.sizes
    return survey([] if sizes is None else sizes, map(listing.key, range(0, len(listing), step)))


def facts_of(survey: "Survey", uri: str) -> dict[str, Any]:
    return {
        "median": survey.median,
        "smallest": survey.smallest,
        "largest": survey.largest,
        "histogram": [
            {"from": band.low, "below": band.high, "objects": band.objects, "bytes": band.bytes}
            for band in survey.bands
        ],
        "format": survey.format,
        "advice": survey.advice(uri),
    }


def print_survey(survey: "Survey", uri: str) -> None:
    """The histogram: bars count objects, the last column says what share of the bytes they hold."""
    paint = Paint(sys.stdout)
    most = max(band.objects for band in survey.bands)
    width = len(f"{most:,}")
    labels = [_label(band.low, band.high) for band in survey.bands]
    column = max(map(len, labels))
    shares = [f"{100 * band.bytes / survey.bytes:5.1f} % of bytes" if survey.bytes else "" for band in survey.bands]
    room = columns(200) - column - width - max(map(len, shares)) - len("      ")
    if room < _LEAST_BAR_WIDTH:
        shares = [share.removesuffix(" of bytes") for share in shares]
        room += len(" of bytes")
    bar_width = max(_LEAST_BAR_WIDTH, min(_BAR_WIDTH, room))
    print(f"\n{'size':>{column}}  objects")
    for band, label, share in zip(survey.bands, labels, shares, strict=True):
        line = f"{label:>{column}}  {paint(bar(band.objects / most, bar_width), 'good')} {band.objects:>{width},}"
        print(f"{line}  {paint(share, 'quiet')}".rstrip())
    print()
    print(
        paragraph(
            f"half are below {readable_bytes(survey.median)}; the smallest has {readable_bytes(survey.smallest)}, the "
            f"largest {readable_bytes(survey.largest)}"
        )
    )
    looked = sum(count for _, count in survey.suffixes)
    if looked:
        names = ", ".join(f"{suffix or 'none'} {_percent(count / looked)}" for suffix, count in survey.suffixes)
        print(paragraph(f"suffixes: {names}"))
    print()
    for sentence in survey.advice(uri):
        print(paragraph(sentence, "→ " if bar(1, 1) != "#" else "> "))


def _percent(share: float) -> str:
    return "< 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def _label(low: int, high: int) -> str:
    return "empty" if high == 1 else f"{binary_bytes(low)} – {binary_bytes(high)}"
