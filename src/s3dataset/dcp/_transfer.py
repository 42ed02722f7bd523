"""The bytes that a load wants, from all objects at once, to where they stay."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple, Self, cast

from torch.distributed.checkpoint.planner import LoadPlanner

from s3dataset._io import S3Client
from s3dataset._uri import S3Uri
from s3dataset.dcp._archive import HEAD_BYTES
from s3dataset.dcp._items import Item
from s3dataset.dcp._pieces import Pieces
from s3dataset.dcp._ranges import Run, runs_of, spans_of
from s3dataset.errors import InternalError, ObjectChangedError, S3Exception

if TYPE_CHECKING:
    from s3dataset._client import Body, Reply

__all__ = ["Transfer"]

_WINDOW_BYTES: Final = 1 << 30
"""Asked for and not there yet: more than all connections carry at once, and a bound for what is not read in place."""
_HEADS_AT_ONCE: Final = 2048
_SPANS_AT_ONCE: Final = 64


class _Span(NamedTuple):
    """One request: a part of a run."""

    object: "_Object"
    start: int
    pieces: list[tuple[memoryview, Item | None]]
    """Where its bytes go, and whose they are; None: nobody's."""

    @property
    def nbytes(self) -> int:
        return sum(len(memory) for memory, _ in self.pieces)


class _Object:
    """One object of the checkpoint."""

    def __init__(self, uri: S3Uri) -> None:
        self.uri = uri
        self.etag: str | None = None

    def check(self, etag: str) -> None:
        """Sees to it that all answers are about one version.

        Raises:
            ObjectChangedError: They are not.
        """
        if self.etag is None:
            self.etag = etag or None
        elif etag and etag != self.etag:
            raise ObjectChangedError(
                f"{self.uri} was replaced while it was loaded (ETag {self.etag}, then {etag}): load the checkpoint "
                "again",
                operation="GetObject",
                uri=str(self.uri),
            )


class Transfer:
    """Reads items. To be used as a context manager: it returns when nobody writes to the tensors any more.

    Args:
        client: Whose connections are used.
        uri_of: Of an object, by its path relative to the checkpoint.
        max_gap: Bytes between two ranges that may be read along.
    """

    def __init__(self, client: S3Client, uri_of: Callable[[str], S3Uri], max_gap: float) -> None:
        self._client = client
        self._queue = client.queue()
        self._uri_of = uri_of
        self._max_gap = max_gap
        self._objects: dict[str, _Object] = {}
        self._left: dict[Item, int] = {}
        self._spans: dict[int, _Span] = {}
        self._under_way = 0
        self._wrong: list[Item] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.close()

    def load(self, items: Iterable[Item], planner: LoadPlanner) -> None:
        """Reads all of these and hands them to the planner, in the order in which they arrive.

        Raises:
            S3Exception: Something could not be read, or was replaced meanwhile.
        """
        items = list(items)
        self._look_at([item for item in items if item.guess()])
        self._read(items, planner)
        while self._wrong:
            again, self._wrong = self._wrong, []
            for item in again:
                item.forget()
            self._read(again, planner)

    def _object_of(self, item: Item) -> _Object:
        found = self._objects.get(item.path)
        if found is None:
            found = self._objects[item.path] = _Object(self._uri_of(item.path))
        return found

    def _look_at(self, items: list[Item]) -> None:
        """Reads the first bytes of items of which nothing but these tells how they are laid out."""
        for start in range(0, len(items), _HEADS_AT_ONCE):
            some = items[start : start + _HEADS_AT_ONCE]
            rows = []
            for item in some:
                place = self._object_of(item)
                end = item.offset + min(item.length, HEAD_BYTES)
                rows.append((place.uri.bucket, place.uri.key, item.offset, end, None, place.etag))
            indices = self._queue.get(rows)
            for item, index in zip(some, indices, strict=True):
                head = cast("Body", self._queue.take(index))
                self._object_of(item).check(head.etag)
                item.look(memoryview(head))

    def _read(self, items: list[Item], planner: LoadPlanner) -> None:
        spans = self._planned(items, planner)
        more = True
        while more or self._spans:
            while more and (self._under_way < _WINDOW_BYTES or not self._spans):
                some = list(islice(spans, _SPANS_AT_ONCE))
                more = len(some) == _SPANS_AT_ONCE
                self._submit(some)
                if not some:
                    break
            if self._spans:
                self._take(planner)

    def _planned(self, items: list[Item], planner: LoadPlanner) -> "Iterator[_Span]":
        """Makes the requests, each when it is wanted: the memory of what is not read in place is taken then."""
        wanted: dict[str, list[_Wanted]] = {}
        for item in items:
            ranges = item.ranges()
            if not ranges:
                self._finish(item, planner)
                continue
            self._left[item] = sum(end - start for start, end in ranges)
            wanted.setdefault(item.path, []).extend(_Wanted(start, end, item) for start, end in ranges)
        objects = list(wanted.values())
        runs = runs_of([[(one.start, one.end) for one in some] for some in objects], self._max_gap)
        memory = _Memory(planner)
        for some, runs_of_object in zip(objects, runs, strict=True):
            place = self._object_of(some[0].item)
            for run in runs_of_object:
                pieces = Pieces(memory.of_run(run, some))
                for start, end in spans_of(run.start, run.end, self._client.part_size):
                    yield _Span(place, start, pieces.take(end - start))

    def _submit(self, spans: list[_Span]) -> None:
        if not spans:
            return
        indices = self._queue.get_into(
            (
                span.object.uri.bucket,
                span.object.uri.key,
                span.start,
                span.object.etag,
                [memory for memory, _ in span.pieces],
            )
            for span in spans
        )
        self._spans.update(zip(indices, spans, strict=True))
        self._under_way += sum(span.nbytes for span in spans)

    def _take(self, planner: LoadPlanner) -> None:
        results = self._queue.next(1)
        if not results:
            raise InternalError("a result of the load of a checkpoint is missing")
        for index, result in results:
            span = self._spans.pop(index)
            self._under_way -= span.nbytes
            if isinstance(result, S3Exception):
                raise result
            span.object.check(cast("Reply", result).etag)
            for memory, item in span.pieces:
                if item is None:
                    continue
                self._left[item] -= len(memory)
                if not self._left[item]:
                    self._finish(item, planner)

    def _finish(self, item: Item, planner: LoadPlanner) -> None:
        self._left.pop(item, None)
        if not item.finish(planner):
            self._wrong.append(item)


class _Wanted(NamedTuple):
    """Bytes [start, end) of an object."""

    start: int
    end: int
    item: Item


class _Memory:
    """Where bytes go, found out item by item."""

    def __init__(self, planner: LoadPlanner) -> None:
        self._planner = planner
        self._of: dict[Item, deque[memoryview]] = {}

    def of_run(self, run: Run, wanted: list[_Wanted]) -> "Iterator[tuple[memoryview, Item | None]]":
        """The memory of a run from beginning to end, and whose it is; None: of nobody, a gap."""
        at = run.start
        for index in run.segments:
            start, end, item = wanted[index]
            if start > at:
                yield memoryview(bytearray(start - at)), None
            at = end
            yield self._take(item), item

    def _take(self, item: Item) -> memoryview:
        views = self._of.get(item)
        if views is None:
            views = self._of[item] = deque(item.memory(self._planner))
        view = views.popleft()  # an item's ranges come in their order
        if not views:
            del self._of[item]
        return view
