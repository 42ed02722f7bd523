"""Bringing an index up to date, and writing it beside others who do the same."""

import logging
import random
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from s3dataset._client import Client, ClientRef
from s3dataset._manifest._beside import indexes_above
from s3dataset._manifest._chunks import rebuilt
from s3dataset._manifest._columns import UNKNOWN_VERSION, Columns
from s3dataset._manifest._files import fetched_version, map_file
from s3dataset._manifest._index import Indexing, IndexProgress
from s3dataset._manifest._lookup import Lookup
from s3dataset._manifest._manifest import Manifest
from s3dataset._manifest._pattern import compile_pattern
from s3dataset._uri import S3Uri
from s3dataset._warnings import warn_caller
from s3dataset.errors import ConflictError, DecodeError, ObjectNotFoundError, PreconditionFailedError, S3Exception
from s3dataset.formats import Format, named_format

_LOGGER: Final = logging.getLogger("s3dataset")
_TRIES: Final = 20
_PAUSE_S: Final = 0.05
_NOT_IMPLEMENTED: Final = 501
_PARTIAL: Final = ".partial"


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

    When the run fails or is interrupted, what was scanned so far is kept, so that the next one goes on from there.

    Args:
        listed: The shards as they are now.
        format: What they are.
        location: A path or URI; what is there already is used.
        full: Scan all of them anew.
        shared: The index may also hold shards that `listed` is not about, of the same folder: they stay in it, and so
            does what others write there meanwhile. What was scanned before a failure is written there too. Without it
            the index is of exactly these shards, and that goes to `location` + ".partial", until a run succeeds. Where
            there is no index, those in the folders above are used.
        progress: As for `Manifest.index`.

    Raises:
        S3Exception: As for `Manifest.index`, or the index could not be read or written; its notes tell what was kept.
        OSError: The path cannot be written to, or the disk is full.
    """
    ref, columns = listed._ref, listed._columns  # noqa: SLF001
    place = _Place(location, ref, is_own=shared)
    partial = None if shared else _Place(location + _PARTIAL, ref, is_own=True)
    place.read()
    if full and not shared:
        place.known = None
    reuse = [place.known]
    if not full:
        if partial is not None:
            partial.read()
            reuse.append(partial.known)
        elif place.known is None:
            reuse += _known_above(location, ref)
    known = [] if full else [index._columns for index in reuse if index is not None]  # noqa: SLF001
    with closing(Indexing(columns, named_format(format), ref.get(), known)) as indexing:
        try:
            indexed = indexing.run(progress)
        except BaseException as error:
            if indexing.scanned:
                where = (partial or place).location
                try:
                    so_far = indexing.so_far()
                    if partial is None:
                        place.add(so_far, columns)
                    else:
                        partial.replace(so_far)
                except Exception as e:  # noqa: BLE001 - what it came from is raised
                    error.add_note(f"What was scanned so far could not be kept in {where}: {type(e).__name__}: {e}")
                else:
                    error.add_note(
                        f"{len(so_far):,} of {len(columns):,} shards are kept in {where}: the same command goes on "
                        "from there"
                    )
            raise
        scanned, kept = indexing.scanned, indexing.kept
        scanned_bytes = indexing.scanned_bytes
    written = place.add(indexed, columns) if partial is None else place.replace(indexed)
    if partial is not None:
        partial.remove()
    return Updated(Manifest._of(indexed, ref), scanned, scanned_bytes, kept, written)  # noqa: SLF001


def _known_above(location: str, ref: ClientRef) -> list[Manifest]:
    if not location.startswith("s3://"):
        return []
    known = []
    for above in indexes_above(ref.get(), location):
        with suppress(DecodeError):  # a broken one tells nothing; its shards are scanned
            known.append(Manifest._load(above, ref))  # noqa: SLF001
    return known


class _Place:
    """Where an index is kept.

    Args:
        location: A path or URI.
        ref: Whose client reads and writes it.
        is_own: Whether the place is an index's own, so that what is no manifest there is replaced. One that a user has
            named may hold a file of theirs.

    Attributes:
        location: A path or URI.
        known: What is there; None where nothing is, or before `read`.
    """

    def __init__(self, location: str, ref: ClientRef, *, is_own: bool) -> None:
        self.location = location
        self._is_own = is_own
        self.known: Manifest | None = None
        self._ref = ref
        self._uri = S3Uri.parse(location, need_key=True) if location.startswith("s3://") else None
        self._etag: str | None = None  # None: nothing is there

    def read(self) -> None:
        """Looks what is there.

        Raises:
            DecodeError: It was written by a newer release, or is no manifest and may not be replaced.
            S3Exception: It could not be fetched.
        """
        self.known, self._etag = None, None
        try:
            if self._uri is None:
                columns = map_file(self.location)
            else:
                columns, self._etag = fetched_version(self._ref.get(), self._uri)
        except (ObjectNotFoundError, FileNotFoundError):
            return
        except DecodeError as error:
            if error.code == UNKNOWN_VERSION or not self._is_own:
                raise
            warn_caller(f"{error}. It is replaced")
            if self._uri is not None:
                self._etag = self._ref.get().head_object(self._uri.bucket, self._uri.key).etag
            return
        self.known = Manifest._of(columns, self._ref)  # noqa: SLF001

    def replace(self, indexed: Columns) -> bool:
        """Writes an index, unless the same is there -> whether it did."""
        whole = Manifest._of(indexed, self._ref)  # noqa: SLF001
        if self.known is not None and whole.fingerprint == self.known.fingerprint:
            return False
        whole.save(self.location)
        return True

    def add(self, indexed: Columns, listed: Columns) -> bool:
        """Writes an index, with what is there of other shards; what others write there meanwhile is not lost.

        Raises:
            PreconditionFailedError: Others write there all the time.
            S3Exception: It could not be written.
        """
        began_with = self.known
        for left in range(_TRIES, -1, -1):
            merged = _with_others(indexed, listed, self.known, began_with)
            if self._uri is None or self._etag == "":
                return self.replace(merged)
            whole = Manifest._of(merged, self._ref)  # noqa: SLF001
            if self.known is not None and whole.fingerprint == self.known.fingerprint:
                return False
            etag = self._etag
            condition = ("if-none-match", "*") if etag is None else ("if-match", etag)
            try:
                _put(self._ref.get(), self._uri, merged, condition)
            except (PreconditionFailedError, ConflictError, ObjectNotFoundError) as error:
                if not left:
                    raise
                time.sleep(random.uniform(0, _PAUSE_S * 2 ** min(_TRIES - left, 5)))
                self.read()
                # What it says did not hold does hold: Ceph 16 refuses every PutObject with If-Match.
                if not isinstance(error, PreconditionFailedError) or self._etag != etag:
                    continue
            except S3Exception as error:
                if not _knows_no_conditions(error):
                    raise
            else:
                return True
            _LOGGER.warning("the store of %s knows no conditional writes: let one index at a time be made", self._uri)
            whole.save(self.location)
            return True
        return False

    def remove(self) -> None:
        """Removes what `read` or `replace` found there."""
        if self._uri is None:
            Path(self.location).unlink(missing_ok=True)
        elif self.known is not None:
            self._ref.get().delete_object(self._uri.bucket, self._uri.key)


def _put(client: Client, uri: S3Uri, columns: Columns, condition: tuple[str, str]) -> None:
    client.put_many([(uri.bucket, uri.key, memoryview(columns.buffer), [condition])])


def _knows_no_conditions(error: S3Exception) -> bool:
    named = error.code in ("NotImplemented", "InvalidArgument", "InvalidRequest")
    return error.status == _NOT_IMPLEMENTED or (named and error.status == 400)


def _with_others(indexed: Columns, listed: Columns, known: Manifest | None, began_with: Manifest | None) -> Columns:
    """What was indexed, and those shards of an earlier index that the listing is not about; by bucket and key.

    Args:
        indexed: Shards with their samples, of those listed.
        listed: What was listed.
        known: The index as it is now.
        began_with: As it was before the listing's shards were scanned. What somebody else has added since then stays:
            it may have come after the listing.
    """
    if known is None or known._columns.samples is None or indexed.samples is None:  # noqa: SLF001
        return indexed
    others = known._columns  # noqa: SLF001
    if known._columns.samples.description != indexed.samples.description:  # noqa: SLF001
        return indexed
    lookup = Lookup(listed, ())
    now = Lookup(indexed, ())
    before = None if began_with is None else Lookup(began_with._columns, ())  # noqa: SLF001
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

    def is_new(bucket: str, key: str) -> bool:
        """Whether somebody else has added it since."""
        return began_with is not known and (before is None or before.row(bucket, key.encode()) is None)

    rows = []
    for row in range(len(others)):
        bucket, key = others.bucket(row), others.key(row)
        there = lookup.row(bucket, key.encode())
        listed_now = there is not None and listed.bucket(there) == bucket
        if listed_now:
            done = now.row(bucket, key.encode())
            if done is None and (others.etag(row) == listed.etag(there or 0) or is_new(bucket, key)):
                rows.append(row)  # not come to, after an interruption
        elif not gone(bucket, key) or is_new(bucket, key):
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
