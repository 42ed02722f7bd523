"""What a reader has of its object, and what it sends for ahead of the reads."""

import math
from collections.abc import Sequence
from typing import Final

from s3dataset._io._archive_watch import ArchiveWatch
from s3dataset._io._chunks import Chunk, ChunkMap
from s3dataset._io._new_bytes import new_bytes
from s3dataset._io._policy import ReaderPolicy
from s3dataset._io._source import Source
from s3dataset._io._storage_order import StorageOrder
from s3dataset.errors import InternalError, S3Exception

__all__ = ["TAIL_BYTES", "Window"]

_KIB: Final = 1 << 10
_MIB: Final = 1 << 20

TAIL_BYTES: Final = 64 * _KIB
"""Fetched where only the size was asked for: who seeks to the end reads a footer next, and a HEAD costs as much."""

# What is fetched ahead may be three times what was read in one go: four round trips from the first range to the full
# window, and a reader that stops early has fetched at most so much in vain.
_GROWTH: Final = 3
_SKIP_BYTES: Final = 128 * _KIB  # a read that leaves out less than this still continues the sequence
_RANGE_BYTES: Final = (128 * _KIB, 4 * _MIB)  # of read-ahead: 25 ms and 45 ms of a connection's time at the upper end
_TRIGGER_BYTES: Final = 32 * _KIB
_EXPECTED_WINDOW_BYTES: Final = 150_000_000  # 36 ranges of 4 MiB: 2 GB/s at 25 ms and 90 MB/s a connection
_EXPECTED_RANGE_BYTES: Final = (2 * _MIB, 4 * _MIB)
_DIRECT_PIECES: Final = 8

_KEEP_AFTER_READ_BYTES: Final = _MIB  # larger objects read in one go are not held a second time for a seek back
_KEEP_CHUNKS: Final = 128  # behind the position and far ahead of it, each; to stay quick with tiny ones
_BLOCK_BYTES: Final = 8 * _KIB  # fetched at least where nobody says how much will be read, as for a line
_MERGE_BYTES: Final = 32 * _KIB  # a rest of the object smaller than this comes with what precedes it

_NOTHING: Final = Chunk(0, 0, data=memoryview(b""))


