"""An object store in memory behind the interface of `s3dataset._client.Client`, whose answers come in any order.

A request does its work when it ends, not when it is sent: data that changes meanwhile, or memory that is read or
written too late, shows.
"""

import hashlib
import random
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from s3dataset._client import combine_checksums
from s3dataset._native import checksum as checksum_of
from s3dataset.errors import (
    CancelledError,
    ObjectChangedError,
    ObjectNotFoundError,
    PreconditionFailedError,
    S3Exception,
)

BUCKET = "bucket"


class FakeBody(bytearray):
    start: int
    object_size: int
    etag: str

    @property
    def nbytes(self) -> int:
        return len(self)


class FakeBuffer(bytearray):
    def copy_from(self, offset: int, data: memoryview) -> int:
        nbytes = min(len(data), len(self) - offset)
        memoryview(self)[offset : offset + nbytes] = data[:nbytes]
        return nbytes


@dataclass
class FakeReply:
    etag: str = ""
    object_size: int = 0
    upload_id: str = ""
    in_doubt: int = 0
    checksum: str = ""
    last_modified: float | None = 1.0
    metadata: list[tuple[str, str]] = field(default_factory=list)

    def headers(self) -> list[tuple[str, str]]:
        return self.metadata


@dataclass
class FakeObject:
    data: bytes
    etag: str
    headers: list[tuple[str, str]]


