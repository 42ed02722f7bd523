"""One object being written: a single PUT, or an upload in parts, and what became of it."""

import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from s3dataset._client import Client, Nonce, combine_checksums
from s3dataset._io._part_sizes import MAX_PARTS, PartSizes
from s3dataset._uri import S3Uri
from s3dataset.errors import InternalError, S3Exception

if TYPE_CHECKING:
    from s3dataset._client import Buffer, Pieces, Reply, RequestQueue

__all__ = ["Saved", "Upload"]

_LOGGER = logging.getLogger("s3dataset")

_IN_FLIGHT_PARTS: Final = 32
_HELD_PARTS: Final = 64  # of memory that nobody has to make
_ABORT_TIMEOUT_S: Final = 10.0  # an upload left behind costs little, and is named
_ABORT_PATIENCE_S: Final = 2.5  # Ctrl-C and a failed save should be heard soon; a thread waits for the rest
_FULL_OBJECT_CHECKSUM: Final = "CRC64NVME"  # the one whose value for the whole follows from those of the parts
_FULL_OBJECT_HEADER: Final = "x-amz-checksum-crc64nvme"


class Saved(NamedTuple):
    """What is known of the finished object."""

    etag: str
    last_modified: float | None
    version_id: str | None


class _Part(NamedTuple):
    number: int
    nbytes: int
    buffer: "Buffer | None"
    """None: the caller's memory."""
    keeps: object = None
    """What holds that memory until the part is there."""


