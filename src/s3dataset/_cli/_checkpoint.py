"""`s3dataset checkpoint`: what a CheckpointManager has saved: listed, verified, pruned."""

import argparse
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from s3dataset._cli._options import add_connection_options, place, whole_number
from s3dataset._cli._output import EXIT_STATUS, HelpLayout, counted, print_json, readable_bytes, tell

if TYPE_CHECKING:
    from s3dataset._commits import Catalog

_STEPS = whole_number(0, 10**12 - 1)


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    parser = commands.add_parser(
        "checkpoint",
        help="list, verify and prune what a CheckpointManager has saved",
        description="Looks after the checkpoints that s3dataset.CheckpointManager has saved below a URI.",
        epilog="examples:\n"
        "  s3dataset checkpoint ls s3://bucket/run-7/                    which there are\n"
        "  s3dataset checkpoint verify s3://bucket/run-7/ --all          read them all, and compare every byte\n"
        "  s3dataset checkpoint prune s3://bucket/run-7/ --keep-last 3 --dry-run\n\n"
        f"{EXIT_STATUS}",
        formatter_class=HelpLayout,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    ls = _add(
        actions,
        "ls",
        "list the committed checkpoints, newest first",
        "Lists the committed checkpoints, newest first: step, time (UTC) of the commit, size, number of files, ranks "
        "that saved it, format, and whether it is pinned. Exits with 1 when there is none.",
    )
    ls.add_argument("--metadata", action="store_true", help="print metadata below each, as JSON")
    ls.add_argument("--json", action="store_true", help="print one JSON document")
    ls.set_defaults(run=run_ls)

    verify = _add(
        actions,
        "verify",
        "read a checkpoint and compare every byte",
        "Reads every byte of a checkpoint, and compares names, sizes, ETags and checksums of its files with the commit "
        "record. Exits with 1 when something is damaged or missing.",
    )
    which = verify.add_mutually_exclusive_group()
    which.add_argument("--step", type=_STEPS, metavar="N", help="which checkpoint; default: the newest")
    which.add_argument("--all", action="store_true", help="all of them")
    verify.add_argument("--json", action="store_true", help="print one JSON document")
    verify.set_defaults(run=run_verify)

    prune = _add(
        actions,
        "prune",
        "delete older checkpoints, and what crashes have left",
        "Deletes checkpoints that are not kept, then what was never committed and is older than a day, unfinished "
        "uploads included. Pinned checkpoints and those that somebody restores stay; the newest always does.",
    )
    prune.add_argument(
        "--keep-last",
        type=whole_number(1),
        metavar="N",
        help="keep so many of the newest; default: all of them, so that only what crashes have left is deleted",
    )
    prune.add_argument(
        "--keep-every", type=whole_number(1), metavar="N", help="keep those whose step it divides; with --keep-last"
    )
    prune.add_argument("--dry-run", action="store_true", help="delete nothing, and print what would be deleted")
    prune.add_argument("--json", action="store_true", help="print one JSON document")
    prune.set_defaults(run=run_prune, parser=prune)


def _add(
    actions: "argparse._SubParsersAction[Any]", name: str, summary: str, description: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(
        name, help=summary, description=description, epilog=EXIT_STATUS, formatter_class=HelpLayout
    )
    parser.add_argument("uri", type=place, metavar="s3://BUCKET/RUN", help="the manager's URI")
    add_connection_options(parser, unsigned=False)
    return parser


def open_catalog(arguments: argparse.Namespace) -> "Catalog":
    # `--help` need not load them; and none of it loads torch.
    from s3dataset._client import ClientRef  # noqa: PLC0415
    from s3dataset._commits import Catalog, Layout  # noqa: PLC0415
    from s3dataset._config import S3ClientConfig  # noqa: PLC0415

    config = S3ClientConfig(profile=arguments.profile)
    return Catalog(Layout.at(arguments.uri), ClientRef(arguments.region, arguments.endpoint, config))


# -- ls ----------------------------------------------------------------------------------------------------------------


def run_ls(arguments: argparse.Namespace) -> int:
    import json  # noqa: PLC0415

    from s3dataset._commits import Committed, Marks  # noqa: PLC0415

    catalog = open_catalog(arguments)
    steps = [entry.step for entry in catalog.entries()]
    if not steps:
        tell(f"{catalog.layout} has no committed checkpoint")
        if arguments.json:
            print_json({"uri": str(catalog.layout), "checkpoints": []})
        return 1
    pinned = Marks(catalog).pinned()
    found = catalog.read_many(steps)
    if arguments.json:
        documents = [_document(step, found[step], is_pinned=step in pinned) for step in steps]
        print_json({"uri": str(catalog.layout), "checkpoints": documents})
        return 1 if any("error" in document for document in documents) else 0
    rows = [("STEP", "TIME (UTC)", "SIZE", "FILES", "RANKS", "FORMAT", "PINNED")]
    notes: dict[int, str] = {}
    total, unreadable = 0, 0
    for step in steps:
        committed = found[step]
        pin = "yes" if step in pinned else ""
        if isinstance(committed, Committed):
            record = committed.record
            total += record.nbytes
            when = datetime.fromtimestamp(record.time, UTC).strftime("%Y-%m-%d %H:%M:%S")
            size, files, ranks = readable_bytes(record.nbytes), f"{len(record.objects):,}", f"{record.world_size:,}"
            rows.append((f"{step}", when, size, files, ranks, record.format, pin))
            if arguments.metadata and record.metadata is not None:
                notes[len(rows) - 1] = json.dumps(record.metadata, ensure_ascii=False)
        else:
            unreadable += 1
            rows.append((f"{step}", "-", "-", "-", "-", "-", pin))
            notes[len(rows) - 1] = str(committed)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = [
            cell.ljust(width) if column in (1, 5, 6) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
        if number in notes:
            print(f"{' ' * widths[0]}  {notes[number]}")
    print(f"{counted(len(steps), 'checkpoint')}, {readable_bytes(total)}", file=sys.stderr)
    return 1 if unreadable else 0


def _document(step: int, found: object, *, is_pinned: bool) -> dict[str, Any]:
    from s3dataset._commits import Committed  # noqa: PLC0415

    if not isinstance(found, Committed):
        return {"step": step, "pinned": is_pinned, "error": str(found)}
    record = found.record
    return {
        "step": step,
        "time": record.time,
        "bytes": record.nbytes,
        "files": len(record.objects),
        "ranks": record.world_size,
        "format": record.format,
        "pinned": is_pinned,
        "metadata": record.metadata,
    }


# -- verify ------------------------------------------------------------------------------------------------------------


def run_verify(arguments: argparse.Namespace) -> int:
    catalog = open_catalog(arguments)
    if arguments.step is not None:
        steps = [arguments.step]
    else:
        steps = [entry.step for entry in catalog.entries(all_pages=arguments.all)]
        if not steps:
            tell(f"{catalog.layout} has no committed checkpoint")
        if not arguments.all:
            del steps[1:]
    documents = []
    for step in steps:
        documents.append(verify_step(catalog, step))
        if not arguments.json:
            print_verified(documents[-1])
    are_whole = bool(steps) and all(document["whole"] for document in documents)
    if arguments.json:
        print_json({"uri": str(catalog.layout), "ok": are_whole, "checkpoints": documents})
    return 0 if are_whole else 1


def verify_step(catalog: "Catalog", step: int) -> dict[str, Any]:
    """Reads a checkpoint -> what there is of it, and what is wrong."""
    from s3dataset._commits import Marks, find_damage  # noqa: PLC0415
    from s3dataset._progress import showing  # noqa: PLC0415
    from s3dataset.errors import DecodeError, ObjectNotFoundError  # noqa: PLC0415

    try:
        record = catalog.read(step).record
    except ObjectNotFoundError:
        return {"step": step, "whole": False, "error": f"{catalog.layout} has no checkpoint of step {step}"}
    except DecodeError as error:
        return {"step": step, "whole": False, "damages": [str(error)]}
    with Marks(catalog).restore(step), showing(None, f"verifying step {step}") as bar:
        damages = find_damage(catalog, record, bar)
    return {
        "step": step,
        "whole": not damages,
        "files": len(record.objects),
        "bytes": record.nbytes,
        "with_checksums": sum(stored.checksum is not None for stored in record.objects),
        "damages": [str(damage) for damage in damages],
    }


def print_verified(document: dict[str, Any]) -> None:
    step = document["step"]
    if "error" in document:
        tell(document["error"])
        return
    if "files" not in document:
        print(f"step {step}: DAMAGED")
    elif document["whole"]:
        files, compared = document["files"], document["with_checksums"]
        how = (
            "compared with their checksums"
            if compared == files
            else "sizes and ETags only: no checksums are stored"
            if not compared
            else f"{compared:,} with checksums"
        )
        print(f"step {step}: whole ({counted(files, 'file')}, {readable_bytes(document['bytes'])}, {how})")
    else:
        print(f"step {step}: DAMAGED ({len(document['damages']):,} of {counted(document['files'], 'file')})")
    for damage in document["damages"]:
        print(f"  {damage}")


# -- prune -------------------------------------------------------------------------------------------------------------


def run_prune(arguments: argparse.Namespace) -> int:
    from s3dataset._commits import Pruner  # noqa: PLC0415
    from s3dataset._progress import showing  # noqa: PLC0415

    if arguments.keep_every is not None and arguments.keep_last is None:
        arguments.parser.error("--keep-every says what is kept beside the newest ones: give --keep-last too")
    catalog = open_catalog(arguments)
    with showing(None, "deleting", unit=" attempts") as bar:
        pruned = Pruner(catalog).prune(
            keep_last=arguments.keep_last, keep_every=arguments.keep_every, dry_run=arguments.dry_run, progress=bar
        )
    if arguments.json:
        print_json(
            {
                "uri": str(catalog.layout),
                "dry_run": arguments.dry_run,
                "steps": pruned.steps,
                "attempts": [catalog.layout.uri(f"{catalog.layout.data}{attempt}/") for attempt in pruned.attempts],
                "uploads": [catalog.layout.uri(key) for key in pruned.uploads],
            }
        )
        return 0
    verb = "would delete" if arguments.dry_run else "deleted"
    for step in pruned.steps:
        print(f"{verb} step {step}")
    for attempt in pruned.attempts:
        print(f"{verb} files of an attempt that is not committed: {catalog.layout.data}{attempt}/")
    for key in pruned.uploads:
        print(f"{verb} an unfinished upload: {key}")
    if not any(pruned):
        print(f"nothing to delete below {catalog.layout}", file=sys.stderr)
    return 0
