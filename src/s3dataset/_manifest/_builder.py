"""Makes a manifest's columns from chunks of rows, with bounded memory, whatever the order in which they come."""

import hashlib
import io
import json
import tempfile
from array import array
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from operator import lt
from typing import IO, Any, Final, NamedTuple

from s3dataset._manifest._columns import (
    ALIGNMENT,
    FORMAT_VERSION,
    MAGIC,
    NO_SIZE,
    PREAMBLE,
    SAMPLES_VERSION,
    Columns,
)
from s3dataset._manifest._etags import NO_ETAG, OTHER_ETAG, PLACE
from s3dataset._manifest._files import SMALL_BYTES, private_file
from s3dataset._manifest._sample_columns import SampleColumns

_IN_MEMORY_BYTES: Final = 64 << 20
"""Rows wait in memory up to here, and in an unnamed file from then on: half a million objects."""


class Chunk(NamedTuple):
    """Consecutive rows of one bucket; columns of which nothing is known are None."""

    bucket: str
    keys: bytes
    key_ends: Sequence[int]
    sizes: bytes | None = None  # uint64
    mtimes: bytes | None = None  # uint32
    digests: bytes | None = None
    parts: bytes | None = None  # uint16
    texts: bytes = b""
    ascending: bool = False  # whether the keys are known to ascend


class _Stored(NamedTuple):
    """Where a chunk is kept: its columns one behind the other."""

    position: Any
    bucket: int
    rows: int
    offset: int  # in the spool
    lengths: tuple[int, ...]  # of the columns; -1: not known
    first: bytes | None  # key, where all ascend
    last: bytes | None


