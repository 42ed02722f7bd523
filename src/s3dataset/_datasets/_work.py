"""What a batch takes: the requests to send, and the samples to make of their bodies."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

from s3dataset._client import Client
from s3dataset._datasets._ahead import request_of
from s3dataset._datasets._bad_samples import BadPolicy
from s3dataset._datasets._samples import Row, SampleMaker
from s3dataset._datasets._shard_samples import IndexedShards

__all__ = ["ObjectWork", "Planner", "ShardWork", "Take", "Work"]

T_co = TypeVar("T_co", covariant=True)

_UNKNOWN_BYTES: Final = 1 << 20  # of an object whose size no listing told

Take: TypeAlias = Callable[[int], Any]
"""Waits for the body of the request of that number, and gives it once."""


class Work(Protocol[T_co]):
    """A batch on its way.

    Attributes:
        requests: To be sent together.
        limit: Bytes to fetch of each at most; None: all.
        nbytes: About how many bytes that will be.
    """

    @property
    def requests(self) -> Sequence[Any]: ...
    @property
    def limit(self) -> int | None: ...
    @property
    def nbytes(self) -> int: ...

    def samples(self, take: Take) -> Iterator[T_co]:
        """Makes the samples in order; the first may be made while the last is under way."""


Planner: TypeAlias = Callable[[Sequence[int]], Work[T_co]]
"""From the numbers of samples to what they take."""


class ObjectWork(Generic[T_co]):
    """Samples that are objects: a request each."""

    def __init__(
        self,
        maker: SampleMaker[T_co],
        client: Client,
        rows: Sequence[Row],
        positions: Sequence[int] = (),
        bad: BadPolicy[T_co] | None = None,
    ) -> None:
        self._positions = positions
        self._bad = bad
        self._maker = maker
        self._client = client
        self._rows = rows
        self.limit: int | None = client.part_size
        self.requests = [request_of(row) for row in rows]
        self.nbytes = sum(min(_UNKNOWN_BYTES if row[2] is None else row[2], client.part_size) for row in rows)

    def samples(self, take: Take) -> Iterator[T_co]:
        """See `Work`."""
        make, client = self._maker.make, self._client
        bad = self._bad
        for number, row in enumerate(self._rows):
            try:
                sample = make(client, row, take(number))
            except Exception as error:
                if bad is None:
                    raise
                yield from bad.settle(error, f"s3://{row[0]}/{row[1]}", 0, self._positions[number])
                continue
            if bad is not None:
                bad.good()
            yield sample


class ShardWork(Generic[T_co]):
    """Samples of indexed shards: neighbours come together."""

    limit: int | None = None

    def __init__(
        self,
        shards: IndexedShards[T_co],
        positions: Sequence[int],
        most_bytes: int,
        bad: BadPolicy[T_co] | None = None,
    ) -> None:
        self._shards = shards
        self._bad = bad
        self._places, self._extents, self._extent_of = shards.plan(positions, most_bytes)
        self.requests = [shards.request(extent) for extent in self._extents]
        self.nbytes = sum(extent.stop - extent.start for extent in self._extents)

    def samples(self, take: Take) -> Iterator[T_co]:
        """See `Work`."""
        shards, extents = self._shards, self._extents
        needed = [0] * len(extents)
        for number in self._extent_of:
            needed[number] += 1
        bad = self._bad
        contents: dict[int, Any] = {}
        for place, number in zip(self._places, self._extent_of, strict=True):
            try:
                content = contents.get(number)
                if content is None:
                    body = take(number)
                    try:
                        content = shards.content(extents[number], body)
                    except Exception as error:  # noqa: BLE001 - it is raised for each of its samples
                        content = error
                    contents[number] = content
                    del body
                if isinstance(content, Exception):
                    raise content
                sample = shards.sample(place, extents[number], content)
            except Exception as error:
                if bad is None:
                    raise
                yield from bad.settle(error, shards.url(place), place.number, shards.position(place))
                continue
            finally:
                needed[number] -= 1
                if not needed[number]:
                    contents.pop(number, None)
                content = None
            if bad is not None:
                bad.good()
            yield sample
