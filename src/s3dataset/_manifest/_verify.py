"""What changed since a manifest was made."""

from collections.abc import Iterator, Sequence
from typing import Final, cast

from s3dataset._client import Client, Reply
from s3dataset._manifest._columns import Columns
from s3dataset._manifest._entries import Change, ManifestEntry, ManifestObjects
from s3dataset._manifest._listing import list_columns
from s3dataset._manifest._lookup import Lookup
from s3dataset._uri import S3Uri
from s3dataset.errors import ObjectNotFoundError, S3Exception

_HEADS_AT_ONCE: Final = 512


def changes(columns: Columns, lookup: Lookup, client: Client) -> list[Change]:
    """Compares columns with what the service has, by URI; see `Manifest.verify`."""
    seen = bytearray(len(columns))  # rows that are accounted for
    found: list[Change] = []
    for source in columns.header["sources"]:
        uri = S3Uri.parse_prefix(source["uri"])
        now = list_columns(client, uri, pattern=source["pattern"], warn=False)
        found.extend(_against_listing(columns, lookup, ManifestObjects(now), seen, complete=source["complete"]))
        found.extend(_gone(columns, lookup, uri, seen))
    found.extend(_against_heads(columns, client, [row for row, known in enumerate(seen) if not known]))
    return sorted(found, key=lambda change: change.uri)


def _against_listing(
    columns: Columns, lookup: Lookup, now: ManifestObjects, seen: bytearray, *, complete: bool
) -> Iterator[Change]:
    objects = ManifestObjects(columns)
    for entry in now:
        row = lookup.row(entry.bucket, entry.key.encode())
        if row is None:
            if complete:
                yield Change("added", entry.uri, None, entry)
        elif not seen[row]:
            seen[row] = 1
            before = objects[row]
            if _differ(before, entry):
                yield Change("changed", entry.uri, before, entry)


def _gone(columns: Columns, lookup: Lookup, uri: S3Uri, seen: bytearray) -> Iterator[Change]:
    """Rows below a prefix that its listing did not have; marks them, and repetitions of others, as seen."""
    objects = ManifestObjects(columns)
    for row, known in enumerate(seen):
        if known or columns.bucket(row) != uri.bucket or not columns.key(row).startswith(uri.key):
            continue
        seen[row] = 1
        if lookup.row(uri.bucket, columns.key_bytes(row)) == row:
            yield Change("removed", objects[row].uri, objects[row], None)


def _against_heads(columns: Columns, client: Client, rows: Sequence[int]) -> Iterator[Change]:
    objects = ManifestObjects(columns)
    for start in range(0, len(rows), _HEADS_AT_ONCE):
        some = rows[start : start + _HEADS_AT_ONCE]
        with client.queue() as queue:
            indices = [queue.head(columns.bucket(row), columns.key(row)) for row in some]
            for row, index in zip(some, indices, strict=True):
                before = objects[row]
                (result,) = queue.take_many(range(index, index + 1))
                if isinstance(result, ObjectNotFoundError):
                    yield Change("removed", before.uri, before, None)
                    continue
                if isinstance(result, S3Exception):
                    raise result
                reply = cast(Reply, result)
                modified = None if reply.last_modified is None else int(reply.last_modified)
                after = ManifestEntry(before.bucket, before.key, reply.object_size, reply.etag or None, modified)
                if _differ(before, after):
                    yield Change("changed", before.uri, before, after)


def _differ(before: ManifestEntry, after: ManifestEntry) -> bool:
    """Whether what is known of both differs."""
    return any(
        old is not None and new is not None and old != new
        for old, new in ((before.size, after.size), (before.etag, after.etag))
    )
