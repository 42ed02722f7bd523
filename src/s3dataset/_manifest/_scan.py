"""Scanning shards: many at a time, in threads that wait for the service or look for the next sample."""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final, NamedTuple, cast

from s3dataset._client import Client
from s3dataset._io import S3Reader
from s3dataset._manifest._columns import Row
from s3dataset._manifest._shard_stream import Pace, ShardStream
from s3dataset._uri import S3Uri
from s3dataset.errors import ObjectChangedError, S3Exception, UnindexableError
from s3dataset.formats import Format, ShardIndex

_THREADS: Final = 32
_TICK_S: Final = 0.2
_GOODBYE_S: Final = 1.0


class Scanned(NamedTuple):
    """What was found in a shard.

    Attributes:
        job: Which of the shards given.
        found: Where its samples lie.
        size: Bytes of the object.
        etag: With its quotes, "" where the service names none.
    """

    job: int
    found: ShardIndex
    size: int
    etag: str


class Scans:
    """Scans shards as they come, and stops within a second when it is left.

    Memory: 128 MiB or half of the client's byte budget, and the samples of as many shards as there are threads.
    """

    def __init__(self, client: Client, format: Format, shards: Sequence[Row]) -> None:  # noqa: A002
        self._client = client
        self._format = format
        self._shards = shards
        self._lock = threading.Lock()
        self._next = 0
        self._stopped = False
        self._streams: dict[int, ShardStream | S3Reader] = {}  # by job
        count = max(min(len(shards), _THREADS, client.max_connections), 1)
        self._pace = Pace(client, count)
        self._results: queue.Queue[Scanned | BaseException] = queue.Queue(count)
        self._threads = [
            threading.Thread(target=self._work, name=f"s3dataset-scan-{number}", daemon=True) for number in range(count)
        ]

    @property
    def bytes_under_way(self) -> int:
        """How far the shards have been read that are not done yet."""
        with self._lock:
            streams = list(self._streams.values())
        return sum(_position(stream) for stream in streams)

    def results(self) -> Iterator[Scanned | None]:
        """What was found, as it comes; None now and then, when nothing has come.

        Raises:
            S3Exception: A shard could not be read, or its samples not be found: the first of these.
        """
        for thread in self._threads:
            thread.start()
        try:
            for _ in self._shards:
                while True:
                    try:
                        result = self._results.get(timeout=_TICK_S)
                    except queue.Empty:
                        yield None
                        continue
                    break
                if isinstance(result, BaseException):
                    raise result
                yield result
        finally:
            self._stop()

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            streams = list(self._streams.values())
        # Closing a reader waits for a read under way, which on a bad network takes longer than who presses Ctrl-C does.
        closing = threading.Thread(target=_stop_all, args=[streams], name="s3dataset-scan-end", daemon=True)
        closing.start()
        deadline = time.monotonic() + _GOODBYE_S
        for thread in [closing, *self._threads]:
            while thread.is_alive() and time.monotonic() < deadline:
                thread.join(0.02)
                self._drain()

    def _drain(self) -> None:
        """Makes room for who waits to hand over a result."""
        try:
            while True:
                self._results.get_nowait()
        except queue.Empty:
            pass

    # -- In the threads ---------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (job := self._take()) is not None:
            try:
                result: Scanned | BaseException = self._scan(job)
            except BaseException as error:  # noqa: BLE001 - raised where the results are taken
                result = error
            if self._stopped:
                return
            self._results.put(result)

    def _take(self) -> int | None:
        with self._lock:
            job = self._next
            if self._stopped or job == len(self._shards):
                return None
            self._next += 1
            return job

    def _scan(self, job: int) -> Scanned:
        bucket, key, size, etag = shard = self._shards[job]
        stream: ShardStream | S3Reader
        if size is None or not etag:
            stream = S3Reader(self._client, bucket, key, policy=self._pace.policy, size=size, etag=etag)
        else:
            stream = ShardStream(self._client, shard, self._pace)
        uri = str(S3Uri(bucket, key))
        with stream:
            with self._lock:
                if self._stopped:
                    stream.close()
                self._streams[job] = stream
            try:
                found = self._format.scan(cast(BinaryIO, stream), url=uri, size=size)
                if isinstance(stream, S3Reader):
                    size, etag = stream.size, stream.etag
                return Scanned(job, found, size or 0, etag or "")
            except ObjectChangedError as error:
                raise _changed(uri) from error
            except UnindexableError as error:
                raise _unindexable(error, uri, self._format) from error
            finally:
                with self._lock:
                    del self._streams[job]


def _position(stream: ShardStream | S3Reader) -> int:
    if isinstance(stream, ShardStream):
        return stream.position
    return 0 if stream.closed else stream.tell()


def _stop_all(streams: "Sequence[ShardStream | S3Reader]") -> None:
    for stream in streams:
        if isinstance(stream, ShardStream):
            stream.stop()
        else:
            stream.close()


def _changed(uri: str) -> ObjectChangedError:
    return ObjectChangedError(
        f"{uri} is not the object any more that was listed: it was replaced since. List again with "
        "Manifest.from_prefix, and index that; with reuse=, giving an earlier index, only what changed is scanned",
        operation="GetObject",
        uri=uri,
    )


def _unindexable(error: S3Exception, uri: str, format: Format) -> UnindexableError:  # noqa: A002
    text = str(error)
    folder = uri[: uri.rfind("/") + 1]
    return UnindexableError(
        f"{text if uri in text else f'{uri}: {text}'}. To read its samples at random: "
        f"s3dataset pack {folder} s3://BUCKET/PREFIX/ --format {format.name}",
        uri=uri,
    )
