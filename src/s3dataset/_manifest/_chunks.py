"""Chunks of rows, made of a listing's pages and of other manifests."""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from s3dataset._client import ListPage
from s3dataset._manifest._builder import Builder, Chunk
from s3dataset._manifest._columns import NO_SIZE, Columns
from s3dataset._manifest._etags import pack_etags
from s3dataset._manifest._sample_columns import SampleColumns
from s3dataset._manifest._samples import Samples

_LATEST_MTIME: Final = (1 << 32) - 1
_ROWS_AT_ONCE: Final = 4096


def chunk_of_page(
    page: ListPage, bucket: str, ends: "array[int]", start: int, stop: int, *, ascending: bool = False
) -> Chunk:
    """Rows [start, stop) of a page; `ascending`: its keys are known to ascend."""
    if start == stop:
        return Chunk(bucket, b"", [])
    blob, etags = page.key_blob, page.etag_blob
    etag_ends: Sequence[int] = array("I", page.etag_ends)
    key_ends: Sequence[int] = ends
    sizes = page.sizes
    mtimes = array("q", page.mtimes)
    if stop - start < len(ends):
        base = ends[start - 1] if start else 0
        etag_base = etag_ends[start - 1] if start else 0
        blob = blob[base : ends[stop - 1]]
        etags = etags[etag_base : etag_ends[stop - 1]]
        key_ends = [end - base for end in ends[start:stop]]
        etag_ends = [end - etag_base for end in etag_ends[start:stop]]
        sizes = sizes[8 * start : 8 * stop]
        mtimes = mtimes[start:stop]
    digests, parts, texts = pack_etags(etags, etag_ends)
    return Chunk(bucket, blob, key_ends, sizes, _mtimes(mtimes), digests, parts.tobytes(), texts, ascending)


def chunk_of_page_rows(page: ListPage, bucket: str, ends: "array[int]", rows: Sequence[int]) -> Chunk:
    """Some rows of a page."""
    blob, etags = page.key_blob, page.etag_blob
    etag_ends = array("I", page.etag_ends)
    sizes, mtimes = array("Q", page.sizes), array("q", page.mtimes)
    keys = [blob[ends[row - 1] if row else 0 : ends[row]] for row in rows]
    texts = [etags[etag_ends[row - 1] if row else 0 : etag_ends[row]] for row in rows]
    digests, parts, others = pack_etags(b"".join(texts), ends_of(texts))
    return Chunk(
        bucket,
        b"".join(keys),
        ends_of(keys),
        array("Q", [sizes[row] for row in rows]).tobytes(),
        _mtimes(array("q", [mtimes[row] for row in rows])),
        digests,
        parts.tobytes(),
        others,
    )


def _mtimes(seconds: "array[int]") -> bytes:
    if min(seconds) >= 0 and max(seconds) <= _LATEST_MTIME:
        return array("I", seconds).tobytes()
    return array("I", [min(max(second, 0), _LATEST_MTIME) for second in seconds]).tobytes()


def ends_of(texts: Sequence[bytes]) -> list[int]:
    """Where each ends when they stand one behind the other."""
    ends, end = [], 0
    for text in texts:
        end += len(text)
        ends.append(end)
    return ends


def chunks_of_rows(columns: Columns, rows: Iterable[int], *, ascending: bool = False) -> Iterator[Chunk]:
    """Rows of a manifest, in the order given; `ascending`: they and their keys are known to ascend."""
    source = iter(rows)
    while some := list(islice(source, _ROWS_AT_ONCE)):
        if len(columns.buckets) <= 1:
            yield _chunk(columns, some, ascending)
            continue
        start = 0
        for at in range(1, len(some) + 1):
            if at == len(some) or columns.bucket_index(some[at]) != columns.bucket_index(some[start]):
                yield _chunk(columns, some[start:at], ascending)
                start = at