class Upload:
    """Sends one object. Not safe for concurrent use; the writer has a lock.

    The first failure of a part is raised by the next call. An object becomes visible through `put` or `complete`
    alone, and each of them either returns with the object saved or raises with it not saved, as far as the service
    can be asked.
    """

    def __init__(
        self,
        client: Client,
        bucket: str,
        key: str,
        *,
        headers: Sequence[tuple[str, str]],
        conditions: Sequence[tuple[str, str]],
        sizes: PartSizes,
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._key = key
        self._headers = list(headers)
        self._conditions = list(conditions)
        self._sizes = sizes
        self._nonce = Nonce()
        self._opened: RequestQueue | None = None
        self._ended = False
        self._upload_id = ""
        self._creating = -1
        self._aborting = -1
        self._number = 0
        self._waiting: list[tuple[_Part, memoryview]] = []
        self._in_flight: dict[int, _Part] = {}
        self._in_flight_bytes = 0
        self._etags: dict[int, tuple[str, str]] = {}
        self._nbytes: dict[int, int] = {}
        self.acknowledged_bytes = 0
        """Of the parts that the service has."""
        self._error: S3Exception | None = None
        self.published = False
        """The request that makes the object visible was sent for."""

    @property
    def uri(self) -> str:
        return str(S3Uri(self._bucket, self._key))

    @property
    def _queue(self) -> "RequestQueue":
        if self._opened is None:
            # Not before it is needed: it looks for credentials.
            self._opened = self._client.queue()
        return self._opened

    @property
    def in_parts(self) -> bool:
        """Whether parts were sent already, so that a single PUT is out of the question."""
        return self._number > 0

    @property
    def next_part_bytes(self) -> int:
        return self._sizes.of(self._number + 1)

    # -- A single request -------------------------------------------------------------------------------------------

    def put(self, data: "memoryview | bytearray | Pieces") -> Saved:
        headers = [*self._headers, *self._conditions]
        if self._conditions:
            headers.append(self._nonce.header)
        index = self._queue.put([(self._bucket, self._key, data, headers)])[0]
        self.published = True
        try:
            return _saved(cast("Reply", self._queue.take(index)))
        except S3Exception as error:
            if not self._conditions:
                raise  # written again, it is the same object
            return _saved(self._nonce.saved_after_all(self._queue, self._bucket, self._key, error))

    # -- Parts ------------------------------------------------------------------------------------------------------

    def buffer(self, nbytes: int) -> "Buffer":
        """Memory for the next part; waits for a part under way when there is too much of it."""
        share = max(self._client.memory_limit_bytes // 2, 2 * nbytes)
        while True:
            self._reap(wait=False)
            under_way = bool(self._in_flight or self._waiting)
            crowded = len(self._in_flight) >= _IN_FLIGHT_PARTS or self._in_flight_bytes + nbytes > share
            if not (under_way and crowded):
                # With nothing under way there is nothing to wait for: every writer has one part for sure.
                buffer = self._client.buffer(nbytes, force=not under_way)
                if buffer is not None:
                    return buffer
            self._reap(wait=True)

    def send(self, buffer: "Buffer", nbytes: int) -> None:
        """Sends the next part from pooled memory and returns at once."""
        self._begin()
        self._in_flight_bytes += nbytes
        self._waiting.append((self._next_part(nbytes, buffer), memoryview(buffer)[:nbytes]))
        self._reap(wait=False)

    def send_from(self, data: memoryview) -> int:
        """Sends whole parts straight from the caller's memory, and returns when nobody reads it any more.

        When this raises, that is so after `abort`.

        Returns:
            How many bytes were sent: all but a rest smaller than a part.
        """
        self._begin()
        while not self._upload_id:
            self._reap(wait=True)
        sent = 0
        indices = []
        while len(data) - sent >= self.next_part_bytes:
            nbytes = self.next_part_bytes
            part = self._next_part(nbytes, None)
            indices.append(self._submit(part, data[sent : sent + nbytes]))
            sent += nbytes
        while any(index in self._in_flight for index in indices):
            self._reap(wait=True)
        return sent

    def send_held(self, pieces: "Pieces", keeps: object, most_parts: int | None = None) -> None:
        """Sends the next part from memory that does not change until the upload has ended, and returns at once.

        When anything raises, nobody reads that memory any more after `abort`.
        """
        self._begin()
        while not self._upload_id or len(self._in_flight) >= (most_parts or _HELD_PARTS):
            self._reap(wait=True)
        self._submit(self._next_part(sum(map(len, pieces)), None, keeps), pieces)
        self._reap(wait=False)

    def wait_for_one(self) -> bool:
        """Waits for the end of a part -> whether there was one under way."""
        if not self._in_flight:
            return False
        self._reap(wait=True)
        return True

    def complete(self) -> Saved:
        """Waits for the parts and makes the object visible."""
        while self._in_flight or self._waiting or self._creating >= 0:
            self._reap(wait=True)
        self._reap(wait=False)
        numbers = sorted(self._etags)
        checksums = [(self._etags[number][1], self._nbytes[number]) for number in numbers]
        headers = list(self._conditions)
        combined = ""
        if self._client.checksum == _FULL_OBJECT_CHECKSUM and all(value for value, _ in checksums):
            combined = combine_checksums(_FULL_OBJECT_CHECKSUM, checksums)
            headers.append((_FULL_OBJECT_HEADER, combined))
        index = self._queue.complete_upload(
            self._bucket,
            self._key,
            self._upload_id,
            [(number, self._etags[number][0], self._etags[number][1] or None) for number in numbers],
            headers,
            object_size=sum(self._nbytes.values()),
        )
        self.published = True
        try:
            saved = _saved(cast("Reply", self._queue.take(index)))
        except S3Exception as error:
            saved = _saved(self._nonce.saved_after_all(self._queue, self._bucket, self._key, error))
        self._upload_id = ""
        return saved

    def abort(self) -> None:
        """Leaves nothing behind: parts are cancelled and awaited, then the upload is aborted. Failures are logged.

        A service that is silent for some seconds is left to a thread, which the end of the interpreter waits for.
        """
        if self._ended or self._opened is None:
            self._ended = True
            return
        self._ended = True
        began = time.monotonic()
        handed_over = False
        try:
            for index in self._in_flight:
                self._queue.cancel(range(index, index + 1))
            if self._try_abort(began + _ABORT_PATIENCE_S):
                return
            # Parts that have not ended may still read the caller's memory.
            handed_over = not self._in_flight and _later(self._abort_by, began + _ABORT_TIMEOUT_S)
            if not handed_over:
                self._abort_by(began + _ABORT_TIMEOUT_S)
        finally:
            if not handed_over:
                self._forget()

    def interrupt(self) -> None:
        """Ends the waits of another thread, unless it is in `abort`: they raise CancelledError."""
        if self._opened is not None and not self._ended:
            self._opened.cancel(range(sys.maxsize))

    def _abort_by(self, deadline: float) -> None:
        """The last attempt: says so when it fails."""
        try:
            if not self._try_abort(deadline):
                self._warn(f"no answer within {_ABORT_TIMEOUT_S:.0f} s")
        finally:
            self._forget()

    def _forget(self) -> None:
        self._waiting.clear()
        self._in_flight.clear()
        if self._opened is not None:
            self._opened.close()

    def _warn(self, reason: object) -> None:
        upload = f"the unfinished upload {self._upload_id}" if self._upload_id else "an unfinished upload"
        _LOGGER.warning(
            "%s of %s may remain and cost money until it is aborted (a lifecycle rule does that): %s",
            upload,
            self.uri,
            reason,
        )

    def close(self) -> None:
        """After `put`, `complete` or `abort`."""
        if not self._ended:
            self._ended = True
            self._forget()

    def _try_abort(self, deadline: float) -> bool:
        """Goes on until it is done, whatever came of it, or the time is over -> whether it is done."""
        try:
            while self._in_flight or self._creating >= 0:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                if not self._take_results(1, left):
                    if self._queue.unfinished:
                        return False
                    self._write_off()
            if not self._upload_id:
                return True
            if self._aborting < 0:
                self._aborting = self._queue.abort_upload(self._bucket, self._key, self._upload_id)
            self._queue.take(self._aborting, max(deadline - time.monotonic(), 0.0))
        except S3Exception as error:
            if error.code != "NoSuchUpload":  # an abort whose answer was lost finds no upload
                self._warn(error)
        except TimeoutError:
            return False
        return True

    def _write_off(self) -> None:
        """Results that were taken and never seen: Ctrl-C comes when a call returns, and what it returned is gone."""
        self._in_flight.clear()
        if self._creating >= 0:
            self._creating = -1
            _LOGGER.warning(
                "an upload of %s was interrupted as it began, and may remain. It holds no bytes; a lifecycle rule for "
                "unfinished uploads removes it",
                self.uri,
            )

    def _begin(self) -> None:
        if self._creating < 0 and not self._upload_id and not self._number:
            self._sizes.warn_if_raised()
            self._creating = self._queue.create_upload(self._bucket, self._key, [*self._headers, self._nonce.header])

    def _next_part(self, nbytes: int, buffer: "Buffer | None", keeps: object = None) -> _Part:
        self._number += 1
        if self._number > MAX_PARTS:
            raise S3Exception(
                f"{self.uri} would have more than {MAX_PARTS:,} parts: give the writer the object's size beforehand, "
                "or raise part_size",
                operation="UploadPart",
                uri=self.uri,
            )
        return _Part(self._number, nbytes, buffer, keeps)

    def _submit(self, part: _Part, data: "memoryview | Pieces") -> int:
        index = self._queue.upload_part(self._bucket, self._key, self._upload_id, part.number, data)
        self._in_flight[index] = part
        return index

    def _reap(self, *, wait: bool) -> None:
        """Takes results that are there, or waits for one; sends parts that waited for the upload's id."""
        under_way = self._creating >= 0 or bool(self._in_flight)
        if under_way and not self._take_results(1 if wait else 0, None if wait else 0.0) and wait:
            raise InternalError(f"a result of the upload of {self.uri} is missing", uri=self.uri)
        if self._error is not None:
            raise self._error
        if self._upload_id:
            for part, data in self._waiting:
                self._submit(part, data)
            self._waiting.clear()

    def _take_results(self, min_items: int, timeout_s: float | None) -> int:
        results = self._queue.next(min_items, timeout_s=timeout_s)
        for index, result in results:
            part = self._in_flight.pop(index, None)
            if part is not None and part.buffer is not None:
                self._in_flight_bytes -= part.nbytes
            if index == self._creating:
                self._creating = -1
            if isinstance(result, S3Exception):
                self._error = self._error or result
            elif part is None:
                self._begun(cast("Reply", result))
            else:
                reply = cast("Reply", result)
                self._etags[part.number] = (reply.etag, reply.checksum)
                self._nbytes[part.number] = part.nbytes
                self.acknowledged_bytes += part.nbytes
        return len(results)

    def _begun(self, reply: "Reply") -> None:
        self._upload_id = reply.upload_id
        if not self._upload_id:
            raise InternalError(f"the upload of {self.uri} got no id", uri=self.uri)
        if reply.in_doubt:
            # Nothing that S3 lists tells it from another writer's of the same key, so it is not aborted.
            _LOGGER.warning(
                "creating the upload of %s was tried again after an answer was lost: besides upload %s, which is used, "
                "%d without parts may remain. They hold no bytes; a lifecycle rule for unfinished uploads removes them",
                self.uri,
                self._upload_id,
                reply.in_doubt,
            )


def _saved(reply: "Reply") -> Saved:
    version_id = next((value for name, value in reply.headers() if name.lower() == "x-amz-version-id"), None)
    return Saved(reply.etag, reply.last_modified, version_id)


# -- Uploads whose service is silent ---------------------------------------------------------------------------------

_aborting: Final[set[threading.Thread]] = set()


def _later(work: Callable[[float], None], deadline: float) -> bool:
    """Does it in a thread -> whether it could: at the end of the interpreter there are no more threads."""

    def run() -> None:
        try:
            work(deadline)
        finally:
            _aborting.discard(thread)

    thread = threading.Thread(target=run, name="s3dataset-abort", daemon=True)
    _aborting.add(thread)
    try:
        thread.start()
    except RuntimeError:
        _aborting.discard(thread)
        return False
    return True


def _await_aborts() -> None:
    for thread in list(_aborting):
        thread.join(_ABORT_TIMEOUT_S)


atexit.register(_await_aborts)
os.register_at_fork(after_in_child=_aborting.clear)
