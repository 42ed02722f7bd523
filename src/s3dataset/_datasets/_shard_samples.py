"""From a place in a shard to a sample: decodes, parses, calls the transform, names the sample when that fails."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, Self, TypeVar

from s3dataset._client import Client, ClientRef
from s3dataset._datasets._bad_samples import mark_frame
from s3dataset._datasets._extents import Extent, extents_of
from s3dataset._datasets._sample_rng import MAKING, Draws
from s3dataset._datasets._samples import Row, client_of_process
from s3dataset._datasets._trace import TRANSFORM, ranged
from s3dataset.errors import DecodeError, ManifestMismatchError, UnindexedError
from s3dataset.formats import Format, Sample, describe

if TYPE_CHECKING:
    from s3dataset._manifest import Manifest, SamplePlace

__all__ = ["IndexedShards", "ShardSampleMaker", "check_index"]

T_co = TypeVar("T_co", covariant=True)

_SHARDS_KEPT: Final = 4096


def check_index(manifest: "Manifest", wanted: Format, what: str) -> None:
    """Sees to it that a manifest knows the samples of its shards.

    Raises:
        UnindexedError: It does not.
        ManifestMismatchError: It knows those of another format.
    """
    known = manifest.format
    if known is None:
        name = wanted.name
        raise UnindexedError(
            f"samples of the shards of {what} cannot be read at random, as the shards have no index. Make one beside "
            f"the data with `s3dataset index s3://bucket/prefix --format {name}`, or use "
            f'Manifest.from_prefix(uri).index("{name}") with from_manifest; S3IterableDataset reads shards without one'
        )
    if describe(known) != describe(wanted):
        raise ManifestMismatchError(
            f"the index of {what} is one of {known!r}, and the dataset is to read {wanted!r}: leave format= out, or "
            "make another index"
        )


class ShardSampleMaker(Generic[T_co]):
    """Makes samples of the shards of one dataset. Immutable.

    Args:
        client_ref: Whose connections are used.
        format: Of the shards.
        transform: Makes a dataset's sample of a shard's.
    """

    __slots__ = ("_ref", "_transform", "format")

    def __init__(self, client_ref: ClientRef, format: Format, transform: Callable[[Any], T_co]) -> None:  # noqa: A002
        self._ref = client_ref
        self.format = format
        self._transform = transform

    @property
    def client(self) -> Client:
        """The client in this process."""
        return client_of_process(self._ref)

    def transformed(self, sample: Sample, number: int, draws: Draws, place: Any) -> T_co:
        """Calls the transform, in which `sample_rng` gives what is drawn for `place`."""
        before = MAKING.of
        MAKING.begin([draws, place, None])
        try:
            return ranged(TRANSFORM, self._transform, sample)
        except Exception as error:
            url = sample["__url__"]
            if url not in str(error):
                error.add_note(f"This happened in the transform of sample {number} ({sample['__key__']!r}) of {url}")
            raise
        finally:
            MAKING.of = before


class _Shard(NamedTuple):
    """What is asked of a shard for every sample."""

    row: Row
    url: str
    head: bytes
    has_frames: bool


class IndexedShards(Generic[T_co]):
    """Samples of indexed shards by their places. Belongs to one process; safe between threads.

    Args:
        maker: Makes the samples.
        manifest: With an index.
    """

    def __init__(self, maker: ShardSampleMaker[T_co], manifest: "Manifest") -> None:
        self._maker = maker
        self._format = maker.format
        self._manifest = manifest
        self._shards: dict[int, _Shard] = {}
        self._draws = Draws(0, 0, self.position)

    def drawing(self, seed: int, epoch: int) -> Self:
        """The same, where `sample_rng` gives other numbers."""
        twin = type(self)(self._maker, self._manifest)
        twin._shards = self._shards  # noqa: SLF001 - its own kind
        twin._draws = self._draws._replace(seed=seed, epoch=epoch)  # noqa: SLF001
        return twin

    def url(self, place: "SamplePlace") -> str:
        """The shard of a place."""
        return self._shard(place.shard).url

    def position(self, place: "SamplePlace") -> int:
        """The number of the sample at a place."""
        return self.neighbours_in(place.shard).start + place.number

    def frame_of(self, position: int) -> tuple[int, int] | None:
        """The shard of a sample, and where the frame begins that it lies in; None in a shard without frames."""
        place = self._manifest.places((position,))[0]
        return (place.shard, place.start) if self.has_frames(place.shard) else None

    def neighbours(self, position: int) -> range:
        """The samples of the same shard."""
        return self.neighbours_in(self._manifest.places((position,))[0].shard)

    def neighbours_in(self, shard: int) -> range:
        """The samples of a shard."""
        ends = self._manifest.shard_ends
        return range(ends[shard - 1] if shard else 0, ends[shard])

    def make(self, position: int) -> T_co:
        """Fetches and makes one sample, on this thread."""
        places, extents, _ = self.plan((position,), 0)
        with self._maker.client.queue() as queue:
            body = queue.take(queue.get([self.request(extents[0])])[0])
            return self.sample(places[0], extents[0], self.content(extents[0], body))

    def has_frames(self, shard: int) -> bool:
        """Whether a shard is made of frames that are decoded one by one."""
        return self._shard(shard).has_frames

    def places(self, positions: Sequence[int]) -> "list[SamplePlace]":
        """Where samples lie."""
        return self._manifest.places(positions)

    def plan(self, positions: Sequence[int], most_bytes: int) -> "tuple[list[SamplePlace], list[Extent], list[int]]":
        """Where samples lie, what to fetch for them, and which of that each is in.

        Raises:
            IndexError: A position is out of range.
        """
        places = self._manifest.places(positions)
        return places, *extents_of(places, self.has_frames, most_bytes)

    def request(self, extent: Extent) -> tuple[str, str, int, int, int | None, str | None]:
        """The request for an extent, in the version that was indexed."""
        bucket, key, size, etag = self._shard(extent.shard).row
        return bucket, key, extent.start, extent.stop, size, etag

    def content(self, extent: Extent, body: Any) -> Any:
        """What samples of an extent are parsed from."""
        shard = self._shard(extent.shard)
        view = memoryview(body)
        if not shard.has_frames:
            return view
        try:
            return self._format.decode(view, head=shard.head, start=extent.start)
        except Exception as error:
            if isinstance(error, DecodeError):
                mark_frame(error, (extent.shard, extent.start))
            if shard.url not in str(error):
                error.add_note(f"This happened while decoding bytes {extent.start} to {extent.stop} of {shard.url}")
            raise

    def sample(self, place: "SamplePlace", extent: Extent, content: Any) -> T_co:
        """Makes the sample of a place from its extent's content."""
        return self.sample_at(place, content, *self.span(place, extent))

    def span(self, place: "SamplePlace", extent: Extent) -> tuple[int, int]:
        """Where in its extent's content a sample lies."""
        shift = 0 if self._shard(place.shard).has_frames else place.start - extent.start
        return shift + place.offset, shift + place.end

    def sample_at(self, place: "SamplePlace", content: Any, start: int, stop: int) -> T_co:
        """Makes the sample of a place from content in which it lies at [start, stop)."""
        shard, number = self._shard(place.shard), place.number
        sample = self._format.parse(content, start, stop, head=shard.head, url=shard.url, number=number)
        return self._maker.transformed(sample, number, self._draws, place)

    def _shard(self, index: int) -> _Shard:
        shard = self._shards.get(index)
        if shard is None:
            manifest = self._manifest
            if len(self._shards) >= _SHARDS_KEPT:
                self._shards = {}
            row = manifest.rows((index,))[0]
            shard = self._shards[index] = _Shard(
                row, f"s3://{row[0]}/{row[1]}", manifest.shard_head(index), manifest.num_frames(index) > 0
            )
        return shard