@dataclass
class FakeUpload:
    key: str
    headers: list[tuple[str, str]]
    parts: dict[int, tuple[bytes, str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """What was asked for: of a GET [start, end) as answered."""

    operation: str
    key: str
    start: int = 0
    end: int = 0
    part_number: int = 0
    pin: str | None = None

    @property
    def nbytes(self) -> int:
        return self.end - self.start


class FakeService:
    """Objects, what was asked for, and what goes wrong.

    `before` is called with every request as it ends and may return an exception to answer; `after` likewise, once the
    request was carried out: the answer is lost.
    """

    def __init__(self, seed: int = 0, *, tells_size_past_end: bool = True, etags: bool = True) -> None:
        self.objects: dict[str, FakeObject] = {}
        self.uploads: dict[str, FakeUpload] = {}
        self.aborted: list[str] = []
        self.requests: list[Request] = []
        self.before: Callable[[Request], S3Exception | None] = lambda request: None
        self.after: Callable[[Request], S3Exception | None] = lambda request: None
        self.random = random.Random(seed)
        self.tells_size_past_end = tells_size_past_end
        self.etags = etags

    def put(self, key: str, data: bytes, headers: Sequence[tuple[str, str]] = ()) -> str:
        etag = f'"{hashlib.md5(data).hexdigest()}"' if self.etags else ""
        self.objects[key] = FakeObject(bytes(data), etag, list(headers))
        return etag

    def count(self, operation: str) -> int:
        return sum(request.operation == operation for request in self.requests)

    @property
    def bytes_fetched(self) -> int:
        return sum(request.nbytes for request in self.requests if request.operation == "GetObject")

    def ask(self, request: Request, work: Callable[[], Any]) -> Any:
        self.requests.append(request)
        error = self.before(request)
        if error is not None:
            return error
        try:
            result = work()
        except S3Exception as failure:
            return failure
        return self.after(request) or result

    def found(self, key: str) -> FakeObject:
        if key not in self.objects:
            raise ObjectNotFoundError("Service error: The key does not exist", status=404, code="NoSuchKey")
        return self.objects[key]

    def check(self, key: str, headers: Sequence[tuple[str, str]]) -> None:
        given = dict(headers)
        there = self.objects.get(key)
        if given.get("if-none-match") == "*" and there is not None:
            raise PreconditionFailedError("it exists", status=412, code="PreconditionFailed")
        if "if-match" in given and (there is None or there.etag != given["if-match"]):
            raise PreconditionFailedError("it is another", status=412, code="PreconditionFailed")


@dataclass
class _Job:
    request: Callable[[], Request]
    work: Callable[[], Any]
    memory: memoryview | None = None
    """What the request reads: must stay as it was sent."""
    seen: bytes = b""


class FakeQueue:
    def __init__(self, service: FakeService) -> None:
        self.service = service
        self.jobs: dict[int, _Job] = {}
        self.results: dict[int, Any] = {}
        self.submitted = 0
        self.closed = False

    def _submit(self, job: _Job) -> int:
        assert not self.closed, "a request on a closed queue"
        if job.memory is not None:
            job.seen = job.memory.tobytes()
        self.jobs[self.submitted] = job
        self.submitted += 1
        return self.submitted - 1

    def _end(self, index: int) -> None:
        job = self.jobs.pop(index)
        if job.memory is not None:
            assert job.memory.tobytes() == job.seen, "memory changed while it was being sent"
        self.results[index] = self.service.ask(job.request(), job.work)

    def _end_some(self) -> None:
        for index in list(self.jobs):
            if self.service.random.random() < 0.3:
                self._end(index)

    # -- Requests

    def get(self, requests: Iterable[Any], *, limit: int | None = None, version_id: str | None = None) -> range:
        indices = [self._get(*request) for request in requests]
        return range(indices[0], indices[0] + len(indices))

    def _get(self, bucket: str, key: str, start: int | None, end: int | None, size: int | None, pin: str | None) -> int:
        def bounds() -> tuple[int, int]:
            nbytes = len(self.service.found(key).data)
            if start is None:
                return 0, nbytes
            if end is None:
                return max(nbytes + start, 0), nbytes
            return min(start, nbytes), min(end, nbytes)

        def work() -> FakeBody:
            there = self._pinned(key, pin)
            first, last = bounds()
            body = FakeBody(there.data[first:last])
            body.start, body.object_size, body.etag = first, len(there.data), there.etag
            if first >= last:
                # As the engine answers a 416.
                body.etag = pin or ""
                if not self.service.tells_size_past_end:
                    body.start = body.object_size = 0
                    if start:
                        raise S3Exception("the range lies outside the object", status=416)
            return body

        def request() -> Request:
            first, last = bounds() if key in self.service.objects else (0, 0)
            return Request("GetObject", key, first, last, pin=pin)

        return self._submit(_Job(request, work))

    def get_into(self, requests: Iterable[Any], *, version_id: str | None = None) -> range:
        indices = [self._get_into(*request) for request in requests]
        return range(indices[0], indices[0] + len(indices))

    def _get_into(self, bucket: str, key: str, start: int, pin: str | None, view: memoryview) -> int:
        view[:] = b"\xee" * len(view)

        def work() -> FakeReply:
            there = self._pinned(key, pin)
            data = there.data[start : start + len(view)]
            if len(data) < len(view):
                raise S3Exception("the object is shorter", status=416)
            view[:] = data
            return FakeReply(there.etag, len(there.data))

        return self._submit(_Job(lambda: Request("GetObject", key, start, start + len(view), pin=pin), work))

    def _pinned(self, key: str, pin: str | None) -> FakeObject:
        there = self.service.found(key)
        assert pin is None or pin.startswith('"'), "an ETag goes out with its quotes"
        if pin is not None and pin != there.etag:
            raise ObjectChangedError("The object was replaced", status=412)
        return there

    def head(self, bucket: str, key: str, headers: Any = (), *, version_id: str | None = None) -> int:
        def work() -> FakeReply:
            there = self.service.found(key)
            return FakeReply(there.etag, len(there.data), metadata=there.headers)

        return self._submit(_Job(lambda: Request("HeadObject", key), work))

    def put(self, requests: Iterable[Any]) -> range:
        indices = [self._put(*request) for request in requests]
        return range(indices[0], indices[0] + len(indices))

    def _put(self, bucket: str, key: str, data: Any, headers: Sequence[tuple[str, str]]) -> int:
        memory = memoryview(data)

        def work() -> FakeReply:
            self.service.check(key, headers)
            return FakeReply(self.service.put(key, memory.tobytes(), headers))

        return self._submit(_Job(lambda: Request("PutObject", key, 0, len(memory)), work, memory))

    def create_upload(self, bucket: str, key: str, headers: Sequence[tuple[str, str]] = ()) -> int:
        def work() -> FakeReply:
            upload_id = f"upload-{len(self.service.uploads)}-{self.service.random.random()}"
            self.service.uploads[upload_id] = FakeUpload(key, list(headers))
            return FakeReply(upload_id=upload_id)

        return self._submit(_Job(lambda: Request("CreateMultipartUpload", key), work))

    def upload_part(
        self, bucket: str, key: str, upload_id: str, part_number: int, data: memoryview, headers: Any = ()
    ) -> int:
        def work() -> FakeReply:
            part = data.tobytes()
            etag = f'"{hashlib.md5(part).hexdigest()}"'
            value = checksum_of("CRC64NVME", part)
            self._upload(upload_id).parts[part_number] = (part, etag, value)
            return FakeReply(etag, checksum=value)

        return self._submit(_Job(lambda: Request("UploadPart", key, 0, len(data), part_number), work, data))

    def complete_upload(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        parts: Sequence[tuple[int, str, str | None]],
        headers: Sequence[tuple[str, str]] = (),
        *,
        object_size: int | None = None,
    ) -> int:
        def work() -> FakeReply:
            upload = self._upload(upload_id)
            self.service.check(key, headers)
            assert [number for number, _, _ in parts] == sorted(upload.parts) == list(range(1, len(parts) + 1))
            assert all(upload.parts[number][1:] == (etag, value) for number, etag, value in parts)
            data = b"".join(upload.parts[number][0] for number, _, _ in parts)
            assert object_size == len(data)
            assert dict(headers)["x-amz-checksum-crc64nvme"] == checksum_of("CRC64NVME", data)
            assert combine_checksums("CRC64NVME", [(v, len(upload.parts[n][0])) for n, _, v in parts])
            del self.service.uploads[upload_id]
            return FakeReply(self.service.put(key, data, upload.headers))

        return self._submit(_Job(lambda: Request("CompleteMultipartUpload", key), work))

    def abort_upload(self, bucket: str, key: str, upload_id: str) -> int:
        def work() -> FakeReply:
            self._upload(upload_id)
            assert not self.jobs or all(i > index for i in self.jobs), "parts are under way while the upload is aborted"
            del self.service.uploads[upload_id]
            self.service.aborted.append(upload_id)
            return FakeReply()

        index = self._submit(_Job(lambda: Request("AbortMultipartUpload", key), work))
        return index

    def _upload(self, upload_id: str) -> FakeUpload:
        if upload_id not in self.service.uploads:
            raise S3Exception("no such upload", status=404, code="NoSuchUpload")
        return self.service.uploads[upload_id]

    # -- Results

    def take(self, index: int, timeout_s: float | None = None) -> Any:
        result = self.take_many(range(index, index + 1))[0]
        if isinstance(result, S3Exception):
            raise result
        return result

    def take_many(self, indices: range, timeout_s: float | None = None) -> list[Any]:
        self._end_some()
        for index in indices:
            if index in self.jobs:
                self._end(index)
        return [self.results.pop(index) for index in indices]

    def next(self, min_items: int = 1, max_items: int = 4096, timeout_s: float | None = None) -> list[tuple[int, Any]]:
        self._end_some()
        while timeout_s != 0 and len(self.results) < min_items and self.jobs:
            self._end(self.service.random.choice(list(self.jobs)))
        indices = list(self.results)
        self.service.random.shuffle(indices)
        return [(index, self.results.pop(index)) for index in indices[:max_items]]

    def ready(self, index: int) -> bool:
        self._end_some()
        return index in self.results

    @property
    def unfinished(self) -> int:
        return len(self.jobs)

    def cancel(self, indices: range) -> None:
        for index in indices:
            if index in self.jobs and self.service.random.random() < 0.8:
                del self.jobs[index]
                self.results[index] = CancelledError("The request was cancelled")

    def close(self) -> None:
        self.closed = True
        self.jobs.clear()
        self.results.clear()


class FakeClient:
    """What readers and writers use of a client."""

    region = endpoint = None

    def __init__(self, service: FakeService, *, part_size: int = 8 << 20, memory_limit_bytes: int = 1 << 30) -> None:
        self.service = service
        self.part_size = part_size
        self.memory_limit_bytes = memory_limit_bytes
        self.checksum = "CRC64NVME"
        self.queues: list[FakeQueue] = []
        self.buffered_bytes = 0
        self.most_buffered_bytes = 0

    @property
    def ref(self) -> "FakeClient":
        return self

    def queue(self) -> FakeQueue:
        queue = FakeQueue(self.service)
        self.queues.append(queue)
        return queue

    def fetch(
        self,
        bucket: str,
        key: str,
        start: int | None = None,
        end: int | None = None,
        *,
        size: int | None = None,
        etag: str | None = None,
        version_id: str | None = None,
        limit: int | None = None,
    ) -> FakeBody:
        queue = FakeQueue(self.service)
        body: FakeBody = queue.take(queue.get([(bucket, key, start, end, size, etag)], limit=limit)[0])
        return body

    def buffer(self, size: int, *, force: bool = False) -> FakeBuffer | None:
        if self.buffered_bytes + size > self.memory_limit_bytes and not force:
            return None
        buffer = FakeBuffer(size)
        self.buffered_bytes += size
        self.most_buffered_bytes = max(self.most_buffered_bytes, self.buffered_bytes)
        weakref.finalize(buffer, self._released, size)
        return buffer

    def _released(self, size: int) -> None:
        self.buffered_bytes -= size

    def head_object(self, bucket: str, key: str, *, version_id: str | None = None) -> FakeReply:
        queue = self.queue()
        reply: FakeReply = queue.take(queue.head(bucket, key))
        return reply
