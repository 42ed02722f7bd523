"""Making an index: the samples of all shards, of which those that did not change are known already."""

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, cast

from s3dataset._client import Client, Reply
from s3dataset._manifest._chunks import with_samples
from s3dataset._manifest._columns import Columns
from s3dataset._manifest._listing import OWN_FOLDER
from s3dataset._manifest._lookup import Lookup
from s3dataset._manifest._sample_columns import SampleColumns
from s3dataset._manifest._scan import Scans
from s3dataset._uri import S3Uri
from s3dataset.errors import S3Exception
from s3dataset.formats import Format, describe, named_format

_HEADS_AT_ONCE: Final = 512


class IndexProgress(NamedTuple):
    """How far an index is.

    Attributes:
        shards: Shards that are done, those taken over from another index among them.
        kept: How many of these were taken over.
        num_shards: All shards.
        samples: Samples of the shards that are done.
        nbytes: Bytes of the shards that had to be scanned, as far as they have been.
        num_bytes: All bytes of these, as far as sizes are known.
    """

    shards: int
    kept: int
    num_shards: int
    samples: int
    nbytes: int
    num_bytes: int


def index_location(prefix_uri: str | S3Uri, format: str | Format) -> str:  # noqa: A002
    """Where the index of a prefix lies unless one says otherwise: one for each folder and format.

    Of "s3://bucket/data/train-" and format "tar" it is "s3://bucket/data/.s3dataset/tar-index.manifest".
    """
    uri = S3Uri.parse_prefix(prefix_uri) if isinstance(prefix_uri, str) else prefix_uri
    name = format if isinstance(format, str) else format.name
    folder = uri.key[: uri.key.rfind("/") + 1]
    return f"s3://{uri.bucket}/{folder}{OWN_FOLDER.decode()}{name}-index.manifest"


class Indexing:
    """One run over the shards of a manifest.

    Args:
        columns: The shards.
        format: What they are.
        client: Whose connections read them.
        reuse: Manifests with samples of shards that may be the same.
    """

    def __init__(self, columns: Columns, format: str | Format, client: Client, reuse: list[Columns]) -> None:  # noqa: A002
        self._columns = columns
        self._format = named_format(format)
        self._client = client
        self._description: dict[str, Any] = describe(self._format)
        self._reuse = [
            (known, Lookup(known, ()))
            for known in reuse
            if known.samples is not None and known.samples.description == self._description
        ]
        self._samples = SampleColumns(self._description)
        self._found: dict[int, tuple[int, str | None]] = {}
        self.kept = 0
        self.scanned = 0
        self.scanned_bytes = 0

    def run(self, progress: Callable[[IndexProgress], None] | None = None) -> Columns:
        """Scans what is not known -> the same rows with samples.

        Raises:
            ObjectChangedError: A shard is not what the rows say.
            UnindexableError: A shard can only be read from its beginning.
            DecodeError: A shard is none of this format, or broken.
            S3Exception: A shard could not be read.
            OSError: The disk is full.
        """
        self._scan([row for row in range(len(self._columns)) if not self._keep(row)], progress)
        return with_samples(self._columns, self._samples, self._found)

    def so_far(self) -> Columns:
        """After a failure of `run`: the rows that were done, with their samples."""
        rows = self._samples.drop_gaps()
        return with_samples(self._columns, self._samples, self._found, rows=rows)

    def close(self) -> None:
        """Gives up what was collected. Idempotent."""
        self._samples.close()

    def _scan(self, rows: list[int], progress: Callable[[IndexProgress], None] | None) -> None:
        columns, samples = self._columns, self._samples
        rows = self._ask(rows) if self._reuse else rows
        shards = columns.rows(rows)
        for at, row in enumerate(rows):
            if row in self._found:  # asked for just now, and another object than the one that is known
                shards[at] = (*shards[at][:2], *self._found[row])
        num_bytes = sum(size or 0 for _, _, size, _ in shards)
        scans = Scans(self._client, self._format, shards)

        def tell() -> None:
            if progress is not None:
                nbytes = self.scanned_bytes + scans.bytes_under_way
                shown = (self.kept + self.scanned, self.kept, len(columns), samples.num_samples)
                progress(IndexProgress(*shown, nbytes, max(num_bytes, nbytes)))

        tell()
        for result in scans.results():
            if result is not None:
                row = rows[result.job]
                samples.put(row, result.found)
                if columns.size(row) is None or columns.etag(row) is None:
                    self._found[row] = (result.size, result.etag or None)
                self.scanned_bytes += result.size
                self.scanned += 1
            tell()

    # -- What is known already ----------------------------------------------------------------------------------------

    def _keep(self, row: int, size: int | None = None, etag: str | None = None) -> bool:
        """Takes over a row's samples, if they are known of an object of this size and ETag."""
        columns = self._columns
        bucket, key = columns.bucket(row), columns.key_bytes(row)
        size = columns.size(row) if size is None else size
        etag = columns.etag(row) or etag
        if size is None or etag is None:
            return False
        for known, known_row in self._namesakes(bucket, key):
            if known.size(known_row) == size and known.etag(known_row) == etag and known.samples is not None:
                self._samples.keep(row, known.samples, known_row)
                self.kept += 1
                return True
        return False

    def _namesakes(self, bucket: str, key: bytes) -> Iterator[tuple[Columns, int]]:
        for known, lookup in self._reuse:
            row = lookup.row(bucket, key)
            if row is not None and known.bucket(row) == bucket:
                yield known, row

    def _ask(self, rows: list[int]) -> list[int]:
        """Asks for size and ETag of rows that have none, and whose samples may be known -> rows left to scan."""
        columns = self._columns
        unknown = [
            row
            for row in rows
            if (columns.size(row) is None or columns.etag(row) is None)
            and any(self._namesakes(columns.bucket(row), columns.key_bytes(row)))
        ]
        for start in range(0, len(unknown), _HEADS_AT_ONCE):
            some = unknown[start : start + _HEADS_AT_ONCE]
            with self._client.queue() as queue:
                indices = [queue.head(columns.bucket(row), columns.key(row)) for row in some]
                for row, index in zip(some, indices, strict=True):
                    (result,) = queue.take_many(range(index, index + 1))
                    if isinstance(result, S3Exception):
                        raise result
                    reply = cast(Reply, result)
                    self._found[row] = (reply.object_size, reply.etag or None)
        return [row for row in rows if row not in self._found or not self._keep(row, *self._found[row])]
