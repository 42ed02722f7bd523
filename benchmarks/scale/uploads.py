"""The largest objects that S3 takes: written through a simulated engine, as far as time allows for real, and read.

`plan` runs S3Writer as it is, with a client whose engine moves no bytes: every part is planned, counted and completed,
and the memory that parts are copied into is address space that nobody touches. `send` moves every byte to a local S3
that hashes, counts and forgets it.
"""

import mmap
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from s3dataset import S3Client, S3ClientConfig
from s3dataset._client import combine_checksums
from s3dataset._io import S3Writer
from s3dataset._native import checksum
from s3dataset.errors import S3Exception
from s3dataset.testing import LocalS3, synthetic_bytes

MIB, GIB, TB = 1 << 20, 1 << 30, 10**12
MAX_PARTS, MIN_PART, MAX_PART = 10_000, 5 * MIB, 5 * GIB
PIECE_BYTES = 16 * MIB  # what a program writes at once
BUCKET = "bucket"


@dataclass(frozen=True)
class Plan:
    """The parts that one object was cut into."""

    size: int
    known: bool
    parts: list[int] = field(repr=False)
    memory: int
    """The most that parts being filled or sent took at once, bytes."""
    in_flight: int
    """The most parts on their way at once."""
    completed: bool
    aborted: bool
    error: str
    seconds: float

    def check(self) -> None:
        """Raises AssertionError if S3 would refuse it."""
        assert self.completed, self
        assert sum(self.parts) == self.size, self
        assert len(self.parts) <= MAX_PARTS, self
        assert max(self.parts) <= MAX_PART, self
        assert min(self.parts[:-1], default=MIN_PART) >= MIN_PART, self

    def steps(self) -> list[tuple[int, int]]:
        """(parts, bytes of each), in order."""
        steps: list[tuple[int, int]] = []
        for nbytes in self.parts:
            last = steps[-1] if steps else (0, -1)
            steps[-1 if last[1] == nbytes else len(steps) :] = [(last[0] + 1 if last[1] == nbytes else 1, nbytes)]
        return steps


class _Memory(mmap.mmap):
    """Stands for pooled memory: address space without pages, as nothing is ever copied into it."""

    owner: "_Client"

    def copy_from(self, offset: int, data: memoryview) -> int:
        return min(len(data), len(self) - offset)

    def __del__(self) -> None:
        self.owner.memory -= len(self)
        self.close()


@dataclass
class _Reply:
    etag: str = '"0"'
    checksum: str = ""
    upload_id: str = ""
    in_doubt: int = 0
    last_modified: float | None = None

    def headers(self) -> list[tuple[str, str]]:
        return []


class _Client:
    """What S3Writer needs of a client: its settings, memory, and a queue that answers only when it has to.

    That is the worst for memory: parts stay on their way until somebody waits for one. Every byte counts as zero.
    """

    def __init__(self, part_size: int, memory_limit_bytes: int) -> None:
        self.part_size = part_size
        self.memory_limit_bytes = memory_limit_bytes
        self.checksum = "CRC64NVME"
        self.memory = self.most_memory = self.most_in_flight = 0
        self.parts: list[int] = []
        self.completed: list[Any] = []
        self.whole = 0
        self.whole_checksum = ""
        self.aborted = False
        self._under_way: deque[tuple[int, _Reply, memoryview | None]] = deque()
        self._next = 0
        self._zeros: dict[int, str] = {}

    def queue(self) -> "_Client":
        return self

    def buffer(self, nbytes: int, *, force: bool) -> _Memory | None:
        if self.memory + nbytes > self.memory_limit_bytes and not force:
            return None
        memory = _Memory(-1, nbytes)
        memory.owner = self
        self.memory += nbytes
        self.most_memory = max(self.most_memory, self.memory)
        return memory

    def zeros(self, nbytes: int) -> str:
        """The checksum of so many zero bytes."""
        if nbytes not in self._zeros:
            if nbytes <= MIB:
                self._zeros[nbytes] = checksum("CRC64NVME", bytes(nbytes))
            else:
                half = nbytes // 2
                halves = [(self.zeros(half), half), (self.zeros(nbytes - half), nbytes - half)]
                self._zeros[nbytes] = combine_checksums("CRC64NVME", halves)
        return self._zeros[nbytes]

    def _submit(self, reply: _Reply, data: memoryview | None = None) -> int:
        self._under_way.append((self._next, reply, data))
        self.most_in_flight = max(self.most_in_flight, sum(data is not None for *_, data in self._under_way))
        self._next += 1
        return self._next - 1

    def create_upload(self, bucket: str, key: str, headers: Any) -> int:
        return self._submit(_Reply(upload_id="upload"))

    def upload_part(self, bucket: str, key: str, upload_id: str, number: int, data: memoryview) -> int:
        assert number == len(self.parts) + 1
        self.parts.append(len(data))
        return self._submit(_Reply(etag=f'"{number:032x}"', checksum=self.zeros(len(data))), data)

    def complete_upload(
        self, bucket: str, key: str, upload_id: str, parts: Sequence[Any], headers: Any, *, object_size: int
    ) -> int:
        self.completed, self.whole = list(parts), object_size
        self.whole_checksum = dict(headers)["x-amz-checksum-crc64nvme"]
        return self._submit(_Reply(etag=f'"0-{len(parts)}"'))

    def abort_upload(self, bucket: str, key: str, upload_id: str) -> int:
        self.aborted = True
        return self._submit(_Reply())

    def next(self, min_items: int, *, timeout_s: float | None) -> list[tuple[int, _Reply]]:
        return [self._under_way.popleft()[:2]] if min_items and self._under_way else []

    def take(self, index: int, timeout_s: float | None = None) -> _Reply:
        found = next(item for item in self._under_way if item[0] == index)
        self._under_way.remove(found)
        return found[1]

    def cancel(self, indices: range) -> None:
        pass

    def close(self) -> None:
        self._under_way.clear()