class Window:
    """The bytes of one object that are there or under way, grown along the reads. Not safe for concurrent use.

    Memory is bounded by the policy's window, or half of the client's byte budget when that is less, and the bytes kept
    for seeks back; a `read` or `readinto` of more takes what it returns.
    """

    __slots__ = (
        "_archive",
        "_chunks",
        "_continues",
        "_current",
        "_expected",
        "_limit_bytes",
        "_order",
        "_policy",
        "_run_end",
        "_run_start",
        "_source",
        "_trigger",
    )

    def __init__(self, source: Source, policy: ReaderPolicy) -> None:
        self._source = source
        self._policy = policy
        self._chunks = ChunkMap()
        self._current = _NOTHING
        self._continues = False
        self._run_start = 0
        self._run_end = 0
        self._trigger = 0
        self._expected: list[tuple[int, int]] = []
        self._order: StorageOrder | None = None
        self._archive = ArchiveWatch()
        self._limit_bytes = -1

    # -- State ------------------------------------------------------------------------------------------------------

    def add(self, start: int, data: memoryview) -> None:
        """Takes bytes that were fetched elsewhere."""
        if len(data):
            chunk = Chunk(start, start + len(data), data=data)
            self._chunks.add(chunk)
            self._current = chunk
            if start == 0 and chunk.end != self._source.size:
                self._archive.see_head(chunk)

    def landed(self, limit_bytes: int) -> list[tuple[int, bytes]]:
        """Copies of (start, bytes) of what is there, from the lowest on, while they fit the limit."""
        pieces = []
        for chunk in self._chunks:
            if chunk.data is not None and chunk.nbytes <= limit_bytes:
                limit_bytes -= chunk.nbytes
                pieces.append((chunk.start, chunk.data.tobytes()))
        return pieces

    def forget_pending(self) -> None:
        """Drops what is under way, as it must be in a forked child or with a closed queue."""
        for chunk in self._chunks:
            if chunk.data is None:
                self._chunks.remove(chunk)
        self._trigger = 0

    def clear(self) -> None:
        if len(self._chunks):
            self._chunks.clear()
        self._current = _NOTHING
        self._trigger = 0

    def expect(self, ranges: Sequence[tuple[int, int]]) -> None:
        """These will be read, in the order of the file: fetch them ahead, and nothing else."""
        self._expected = self._coalesced(ranges)
        if self._expected and self._source.identified:
            self._read_ahead(self._run_end, self._run_end)

    def begin(self, start: int) -> None:
        """Sends for what a reader at `start` will ask for first, unless something is there or under way."""
        if len(self._chunks):
            return
        end = self._clamped(start, start + _BLOCK_BYTES)
        if start < end and self._chunks.at(start) is None:
            self._note(start, start)
            self._send_for(self._chunks.holes(start, end)[:1])

    # -- Reading ----------------------------------------------------------------------------------------------------

    def size(self) -> int:
        """Bytes of the object; fetches its beginning when that is not known."""
        if self._source.size is None:
            self._identify(0, 1)
        return self._known_size

    def size_for_tail(self, nbytes: int) -> int:
        """Bytes of the object; fetches its last bytes when that is not known."""
        if self._source.size is None:
            tail_bytes = nbytes if TAIL_BYTES < nbytes <= self._policy.direct_bytes else TAIL_BYTES
            body = self._source.fetch_or_identify(-tail_bytes)
            if body is not None:
                self.add(body.start, memoryview(body))
        return self._known_size

    def size_if_shorter_than(self, position: int) -> int | None:
        """Bytes of the object when `position` is past its end; fetches what is there when that is not known."""
        if self._source.size is None:
            self._identify(position, 1)
        return self._known_size if self._known_size < position else None

    def read(self, start: int, nbytes: int) -> bytes:
        """Bytes [start, start + nbytes), fewer at the end of the object."""
        end = start + nbytes
        chunk = self._current
        if chunk.start <= start and end <= chunk.end and start == self._run_end and end <= self._trigger:
            self._run_end = end
            return chunk.part(start, end).tobytes()
        end = self._clamped(start, end)
        if start >= end:
            return b""
        self._note(start, end)
        holes = self._chunks.holes(start, end)
        if any(stop - hole >= self._policy.direct_bytes for hole, stop in holes):
            data, view = new_bytes(end - start)
            self._fill(start, view)
            return data
        self._send_for(holes)
        self._read_ahead(start, end)
        pieces = []
        while start < end:
            chunk = self._landed(start)
            stop = min(end, chunk.end)
            pieces.append(chunk.part(start, stop))
            start = stop
        return pieces[0].tobytes() if len(pieces) == 1 else b"".join(pieces)

    def read_rest(self, start: int) -> bytes:
        """Bytes from `start` to the end of the object."""
        size = self._source.size
        if size is None:
            if start == 0 and not self._policy.tail_bytes and not len(self._chunks):
                return self._read_unseen()
            # As much as one request should bring: an object that fits is read with it alone.
            self._identify(start, self._part_bytes)
            size = self._known_size
        if start >= size:
            return b""
        chunk = self._current
        if chunk.start <= start and chunk.end == size:
            self._run_end = size
            data = chunk.part(start, size).tobytes()
        else:
            data = self.read(start, size - start)
        if start == 0 and len(data) > _KEEP_AFTER_READ_BYTES:
            self._drop(list(self._chunks))
            self._current = _NOTHING
        return data

    def _read_unseen(self) -> bytes:
        """All of an object of which nothing is known: how most small objects are read, and all that they need."""
        body = self._source.fetch_or_identify(0, self._part_bytes)
        if body is None:
            return b""
        nbytes = len(body)
        if nbytes < self._known_size:
            self.add(0, memoryview(body))
            return self.read_rest(0)
        data = bytes(body)
        if nbytes <= _KEEP_AFTER_READ_BYTES:
            self.add(0, memoryview(data))  # for a seek back; the very memory that is returned
        self._run_end = nbytes
        return data

    def readinto(self, start: int, view: memoryview) -> int:
        """Fills `view` with bytes from `start` on -> how many, fewer than its length at the end of the object only."""
        end = self._clamped(start, start + len(view))
        if start >= end:
            return 0
        self._note(start, end)
        self._fill(start, view[: end - start])
        return end - start

    def view_at(self, start: int) -> memoryview:
        """What one request at most brings from `start` on, at least a byte unless the object ends there."""
        chunk = self._current
        if not (chunk.start <= start < chunk.end and start <= self._trigger):
            end = self._clamped(start, start + _BLOCK_BYTES)
            if start >= end:
                return memoryview(b"")
            self._note(start, start)
            if self._chunks.at(start) is None:
                self._send_for(self._chunks.holes(start, end)[:1])
            self._read_ahead(start, start)
            chunk = self._landed(start)
        return chunk.part(start, chunk.end)

    def whole(self) -> memoryview:
        """The whole object in one piece of memory, fetched unless it is there."""
        chunk = self._chunks.at(0)
        if chunk is None or chunk.data is None or chunk.end != self._source.size:
            if self._source.size == 0:
                return memoryview(bytearray())
            self._source.close_queue()
            self.forget_pending()
            body = self._source.fetch_whole()
            if body is None or not len(body):
                return memoryview(bytearray())
            self.clear()
            self.add(0, memoryview(body))
            chunk = self._current
        data = chunk.part(0, chunk.end)
        if data.readonly:
            # It came by pickle.
            chunk.data = data = memoryview(bytearray(data))
        return data

    # -- Size and version -------------------------------------------------------------------------------------------

    @property
    def _known_size(self) -> int:
        size = self._source.size
        if size is None:
            raise InternalError(f"the size of {self._source.uri} is not known after an answer", uri=self._source.uri)
        return size

    def _clamped(self, start: int, end: int) -> int:
        if self._source.size is None:
            self._identify(start, end - start)
        return min(end, self._known_size)

    def _identify(self, start: int, nbytes: int) -> None:
        """Fetches a range alone, because size and version for all others come with it."""
        policy = self._policy
        least = policy.seek_bytes if start else policy.first_bytes
        end = start + max(min(nbytes, self._part_bytes), least, 1)
        following = self._chunks.next_start(start)
        tail = -1
        if policy.tail_bytes and start == 0 and nbytes <= policy.first_bytes:
            tail = self._source.submit_tail(policy.tail_bytes)
        body = self._source.fetch_or_identify(start, end if following is None else min(end, following))
        if body is not None:
            self.add(start, memoryview(body))
        if tail >= 0:
            self._add_tail(tail)

    def _add_tail(self, index: int) -> None:
        # Without a pin, since it was sent for along with the first bytes; that it is of their version is checked here.
        body = self._source.take_or_identify(index)
        if body is None or self._chunks.holes(body.start, body.start + len(body)) != [
            (body.start, body.start + len(body))
        ]:
            return
        current = self._current
        self.add(body.start, memoryview(body))
        self._current = current

    # -- Sending for ranges -----------------------------------------------------------------------------------------

    @property
    def _part_bytes(self) -> int:
        part_bytes = self._source.client.part_size
        return part_bytes if _MIB <= part_bytes <= 64 * _MIB else min(max(part_bytes, _MIB), 64 * _MIB)

    @property
    def _budget_bytes(self) -> int:
        if self._limit_bytes < 0:
            self._limit_bytes = self._source.client.memory_limit_bytes // 2
        return self._limit_bytes

    def _note(self, start: int, end: int) -> None:
        """Follows the sequence of reads."""
        if not 0 <= start - self._run_end <= _SKIP_BYTES:
            self._run_start = start
        self._continues = start != self._run_start
        self._run_end = end
        if self._policy.window_bytes and not self._expected:
            archive = self._archive.storages_wanted(start, self._known_size, self._chunks)
            if archive is not None:
                self._expected = list(archive.storages)
                self._order = None if archive.reading is None else StorageOrder(archive.reading)

    def _send_for(self, holes: Sequence[tuple[int, int]]) -> None:
        """Sends for what a read misses, and a little more."""
        if not holes:
            return
        if not self._continues and not self._expected:
            self._give_up_beyond(holes[0][0])
        size = self._known_size
        ranges: list[tuple[int, int]] = []
        for start, end in holes:
            start, stop = self._widened(start, end)  # noqa: PLW2901
            if ranges:
                start = max(start, ranges[-1][1])  # noqa: PLW2901
            following = self._chunks.next_start(start)
            stop = min(stop, size if following is None else following)
            if start < stop:
                ranges.append((start, stop))
        self._submit(ranges)

    def _widened(self, start: int, end: int) -> tuple[int, int]:
        """What is worth fetching when [start, end) is missing."""
        size = self._known_size
        policy = self._policy
        if not policy.window_bytes:
            return start, max(end, start + policy.seek_bytes)
        if self._continues:
            least = min(max(start - self._run_start, policy.seek_bytes), _RANGE_BYTES[1])
        elif start == 0:
            least = size if size <= 2 * policy.first_bytes else policy.first_bytes
        elif size - start <= TAIL_BYTES:
            # Formats with a footer are read backwards from their end.
            return self._chunks.holes(max(size - TAIL_BYTES, 0), end)[-1][0], size
        elif self._archive.is_header(start):
            least = _EXPECTED_RANGE_BYTES[0]
        else:
            least = policy.seek_bytes
        stop = max(end, start + least)
        return start, size if size - stop < _MERGE_BYTES else stop

    def _submit(self, ranges: Sequence[tuple[int, int]]) -> None:
        if not ranges:
            return
        if not self._source.identified:
            # The first answer decides on the version that the others are pinned to.
            (start, end), *ranges = ranges
            self.add(start, memoryview(self._source.fetch(start, end)))
            if not ranges:
                return
        for (start, end), index in zip(ranges, self._source.submit(ranges), strict=True):
            self._chunks.add(Chunk(start, end, index=index))

    def _read_ahead(self, start: int, position: int) -> None:
        """While [start, position) is being read: sends for what will be read next, as far as the window goes."""
        size = self._known_size
        place = None if self._order is None else self._order.enter(start)
        self._evict(start)
        self._trigger = position
        if not self._source.identified:
            return
        if self._order is not None and place is not None:
            self._read_ahead_in_order(self._order, place, position)
            return
        if self._expected and position < self._expected[-1][1]:
            self._read_ahead_expected(position)
            return
        if not self._policy.window_bytes:
            self._trigger = size
            return
        if not self._continues:
            return
        ahead = min(
            _GROWTH * (self._run_end - self._run_start),
            self._policy.window_bytes,
            max(self._budget_bytes, _RANGE_BYTES[0]),
        )
        range_bytes = min(max(ahead // 8, _RANGE_BYTES[0]), _RANGE_BYTES[1], max(self._part_bytes, _MIB))
        limit = min(position + ahead, size)
        edge = self._chunks.covered_until(position)
        ranges: list[tuple[int, int]] = []
        while edge < size and (edge + range_bytes <= limit or limit == size):
            following = self._chunks.next_start(edge)
            stop = min(edge + range_bytes, size if following is None else following)
            if size - stop < _MERGE_BYTES and following is None:
                stop = size
            ranges.append((edge, stop))
            edge = self._chunks.covered_until(stop)
        self._submit(ranges)
        if edge >= size:
            self._trigger = size
        else:
            self._trigger = position + max(_TRIGGER_BYTES, min(range_bytes, (edge - position) // 2))

    @property
    def _expected_window(self) -> int:
        return min(_EXPECTED_WINDOW_BYTES, max(self._budget_bytes, _RANGE_BYTES[0]))

    def _read_ahead_in_order(self, order: StorageOrder, place: int, position: int) -> None:
        window = self._expected_window
        range_bytes = min(max(order.nbytes // 16, _EXPECTED_RANGE_BYTES[0]), _EXPECTED_RANGE_BYTES[1], window // 4)
        if order.nbytes > window:
            wanted = order.following(place, place + window)
        else:  # all of it is held, so it comes as it lies in the file
            wanted = self._expected if order.following(0, order.nbytes) else []
        self._submit(
            [
                (edge, min(edge + range_bytes, hole_end))
                for start, end in wanted
                for hole_start, hole_end in self._chunks.holes(start, end)
                for edge in range(hole_start, hole_end, range_bytes)
            ]
        )
        self._trigger = position

    def _read_ahead_expected(self, position: int) -> None:
        window = self._expected_window
        budget = window - self._chunks.bytes_from(position)
        left = sum(end - max(start, position) for start, end in self._expected if end > position)
        range_bytes = min(max(left // 16, _EXPECTED_RANGE_BYTES[0]), _EXPECTED_RANGE_BYTES[1], max(window // 4, 1))
        ranges: list[tuple[int, int]] = []
        for start, end in self._expected:
            for hole_start, hole_end in self._chunks.holes(max(start, position), end):
                edge = hole_start
                while edge < hole_end and budget > 0:
                    stop = min(edge + range_bytes, hole_end)
                    if budget < stop - edge and (ranges or self._chunks.covered_until(position) > position):
                        budget = 0
                        break
                    ranges.append((edge, stop))
                    budget -= stop - edge
                    edge = stop
            if budget <= 0:
                break
        self._submit(ranges)
        self._trigger = position + range_bytes

    def _coalesced(self, ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        merged: list[tuple[int, int]] = []
        for start, end in sorted(ranges):
            if start < 0 or end < start:
                raise ValueError(f"a byte range is [start, end) with 0 <= start <= end, not [{start}, {end})")
            if merged and start <= merged[-1][1] + self._policy.gap_bytes:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            elif end > start:
                merged.append((start, end))
        return merged

    # -- Landing ----------------------------------------------------------------------------------------------------

    def _landed(self, position: int) -> Chunk:
        """Waits for the chunk that holds the byte at `position`."""
        chunk = self._chunks.at(position)
        if chunk is None:
            raise InternalError(f"byte {position} of {self._source.uri} was not sent for", uri=self._source.uri)
        if chunk.data is None:
            try:
                body = self._source.take(chunk.index)
                if len(body) != chunk.nbytes:
                    raise InternalError(
                        f"{len(body)} bytes instead of {chunk.nbytes} came from {chunk.start} of {self._source.uri}",
                        uri=self._source.uri,
                    )
                chunk.data = memoryview(body)
            except BaseException as error:
                # A further read sends for it again. Ctrl-C may have come when it was taken, and it is gone.
                self._chunks.remove(chunk)
                if not isinstance(error, S3Exception):
                    self._source.abandon([chunk.index])
                raise
            self._archive.see_head(chunk)
        self._current = chunk
        return chunk

    def _fill(self, start: int, view: memoryview) -> None:
        """Fills `view` from `start` on: large holes are read into it, the rest is copied once."""
        end = start + len(view)
        small = []
        direct = []
        for hole, stop in self._chunks.holes(start, end):
            if stop - hole >= self._policy.direct_bytes:
                direct.append((hole, stop))
            else:
                small.append((hole, stop))
        if direct and not self._source.identified and direct != [(start, end)]:
            self._identify(direct[0][0], 1)
            self._fill(start, view)
            return
        self._send_for(small)
        if not direct:
            self._read_ahead(start, end)
            self._copy(start, end, view)
            return
        pieces = [piece for hole, stop in direct for piece in self._direct_pieces(hole, stop)]
        indices = self._source.submit_into([(a, view[a - start : b - start]) for a, b in pieces])
        try:
            self._read_ahead(start, end)
            position = start
            for hole, stop in direct:
                self._copy(position, hole, view[position - start :])
                position = stop
            self._copy(position, end, view[position - start :])
            self._source.take_into(indices)
        except BaseException:
            # The caller may free the memory as soon as this raises; closing returns when nobody writes to it any more.
            self._source.close_queue()
            self.forget_pending()
            raise

    def _direct_pieces(self, start: int, end: int) -> list[tuple[int, int]]:
        """Up to two parts' worth are split here; the engine does that with more."""
        nbytes = end - start
        if nbytes > 2 * self._part_bytes or nbytes <= _EXPECTED_RANGE_BYTES[0] or not self._source.identified:
            return [(start, end)]
        piece_bytes = max(math.ceil(nbytes / _DIRECT_PIECES), _EXPECTED_RANGE_BYTES[0])
        return [(at, min(at + piece_bytes, end)) for at in range(start, end, piece_bytes)]

    def _copy(self, start: int, end: int, view: memoryview) -> None:
        at = start
        while at < end:
            chunk = self._landed(at)
            stop = min(end, chunk.end)
            view[at - start : stop - start] = chunk.part(at, stop)
            at = stop

    def _give_up_beyond(self, position: int) -> None:
        """After a jump: cancels what is under way elsewhere, which would only be in the way of what is wanted now."""
        near = position + self._policy.window_bytes
        far = [c for c in self._chunks if c.data is None and not (c.end > position and c.start < near)]
        self._drop(far)

    def _evict(self, position: int) -> None:
        """Lets go of what is farthest from `position` once there is more than the policy keeps."""
        if len(self._chunks) < 2:
            return
        chunks = list(self._chunks)
        if self._order is not None:
            chunks = self._order.droppable(chunks, self._expected_window, self._policy.keep_bytes)
        behind = [chunk for chunk in reversed(chunks) if chunk.end <= position]
        beyond = position + max(self._policy.window_bytes, _EXPECTED_WINDOW_BYTES if self._expected else 0)
        ahead = [chunk for chunk in chunks if chunk.start > beyond]
        self._drop([*self._too_many(behind), *self._too_many(ahead)])

    def _too_many(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """All but the first of these that the policy keeps."""
        nbytes = 0
        for i, chunk in enumerate(chunks):
            nbytes += chunk.nbytes
            if nbytes > self._policy.keep_bytes or i >= _KEEP_CHUNKS:
                return list(chunks[i:])
        return []

    def _drop(self, chunks: Sequence[Chunk]) -> None:
        for chunk in chunks:
            self._chunks.remove(chunk)
        under_way = [chunk.index for chunk in chunks if chunk.data is None]
        if under_way:
            self._source.abandon(under_way)
