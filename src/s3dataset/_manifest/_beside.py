"""The index that lies beside the data: where, what of a listing it covers, bringing it up to date."""

import warnings
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass

from s3dataset._client import Client, ClientRef
from s3dataset._manifest._chunks import rebuilt, with_samples
from s3dataset._manifest._columns import Columns
from s3dataset._manifest._index import Indexing, IndexProgress, index_location
from s3dataset._manifest._lookup import Lookup
from s3dataset._manifest._manifest import Manifest
from s3dataset._manifest._pattern import compile_pattern
from s3dataset._manifest._sample_columns import SampleColumns
from s3dataset._uri import S3Uri
from s3dataset.errors import DecodeError, ObjectNotFoundError
from s3dataset.formats import Format, describe, named_format


@dataclass(frozen=True, slots=True)
class FoundIndex:
    """An index, held against a listing.

    Attributes:
        location: Where it was found.
        manifest: The objects of the listing with their samples; None unless it covers them all.
        missing: How many objects it does not know.
        changed: How many have another size or ETag than when they were indexed.
        example: The URI of the first of these, or "".
        other_format: It is of this format, another one than was asked for.
    """

    location: str
    manifest: Manifest | None
    missing: int = 0
    changed: int = 0
    example: str = ""
    other_format: Format | None = None

    @property
    def why(self) -> str:
        """What keeps it from being used, as the end of a sentence about it; "" where nothing does."""
        if self.other_format is not None:
            return f"is of {self.other_format!r}"
        parts = [f"does not know {_shards(self.missing)}"] * bool(self.missing)
        parts += [f"is of earlier contents of {_shards(self.changed)}"] * bool(self.changed)
        return f"{' and '.join(parts)}, as {self.example}" if parts else ""


@dataclass(frozen=True, slots=True)
class Updated:
    """What `update_index` did.

    Attributes:
        manifest: The objects of the listing with their samples.
        scanned: How many shards were scanned.
        scanned_bytes: Their sizes.
        kept: How many were known.
        written: Whether there was something to write.
    """

    manifest: Manifest
    scanned: int
    scanned_bytes: int
    kept: int
    written: bool


def find_index(
    client: Client,
    prefix_uri: str | S3Uri,
    listed: Manifest,
    format: str | Format,  # noqa: A002
) -> FoundIndex | None:
    """Looks for the index beside the data; one request, and a large index is fetched with several.

    Args:
        client: Whose connections fetch it.
        prefix_uri: What was listed.
        listed: The listing; each of its objects is compared with the index by size and ETag.
        format: What the objects are.

    Returns:
        What was found; None where there is none.

    Raises:
        DecodeError: What is there is no manifest, or was written by a newer release.
        S3Exception: It could not be fetched.
        OSError: The disk is full.
    """
    return check_index(index_location(prefix_uri, format), listed, format, client=client)


def check_index(
    location: str,
    listed: Manifest,
    format: str | Format,  # noqa: A002
    *,
    client: Client | None = None,
) -> FoundIndex | None:
    """The same for an index elsewhere, fetched with the listing's client unless another is given."""
    index = _load(location, listed._ref if client is None else client.ref)  # noqa: SLF001
    return None if index is None else _compare(location, index, listed, format)


def _compare(location: str, index: Manifest, listed: Manifest, format: str | Format) -> FoundIndex:  # noqa: A002
    known, columns = index._columns, listed._columns  # noqa: SLF001
    description = describe(named_format(format))
    if known.samples is None or known.samples.description != description:
        return FoundIndex(location, None, len(columns), 0, listed.uri(0) if len(columns) else "", index.format)
    if known.samples.objects_fingerprint == columns.header["fingerprint"]:
        return FoundIndex(location, Manifest._of(known, listed._ref))  # noqa: SLF001
    lookup, samples = Lookup(known, ()), SampleColumns(description)
    missing = changed = 0
    example = ""
    for row in range(len(columns)):
        bucket = columns.bucket(row)
        there = lookup.row(bucket, columns.key_bytes(row))
        if there is None or known.bucket(there) != bucket:
            missing += 1
        elif known.size(there) != columns.size(row) or known.etag(there) != columns.etag(row):
            changed += 1
        else:
            samples.keep(row, known.samples, there)
            continue
        example = example or listed.uri(row)
    if missing or changed:
        samples.close()
        return FoundIndex(location, None, missing, changed, example)
    return FoundIndex(location, Manifest._of(with_samples(columns, samples), listed._ref))  # noqa: SLF001