def plan(
    size: int,
    *,
    known: bool,
    part_size: int = 8 * MIB,
    memory_limit_bytes: int = GIB,
    piece_bytes: int = PIECE_BYTES,
) -> Plan:
    """Writes an object of this size through S3Writer and a simulated engine."""
    began = time.perf_counter()
    client: Any = _Client(part_size, memory_limit_bytes)
    with mmap.mmap(-1, piece_bytes) as nothing:
        piece = memoryview(nothing)
        error = ""
        try:
            with S3Writer(client, BUCKET, "object", size=size if known else None) as writer:
                for _ in range(size // piece_bytes):
                    writer.write(piece)
                writer.write(piece[: size % piece_bytes])
        except (S3Exception, ValueError) as failure:
            error = str(failure)
            failure.__traceback__ = None  # it holds memory
        piece.release()
    if client.completed:
        assert [number for number, *_ in client.completed] == list(range(1, len(client.parts) + 1))
        assert (client.whole, client.whole_checksum) == (size, client.zeros(size))
    return Plan(
        size=size,
        known=known,
        parts=client.parts,
        memory=client.most_memory,
        in_flight=client.most_in_flight,
        completed=bool(client.completed),
        aborted=client.aborted,
        error=error,
        seconds=time.perf_counter() - began,
    )


@dataclass(frozen=True)
class Sent:
    """An object that was written byte by byte."""

    size: int
    parts: int
    seconds: float
    complete_s: float
    """Of it in close(): the last parts and the Complete request."""
    memory_mb: int
    steps: list[tuple[int, int]]


def send(size: int, *, known: bool, part_size: int = 8 * MIB) -> Sent:
    """Writes an object to a local S3 that keeps nothing, and compares what it counted."""
    from benchmarks.manifest import Peak

    piece = memoryview(bytearray(PIECE_BYTES))
    with LocalS3(sinks=[BUCKET], etag="opaque", activate=False, log_capacity=20_000) as server:
        config = S3ClientConfig(
            credentials=(server.access_key, server.secret_key), part_size=part_size, memory_limit_bytes=GIB
        )
        with S3Client(server.region, endpoint=server.endpoint, s3client_config=config) as client:
            peak, began = Peak(), time.perf_counter()
            with client.put_object(BUCKET, "object", size=size if known else None) as writer:
                for _ in range(size // PIECE_BYTES):
                    writer.write(piece)
                writer.write(piece[: size % PIECE_BYTES])
                closing = time.perf_counter()
            ended, memory = time.perf_counter(), peak.read()
            info = client.head_object(BUCKET, "object")
        sent = server.requests("UploadPart")
        assert info.size == size
        assert info.etag.strip('"').endswith(f"-{len(sent)}"), (info, len(sent))
        assert server.uploads(BUCKET) == []
    lengths = [record.bytes_in for record in sent]
    steps = [(lengths.count(nbytes), nbytes) for nbytes in sorted(set(lengths))]
    return Sent(size, len(sent), ended - began, ended - closing, memory, steps)


@dataclass(frozen=True)
class Read:
    """Reads near the end of a large object."""

    size: int
    reads: int
    nbytes: int
    seconds: float


def read(size: int, *, reads: int, nbytes: int = 4096, within: int = TB) -> Read:
    """Reads at random offsets of the last bytes of a synthetic object, and compares each byte."""
    numbers = random.Random(1)
    with LocalS3(BUCKET, activate=False) as server:
        server.add_synthetic(BUCKET, "object", size_bytes=size, seed=7)
        config = S3ClientConfig(credentials=(server.access_key, server.secret_key))
        with S3Client(server.region, endpoint=server.endpoint, s3client_config=config) as client:
            reader = client.get_object(BUCKET, "object")
            assert reader.seek(0, 2) == size
            began, found = time.perf_counter(), []
            for _ in range(reads):
                at = numbers.randrange(size - within, size - nbytes)
                reader.seek(at)
                found.append((at, reader.read(nbytes)))
            reader.seek(-nbytes, 2)
            found.append((size - nbytes, reader.read(2 * nbytes)))
            seconds = time.perf_counter() - began
            assert reader.read(1) == b""
    assert all(data == synthetic_bytes(7, at, at + nbytes) for at, data in found)
    return Read(size, len(found), nbytes, seconds)
