"""What a manifest knows of the samples of its shards."""

from collections.abc import Iterable

from s3dataset._manifest._columns import Columns
from s3dataset._manifest._entries import row_at
from s3dataset._manifest._samples import SamplePlace, Samples
from s3dataset.errors import UnindexedError
from s3dataset.formats import Format, ShardIndex, from_description


class ManifestSamples:
    """The part of `Manifest` that is about samples."""

    __slots__ = ("_columns",)

    _columns: Columns

    @property
    def num_samples(self) -> int:
        """How many samples: of all shards where they are indexed, else as many as objects, each being one."""
        samples = self._columns.samples
        return len(self._columns) if samples is None else samples.num_samples

    @property
    def objects_fingerprint(self) -> str:
        """The fingerprint that the same objects have without an index."""
        samples = self._columns.samples
        return str(self._columns.header["fingerprint"]) if samples is None else samples.objects_fingerprint

    @property
    def format(self) -> Format | None:
        """What its objects are shards of, if their samples are indexed; None: they are not."""
        samples = self._columns.samples
        return None if samples is None else from_description(samples.description)

    @property
    def shard_ends(self) -> memoryview:
        """For each object how many samples it and those before it have, as uint64.

        Raises:
            UnindexedError: The samples are not indexed.
        """
        return self._samples.counts

    def places(self, positions: Iterable[int]) -> list[SamplePlace]:
        """Where samples lie: one to three microseconds each.

        Args:
            positions: Numbers of samples over all shards, from 0 on. Neighbours cost least.

        Raises:
            IndexError: A position is out of range.
            UnindexedError: The samples are not indexed.
        """
        return self._samples.places(positions)

    def shard(self, index: int) -> ShardIndex:
        """Where the samples of an object lie, all at once; its ends are not copied.

        Raises:
            UnindexedError: The samples are not indexed.
        """
        return self._samples.shard(row_at(index, len(self._columns)))

    def num_frames(self, index: int) -> int:
        """How many frames an object is made of that are decoded one by one; 0: its content are its bytes.

        Raises:
            UnindexedError: The samples are not indexed.
        """
        return self._samples.num_frames(row_at(index, len(self._columns)))

    def shard_head(self, index: int) -> bytes:
        """What the format needs of an object beside the sample: `ShardIndex.head`.

        Raises:
            UnindexedError: The samples are not indexed.
        """
        return self._samples.head(row_at(index, len(self._columns)))

    @property
    def _samples(self) -> Samples:
        samples = self._columns.samples
        if samples is None:
            columns = self._columns
            first = f"s3://{columns.bucket(0)}/{columns.key(0)}" if len(columns) else ""
            where = f" ({first}{', ...' * (len(columns) > 1)})" if first else ""
            raise UnindexedError(
                f"the samples of these {len(columns):,} objects{where} are not indexed: make an index with "
                "Manifest.index, or with `s3dataset index s3://bucket/prefix`, and load what that wrote"
            )
        return samples
