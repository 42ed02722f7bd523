"""One object, fetched by ranges: which version of it, and the queue that its requests go through."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from s3dataset._client import Client, ClientRef
from s3dataset._uri import S3Uri
from s3dataset.errors import ObjectChangedError, S3Exception

if TYPE_CHECKING:
    from s3dataset._client import Body, Reply, RequestQueue

__all__ = ["Source"]

_RANGE_NOT_SATISFIABLE = 416


class _Forks:
    """How many forks this process is away from the first one: quicker to ask than the process id."""

    count = 0

    @classmethod
    def count_one(cls) -> None:
        cls.count += 1


os.register_at_fork(after_in_child=_Forks.count_one)


class Source:
    """Requests for ranges of one object, all of the same version of it.

    The version is the ETag given, or that of the first answer: every later request carries it, so that a replaced
    object is an `ObjectChangedError` and versions are never mixed. Not safe for concurrent use; the reader has a lock.

    Attributes:
        size: Bytes of the object, None until known.
        etag: None until known, "" where the service has none.
        version_id: Of a bucket with versions; None: the current version.
    """

    __slots__ = ("_abandoned", "_client", "_forks", "_queue", "bucket", "etag", "key", "size", "version_id")

    def __init__(
        self,
        client: Client | ClientRef,
        bucket: str,
        key: str,
        *,
        size: int | None,
        etag: str | None,
        version_id: str | None = None,
    ) -> None:
        self._client = client
        self.bucket = bucket
        self.key = key
        self.size = size
        self.etag = etag or None
        self.version_id = version_id
        self._forks = _Forks.count
        self._queue: RequestQueue | None = None
        self._abandoned: list[int] = []

    @property
    def uri(self) -> str:
        return str(S3Uri(self.bucket, self.key))

    @property
    def client(self) -> Client:
        if isinstance(self._client, ClientRef):
            self._client = self._client.get()
        return self._client

    @property
    def client_ref(self) -> ClientRef:
        return self._client if isinstance(self._client, ClientRef) else self._client.ref

    @property
    def identified(self) -> bool:
        """Whether size and version are known, so that further requests can go out side by side."""
        return self.size is not None and self.etag is not None

    @property
    def in_other_process(self) -> bool:
        """Whether this process is a fork of the one whose queue this is."""
        return self._forks != _Forks.count

    def forget_queue(self) -> None:
        """In a forked child: what was under way belongs to the parent. The next request opens a queue anew."""
        self._forks = _Forks.count
        self._queue = None
        self._abandoned.clear()

    def close_queue(self) -> None:
        """Cancels what is under way; memory lent to `submit_into` is given up when this returns."""
        queue = self._queue
        if queue is not None:
            self._queue = None
            self._abandoned.clear()
            if not self.in_other_process:
                queue.close()

    def submit(self, ranges: Sequence[tuple[int, int]]) -> range:
        """Sends for [start, end) of each -> indices for `take`."""
        pin = self._pin
        size = self.size
        rows = [(self.bucket, self.key, start, end, size, pin) for start, end in ranges]
        return self._open_queue().get(rows, version_id=self.version_id)

    def fetch(self, start: int, end: int | None = None) -> "Body":
        """Fetches [start, end), or from -n the last n bytes; learns the version from them."""
        body = self._fetch(start, end)
        self._learn(body.object_size, body.etag)
        return body

    def fetch_or_identify(self, start: int, end: int | None = None) -> "Body | None":
        """`fetch`; None where nothing lies in the range, which tells the size too."""
        try:
            body = self._fetch(start, end)
        except S3Exception as error:
            self._identify_after(error)
            return None
        return self._learned(body)

    def submit_into(self, pieces: Sequence[tuple[int, memoryview]]) -> range:
        """Sends for as many bytes as each view has, into it -> indices for `take_into`."""
        pin = self._pin
        rows = [(self.bucket, self.key, start, pin, view) for start, view in pieces]
        return self._open_queue().get_into(rows, version_id=self.version_id)

    def fetch_whole(self) -> "Body | None":
        """All of the object; None where it is empty."""
        return self._learned(self._fetch())

    def _fetch(self, start: int | None = None, end: int | None = None) -> "Body":
        return self.client.fetch(
            self.bucket, self.key, start, end, size=self.size, etag=self._pin, version_id=self.version_id
        )

    def submit_tail(self, nbytes: int) -> int:
        row = (self.bucket, self.key, -nbytes, None, self.size, self._pin)
        return self._open_queue().get([row], version_id=self.version_id)[0]

    def take(self, index: int) -> "Body":
        """Waits for bytes sent for; learns the version from them."""
        body = cast("Body", self._open_queue().take(index))
        self._learn(body.object_size, body.etag)
        return body

    def take_into(self, indices: range) -> None:
        for result in self._open_queue().take_many(indices):
            if isinstance(result, S3Exception):
                raise result
            reply = cast("Reply", result)
            self._learn(reply.object_size, reply.etag)

    def take_or_identify(self, index: int) -> "Body | None":
        """`take`; None where nothing lies in the range, which tells the size too."""
        try:
            body = cast("Body", self._open_queue().take(index))
        except S3Exception as error:
            self._identify_after(error)
            return None
        return self._learned(body)

    def _identify_after(self, error: S3Exception) -> None:
        if error.status != _RANGE_NOT_SATISFIABLE:
            raise error
        self.identify()

    def _learned(self, body: "Body") -> "Body | None":
        if len(body):
            self._learn(body.object_size, body.etag)
            return body
        # The answer to a range past the end may tell neither size nor version.
        if body.object_size or body.start == 0:
            self._learn(body.object_size, body.etag or None)
        else:
            self.identify()
        return None

    def identify(self) -> None:
        """Asks for size and version alone."""
        queue = self._open_queue()
        reply = cast("Reply", queue.take(queue.head(self.bucket, self.key, version_id=self.version_id)))
        self._learn(reply.object_size, reply.etag)

    def abandon(self, indices: Sequence[int]) -> None:
        """Gives up what was sent for."""
        queue = self._open_queue()
        for index in indices:
            queue.cancel(range(index, index + 1))
        self._abandoned.extend(indices)

    @property
    def _pin(self) -> str | None:
        etag = self.etag
        if not etag or etag.startswith(('"', "W/")):
            return etag or None
        return f'"{etag}"'

    def _open_queue(self) -> "RequestQueue":
        queue = self._queue
        if queue is None:
            queue = self._queue = self.client.queue()
        elif self._abandoned:
            # Results count in the byte budget until they are taken, cancelled ones too.
            waiting = []
            for index in self._abandoned:
                if queue.ready(index):
                    queue.take_many(range(index, index + 1))
                else:
                    waiting.append(index)
            self._abandoned = waiting
        return queue

    def _learn(self, size: int, etag: str | None) -> None:
        if self.size is None:
            self.size = size
        elif size != self.size:
            raise ObjectChangedError(
                f"{self.uri} has {size:,} bytes now and had {self.size:,} when it was listed or first read: it was "
                "replaced meanwhile. List again, or open a new reader",
                operation="GetObject",
                uri=self.uri,
            )
        if not etag or not self.etag:
            self.etag = etag if self.etag is None else self.etag
        elif etag.strip('"') != self.etag.strip('"'):
            raise ObjectChangedError(
                f"{self.uri} was replaced while it was being read (ETag {self.etag} became {etag}): open a new reader",
                operation="GetObject",
                uri=self.uri,
            )
