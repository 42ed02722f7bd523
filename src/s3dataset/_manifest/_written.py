"""Manifests of shards that were just written, and of objects whose sizes were just asked for."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Final, cast

from s3dataset._client import ClientRef, Reply
from s3dataset._manifest._builder import Builder, Chunk
from s3dataset._manifest._chunks import chunks_of_rows, completed, ends_of, rebuilt
from s3dataset._manifest._columns import Columns
from s3dataset._manifest._etags import pack_etags
from s3dataset._manifest._manifest import Manifest
from s3dataset._manifest._sample_columns import SampleColumns
from s3dataset._uri import S3Uri
from s3dataset.errors import S3Exception
from s3dataset.formats import Format, ShardIndex, describe

_HEADS_AT_ONCE: Final = 512


@dataclass(frozen=True, slots=True)
class WrittenShard:
    """A shard and where its samples lie.

    Attributes:
        bucket: Of the object.
        key: Of the object.
        size: Bytes.
        etag: With its quotes.
        index: From `ShardWriter.finish`.
    """

    bucket: str
    key: str
    size: int
    etag: str
    index: ShardIndex


def manifest_of_shards(shards: Sequence[WrittenShard], format: Format, ref: ClientRef) -> Manifest:  # noqa: A002
    """The manifest of shards, indexed, without reading them.

    Raises:
        OSError: The disk is full.
    """
    samples = SampleColumns(describe(format))
    builder = Builder((), samples)
    try:
        for row, shard in enumerate(shards):
            samples.put(row, shard.index)
            digests, parts, texts = pack_etags(*_packed([shard.etag]))
            key = shard.key.encode()
            size = array("Q", [shard.size]).tobytes()
            builder.add(Chunk(shard.bucket, key, [len(key)], size, None, digests, parts.tobytes(), texts))
        return Manifest._of(builder.finish(), ref)  # noqa: SLF001
    finally:
        builder.close()


def manifest_of_objects(rows: Iterable[tuple[str, str, int, str | None]], ref: ClientRef) -> Manifest:
    """The manifest of objects that were listed: (bucket, key, size, ETag) each, in this order, repetitions too.

    Raises:
        OSError: The disk is full.
    """
    builder = Builder()
    try:
        for bucket, group in groupby(rows, key=itemgetter(0)):
            found = list(group)
            keys = [key.encode() for _, key, _, _ in found]
            sizes = array("Q", [size for _, _, size, _ in found]).tobytes()
            digests, parts, texts = pack_etags(*_packed([etag or "" for _, _, _, etag in found]))
            builder.add(Chunk(bucket, b"".join(keys), ends_of(keys), sizes, None, digests, parts.tobytes(), texts))
        return Manifest._of(builder.finish(), ref)  # noqa: SLF001
    finally:
        builder.close()


def joined(parts: Sequence[tuple[Manifest, Sequence[int]]], ref: ClientRef, *, prefix: S3Uri) -> Manifest:
    """Rows of manifests of the same format, one behind the other.

    Args:
        parts: Each with the rows to take.
        ref: The client of the whole.
        prefix: They are all that lies below it.

    Raises:
        OSError: The disk is full.
    """
    sources = [{"uri": str(prefix), "pattern": None, "complete": True}]
    columns = [(manifest._columns, rows) for manifest, rows in parts]  # noqa: SLF001
    return Manifest._of(rebuilt(columns, sources), ref)  # noqa: SLF001


def manifest_of_bytes(content: bytes, place: str, ref: ClientRef) -> Manifest:
    """What `Manifest.save` wrote, fetched by the caller.

    Raises:
        DecodeError: It is something else.
    """
    return Manifest._of(Columns(content, place), ref)  # noqa: SLF001


def with_sizes(manifest: Manifest) -> Manifest:
    """The same objects; those of unknown size are asked for their size and ETag.

    Raises:
        S3Exception: An object is not there, or asking failed.
    """
    columns, ref = manifest._columns, manifest._ref  # noqa: SLF001
    unknown = [row for row in range(len(columns)) if columns.size(row) is None]
    if not unknown:
        return manifest
    found: dict[int, tuple[int, str | None]] = {}
    client = ref.get()
    for start in range(0, len(unknown), _HEADS_AT_ONCE):
        some = unknown[start : start + _HEADS_AT_ONCE]
        with client.queue() as queue:
            indices = [queue.head(columns.bucket(row), columns.key(row)) for row in some]
            for row, index in zip(some, indices, strict=True):
                (result,) = queue.take_many(range(index, index + 1))
                if isinstance(result, S3Exception):
                    raise result
                reply = cast(Reply, result)
                found[row] = (reply.object_size, reply.etag or None)
    builder = Builder(columns.header["sources"])
    try:
        at = 0
        for chunk in chunks_of_rows(columns, range(len(columns)), ascending=columns.header["ascending"]):
            rows = range(at, at + len(chunk.key_ends))
            at = rows.stop
            builder.add(completed(chunk, columns, rows, found))
        return Manifest._of(builder.finish(), ref)  # noqa: SLF001
    finally:
        builder.close()


def _packed(etags: Sequence[str]) -> tuple[bytes, list[int]]:
    texts = [etag.removeprefix('"').removesuffix('"').encode() for etag in etags]
    return b"".join(texts), ends_of(texts)