def rebuilt(parts: Sequence[tuple[Columns, Iterable[int]]], sources: Sequence[dict[str, Any]]) -> Columns:
    """Columns of some rows of others, in this order; with the samples of their shards if all that have rows know them.

    Raises:
        OSError: The disk is full.
    """
    descriptions = [columns.samples.description for columns, _ in parts if columns.samples is not None]
    known = all(columns.samples is not None for columns, _ in parts if len(columns)) and bool(descriptions)
    samples = SampleColumns(descriptions[0]) if known else None
    builder = Builder(sources, samples)
    try:
        for columns, rows in parts:
            chosen = _noted(samples, columns.samples, rows) if samples is not None and columns.samples else rows
            for chunk in chunks_of_rows(columns, chosen, ascending=columns.header["ascending"]):
                builder.add(chunk)
        return builder.finish()
    finally:
        builder.close()


def with_samples(
    columns: Columns,
    samples: SampleColumns,
    found: Mapping[int, tuple[int, str | None]] | None = None,
    *,
    rows: Sequence[int] | None = None,
) -> Columns:
    """The same rows with the samples of their shards.

    Args:
        columns: The rows.
        samples: A shard for each row.
        found: Size and ETag of rows, where they were not known.
        rows: Which rows to take, ascending; `samples` has these only. Default: all.

    Raises:
        OSError: The disk is full.
    """
    sources = columns.header["sources"]
    if rows is None:
        rows = range(len(columns))
    else:
        sources = [{**source, "complete": False} for source in sources]
    builder = Builder(sources, samples)
    try:
        at = 0
        for chunk in chunks_of_rows(columns, rows, ascending=columns.header["ascending"]):
            some = rows[at : at + len(chunk.key_ends)]
            at += len(some)
            builder.add(completed(chunk, columns, some, found) if found else chunk)
        return builder.finish()
    finally:
        builder.close()


def completed(
    chunk: Chunk, columns: Columns, rows: Sequence[int], found: Mapping[int, tuple[int, str | None]]
) -> Chunk:
    """A chunk with the sizes and ETags that were found."""
    known = [(at, *found[row]) for at, row in enumerate(rows) if row in found]
    if not known:
        return chunk
    sizes = array("Q", chunk.sizes or array("Q", [NO_SIZE]).tobytes() * len(rows))
    etags = [columns.etag(row) for row in rows]
    for at, size, etag in known:
        sizes[at] = size
        etags[at] = etag or etags[at]
    texts = [(etag or "").removeprefix('"').removesuffix('"').encode() for etag in etags]
    digests, parts, others = pack_etags(b"".join(texts), ends_of(texts))
    return chunk._replace(sizes=sizes.tobytes(), digests=digests, parts=parts.tobytes(), texts=others)


def _noted(samples: SampleColumns, known: Samples, rows: Iterable[int]) -> Iterator[int]:
    """The rows, whose samples are taken over as they pass."""
    for row in rows:
        samples.keep(len(samples), known, row)
        yield row


def _chunk(columns: Columns, rows: Sequence[int], ascending: bool) -> Chunk:
    """Some rows, all of one bucket."""
    spans = _spans(rows)
    keys, ends = columns.keys_of(spans)
    digests, parts, texts = columns.gather("etags", spans), columns.gather("etag_parts", spans), b""
    if digests is not None and columns.has("etag_texts"):
        spelled = [(columns.etag(row) or '""')[1:-1].encode() for row in rows]
        packed = pack_etags(b"".join(spelled), ends_of(spelled))
        digests, parts, texts = packed[0], packed[1].tobytes(), packed[2]
    sizes, mtimes = columns.gather("sizes", spans), columns.gather("mtimes", spans)
    return Chunk(columns.bucket(rows[0]), keys, ends, sizes, mtimes, digests, parts, texts, ascending)


def _spans(rows: Sequence[int]) -> list[tuple[int, int]]:
    """The rows as [start, stop) each: what stands together is copied together."""
    spans = []
    start = stop = rows[0]
    for row in rows:
        if row != stop:
            spans.append((start, stop))
            start = row
        stop = row + 1
    spans.append((start, stop))
    return spans