def update_index(
    listed: Manifest,
    format: str | Format,  # noqa: A002
    location: str,
    *,
    full: bool = False,
    shared: bool = False,
    progress: Callable[[IndexProgress], None] | None = None,
) -> Updated:
    """Indexes what is not indexed yet, and writes the index if that changed it.

    Args:
        listed: The shards as they are now.
        format: What they are.
        location: A path or URI; what is there already is used.
        full: Scan all of them anew.
        shared: The index may also hold shards that `listed` is not about, of the same folder: they stay in it. When the
            run fails or is interrupted, what was scanned so far is written, so that the next one goes on from there.
        progress: As for `Manifest.index`.

    Raises:
        S3Exception: As for `Manifest.index`, or the index could not be read or written; its notes tell what was kept.
        OSError: The path cannot be written to, or the disk is full.
    """
    ref, columns = listed._ref, listed._columns  # noqa: SLF001
    chosen = named_format(format)
    known = None if full and not shared else _load_or_forget(location, ref)
    with closing(Indexing(columns, chosen, ref.get(), [known._columns] if known and not full else [])) as indexing:  # noqa: SLF001
        try:
            indexed = indexing.run(progress)
        except BaseException as error:
            if shared and indexing.scanned:
                with suppress(Exception):
                    so_far = indexing.so_far()
                    Manifest._of(_with_others(so_far, columns, known), ref).save(location)  # noqa: SLF001
                    error.add_note(
                        f"{len(so_far):,} of {len(columns):,} shards are kept in {location}: "
                        "the same command goes on from there"
                    )
            raise
        scanned, kept = indexing.scanned, indexing.kept
        scanned_bytes = indexing.scanned_bytes
    whole = Manifest._of(_with_others(indexed, columns, known) if shared else indexed, ref)  # noqa: SLF001
    written = known is None or whole.fingerprint != known.fingerprint
    if written:
        whole.save(location)
    return Updated(Manifest._of(indexed, ref), scanned, scanned_bytes, kept, written)  # noqa: SLF001


def _shards(count: int) -> str:
    return f"{count:,} shard{'s' * (count != 1)}"


def _load(location: str, ref: ClientRef) -> Manifest | None:
    try:
        return Manifest._load(location, ref)  # noqa: SLF001
    except (ObjectNotFoundError, FileNotFoundError):
        return None


def _load_or_forget(location: str, ref: ClientRef) -> Manifest | None:
    """An index that is to be replaced anyway need not be whole."""
    try:
        return _load(location, ref)
    except DecodeError as error:
        if "update s3dataset" in str(error):
            raise
        warnings.warn(f"{error}. It is replaced", stacklevel=3)
        return None


def _with_others(indexed: Columns, listed: Columns, known: Manifest | None) -> Columns:
    """What was indexed, and those shards of an earlier index that the listing is not about; by bucket and key."""
    if known is None or known._columns.samples is None or indexed.samples is None:  # noqa: SLF001
        return indexed
    others = known._columns  # noqa: SLF001
    if known._columns.samples.description != indexed.samples.description:  # noqa: SLF001
        return indexed
    lookup = Lookup(listed, ())
    now = Lookup(indexed, ())
    sources = listed.header["sources"]
    tests = [(S3Uri.parse_prefix(source["uri"]), source["pattern"]) for source in sources]
    patterns = [(uri, compile_pattern(pattern) if pattern is not None else None) for uri, pattern in tests]

    def gone(bucket: str, key: str) -> bool:
        """Whether it would have been listed, if it were there still."""
        return any(
            uri.bucket == bucket
            and key.startswith(uri.key)
            and (pattern is None or pattern.matches(key[len(uri.key) :]))
            for uri, pattern in patterns
        )

    rows = []
    for row in range(len(others)):
        bucket, key = others.bucket(row), others.key(row)
        there = lookup.row(bucket, key.encode())
        listed_now = there is not None and listed.bucket(there) == bucket
        if listed_now:
            done = now.row(bucket, key.encode())
            if done is None and others.etag(row) == listed.etag(there or 0):
                rows.append(row)  # not come to, after an interruption
        elif not gone(bucket, key):
            rows.append(row)
    if not rows:
        return indexed
    order = sorted(
        [(indexed.bucket(row), indexed.key_bytes(row), 0, row) for row in range(len(indexed))]
        + [(others.bucket(row), others.key_bytes(row), 1, row) for row in rows]
    )
    parts: list[tuple[Columns, list[int]]] = []
    for _, _, which, row in order:
        columns = others if which else indexed
        if not parts or parts[-1][0] is not columns:
            parts.append((columns, []))
        parts[-1][1].append(row)
    more = [source for source in others.header["sources"] if source not in sources]
    return rebuilt(parts, [*indexed.header["sources"], *more])