class Builder:
    """Collects chunks and writes the manifest.

    Args:
        sources: What the header says of where the rows come from.
        samples: The samples of the rows, if they are shards; in the order of the rows, and closed with the builder.
    """

    def __init__(self, sources: Sequence[dict[str, Any]] = (), samples: SampleColumns | None = None) -> None:
        self._sources = list(sources)
        self._samples = samples
        self._spool: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES, prefix="s3dataset-")  # noqa: SIM115
        self._end = 0
        self._stored: list[_Stored] = []
        self._buckets: dict[str, int] = {}
        self.num_objects = 0

    def add(self, chunk: Chunk, position: Any = None) -> None:
        """Takes rows.

        Args:
            chunk: The rows.
            position: Orders the chunks; where it is given once it must be given always. Default: as they come.
        """
        if not chunk.key_ends:
            return
        columns = (
            chunk.keys,
            array("I", chunk.key_ends).tobytes(),
            chunk.sizes,
            chunk.mtimes,
            chunk.digests,
            chunk.parts,
            chunk.texts,
        )
        lengths = tuple(-1 if column is None else len(column) for column in columns)
        payload = b"".join(column for column in columns if column is not None)
        self._spool.seek(self._end)
        self._spool.write(payload)
        bucket = self._buckets.setdefault(chunk.bucket, len(self._buckets))
        rows = len(chunk.key_ends)
        first = last = None
        ascending = chunk.ascending
        if not ascending:
            ends = chunk.key_ends
            keys = [chunk.keys[start:end] for start, end in zip([0, *ends], ends, strict=False)]
            ascending = is_ascending(keys)
        if ascending:
            first = chunk.keys[: chunk.key_ends[0]]
            last = chunk.keys[chunk.key_ends[-2] if rows > 1 else 0 :]
        self._stored.append(_Stored(position, bucket, rows, self._end, lengths, first, last))
        self._end += len(payload)
        self.num_objects += rows

    def close(self) -> None:
        """Gives up what was collected. Idempotent."""
        self._spool.close()
        if self._samples is not None:
            self._samples.close()

    def finish(self) -> Columns:
        """Writes the manifest: in memory when it is small, else in a private file that goes with the columns.

        Raises:
            OSError: The disk is full.
        """
        try:
            if self._stored and self._stored[0].position is not None:
                self._stored.sort(key=lambda stored: stored.position)
            self._renumber_buckets()
            if self._end + (self._samples.nbytes if self._samples is not None else 0) >= SMALL_BYTES:
                return private_file(self._write)
            memory = io.BytesIO()
            self._write(memory)
            return Columns(memory.getvalue(), "a manifest in memory")
        finally:
            self.close()

    def _renumber_buckets(self) -> None:
        """Numbers buckets in the order of the rows, so that equal rows make equal files."""
        names = list(self._buckets)
        order: dict[int, int] = {}
        for stored in self._stored:
            order.setdefault(stored.bucket, len(order))
        self._buckets = {names[old]: new for old, new in order.items()}
        self._stored = [stored._replace(bucket=order[stored.bucket]) for stored in self._stored]

    def _column(self, stored: _Stored, index: int) -> bytes:
        length = stored.lengths[index]
        if length <= 0:
            return b""
        self._spool.seek(stored.offset + sum(max(other, 0) for other in stored.lengths[:index]))
        return self._spool.read(length)

    def _write(self, file: IO[bytes]) -> None:
        sections: dict[str, tuple[int, int]] = {}
        digests: dict[str, str] = {}
        file.write(PREAMBLE.pack(b"", 0, 0))
        at = PREAMBLE.size

        def write(section: str, parts: Iterable[bytes | memoryview], *, identifies: bool = True) -> None:
            nonlocal at
            padding = -at % ALIGNMENT
            file.write(bytes(padding))
            start = at = at + padding
            digest = hashlib.sha256()
            for part in parts:
                file.write(part)
                digest.update(part)
                at += memoryview(part).nbytes
            sections[section] = (start, at - start)
            if identifies:
                digests[section] = digest.hexdigest()

        def column(index: int, missing: Callable[[int], bytes]) -> Iterable[bytes]:
            for stored in self._stored:
                yield self._column(stored, index) if stored.lengths[index] >= 0 else missing(stored.rows)

        write("keys", column(0, lambda _: b""))
        write("key_ends", self._key_ends())
        num_bytes = unknown_sizes = 0

        def sizes() -> Iterable[bytes]:
            nonlocal num_bytes, unknown_sizes
            for part in column(2, lambda rows: array("Q", [NO_SIZE]).tobytes() * rows):
                numbers = array("Q", part)
                none = numbers.count(NO_SIZE)
                unknown_sizes += none
                num_bytes += sum(numbers) - none * NO_SIZE
                yield part

        if self._knows(2):
            write("sizes", sizes())
        else:
            unknown_sizes = self.num_objects
        if self._knows(3):
            write("mtimes", column(3, lambda rows: bytes(4 * rows)), identifies=False)
        if self._knows(4):
            write("etags", self._etags())
            write("etag_parts", column(5, lambda rows: array("H", [NO_ETAG]).tobytes() * rows))
            if any(stored.lengths[6] > 0 for stored in self._stored):
                write("etag_texts", column(6, lambda _: b""))
        if len(self._buckets) > 1:
            write("buckets", (array("H", [stored.bucket]).tobytes() * stored.rows for stored in self._stored))
        version = FORMAT_VERSION
        identity: dict[str, Any] = {"version": version, "buckets": list(self._buckets), "columns": digests}
        header = {
            "version": version,
            "buckets": list(self._buckets),
            "num_objects": self.num_objects,
            "num_bytes": num_bytes,
            "unknown_sizes": unknown_sizes,
            "ascending": self._ascending,
            "fingerprint": _digest(identity),
            "sources": self._sources,
            "sections": sections,
        }
        samples = self._samples
        if samples is not None:
            version = SAMPLES_VERSION
            told = {"format": samples.description, "objects_fingerprint": header["fingerprint"]}
            for section, parts in samples.columns(self.num_objects):
                write(section, parts)
            identity |= {"version": version, "format": samples.description}
            header |= {"version": version, "fingerprint": _digest(identity), "samples": told}
        text = json.dumps(header).encode()
        file.write(text)
        file.seek(0)
        file.write(PREAMBLE.pack(MAGIC + bytes([version]), at, len(text)))
        file.flush()

    def _knows(self, index: int) -> bool:
        return any(stored.lengths[index] >= 0 for stored in self._stored)

    def _key_ends(self) -> Iterable[bytes]:
        """The column, and whether rows ascend strictly by bucket and key, which makes finding one a binary search."""
        base = 0
        self._ascending = len(self._buckets) <= 1
        last: bytes | None = None
        for stored in self._stored:
            self._ascending = self._ascending and stored.first is not None and (last is None or last < stored.first)
            last = stored.last
            ends = array("I", self._column(stored, 1))
            yield array("Q", [base + end for end in ends] if base else ends).tobytes()
            base += ends[-1]

    def _etags(self) -> Iterable[bytes]:
        base = 0
        for stored in self._stored:
            if stored.lengths[4] < 0:
                yield bytes(16 * stored.rows)
                continue
            digests = self._column(stored, 4)
            if stored.lengths[6] > 0:
                patched = bytearray(digests)
                for row, parts in enumerate(array("H", self._column(stored, 5))):
                    if parts == OTHER_ETAG:
                        start, end = PLACE.unpack_from(patched, 16 * row)
                        PLACE.pack_into(patched, 16 * row, base + start, base + end)
                digests = bytes(patched)
                base += stored.lengths[6]
            yield digests


def _digest(identity: dict[str, Any]) -> str:
    """A fingerprint of what tells one manifest from another."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def is_ascending(keys: Sequence[bytes]) -> bool:
    """Whether each is less than the next."""
    return all(map(lt, keys, islice(keys, 1, None)))
