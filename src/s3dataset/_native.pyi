"""The data plane: submission and completion queues over the Rust engine, and the memory that bodies land in.

Only `s3dataset._client` and `s3dataset.testing` import this module. Every class is frozen, safe to share between
threads, and belongs to the process that made it: after a fork the child gets `ForeignProcessError` from all but a
`Body` or `Buffer`, whose bytes stay readable.

Waits release the GIL, look at signals every 100 ms and raise what a signal handler raises (KeyboardInterrupt).
"""

import builtins
from collections.abc import Sequence
from typing import Any, Final, final

from typing_extensions import Buffer as ReadableBuffer

__version__: Final[str]

class ForeignProcessError(RuntimeError):
    """The object was made before a fork, in the parent process."""

# -- Process ------------------------------------------------------------------------------------------------------------

def start(*, lanes: int, memory_limit_bytes: int) -> None:
    """Sets how many engine threads ("lanes") and which byte budget this process uses. Idempotent; the first call counts."""

def after_fork_in_child() -> None:
    """Forgets the parent's engine: closes inherited sockets raw, touches nothing else. Registered with os.register_at_fork."""

def set_request_log(enabled: bool) -> None:
    """Turns the request log on or off; it is bounded (65,536 records; the oldest go first)."""

def drain_request_log(timeout_s: float) -> list[dict[str, Any]]:
    """Waits for request records, up to the time given: operation, bucket, key, range, attempt, status, request_id, ttfb_s,
    duration_s, bytes_in, bytes_out, error."""

def process_stats() -> dict[str, int]:
    """lanes, memory_limit_bytes, memory_in_use_bytes (budget), memory_pooled_bytes (idle buffers)."""

def received_by_thread() -> tuple[float, int]:
    """Seconds that the calling thread waited for results so far, and the bytes of what it took: bodies, and what went into
    callers' memory."""

# -- Where a bucket is ------------------------------------------------------------------------------------------------------

@final
class Route:
    """Where a bucket is reached and for which region requests are signed.

    `host` may contain "{region}": then a redirect to another region changes the host too; otherwise only the signing region.
    """

    def __new__(
        cls,
        bucket: str,
        *,
        scheme: str,  # "http" | "https"
        host: str,  # what goes into the Host header, without port; the bucket is in it for virtual-host style
        port: int | None = None,  # None: the scheme's
        path_prefix: str = "",  # "/bucket" for path style, behind the endpoint's own path if it has one
        region: str,
        service: str = "s3",
        # Given: a directory bucket, whose requests are signed with the keys of a session that the engine makes and renews; these
        # headers go with CreateSession. None: with those of the client.
        session_headers: Sequence[tuple[str, str]] | None = None,
    ) -> Route: ...
    @property
    def bucket(self) -> str: ...
    @property
    def region(self) -> str:
        """The region in use: the one given, or the one that the service named in a redirect."""

# -- Memory -----------------------------------------------------------------------------------------------------------------

@final
class Body:
    """Bytes of an object (all, or a range): a writable buffer. Its memory goes back to the pool when its last view dies."""

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def size(self) -> int:
        """The same as `object_size`: a reader's `size` too is the object's."""
    @property
    def uri(self) -> str:
        """s3://bucket/key."""
    @property
    def start(self) -> int:
        """Offset of the first byte within the object."""
    @property
    def object_size(self) -> int:
        """Size of the whole object, bytes."""
    @property
    def etag(self) -> str:
        """With its quotes, as the service sends it; "" where it sent none."""
    @property
    def last_modified(self) -> float | None:
        """Epoch seconds."""
    def headers(self) -> list[tuple[str, str]]: ...

@final
class Buffer:
    """Pooled memory to fill and send: a writable buffer that counts in the byte budget until it dies."""

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def copy_from(self, offset: int, data: ReadableBuffer, /) -> int:
        """Copies `data` to `offset`, without the GIL when it is large; -> bytes copied, limited by the space left."""

# -- Results ------------------------------------------------------------------------------------------------------------------

@final
class Reply:
    """An answer without a body for the caller: `get_into`, `head`, `put`, `upload_part`, `delete`, `abort_upload`, `create_upload`,
    `complete_upload`, `copy`."""

    @property
    def status(self) -> int: ...
    @property
    def etag(self) -> str: ...
    @property
    def object_size(self) -> int:
        """head, get_into: size of the whole object; otherwise 0."""
    @property
    def nbytes(self) -> int:
        """get_into: bytes that landed; put, upload_part: bytes sent; otherwise 0."""
    @property
    def last_modified(self) -> float | None: ...
    @property
    def upload_id(self) -> str:
        """create_upload."""
    @property
    def in_doubt(self) -> int:
        """create_upload: how many earlier attempts, whose answer was lost, may have made an upload too."""
    @property
    def checksum(self) -> str:
        """put, upload_part: the checksum sent, base64; get_into: of what came, where it was asked for; complete_upload: the one the
        service answered; "" when none."""
    @property
    def key_errors(self) -> list[tuple[str, str, str]]:
        """delete_many: (key, code, message) of what was not deleted."""
    @property
    def uploads(self) -> list[tuple[str, str, int]]:
        """list_uploads: (key, upload id, epoch seconds at which it was begun, 0 where that is not told)."""
    @property
    def next_uploads(self) -> tuple[str, str] | None:
        """list_uploads: the markers (key, upload id) of the next page, None when this is the last."""
    def headers(self) -> list[tuple[str, str]]: ...

@final
class ListPage:
    """One page of a listing, in columns; nothing is made a Python object until asked for."""

    def __len__(self) -> int: ...
    @property
    def is_truncated(self) -> bool: ...
    @property
    def next_token(self) -> str | None: ...
    @property
    def common_prefixes(self) -> list[str]: ...
    @property
    def key_blob(self) -> bytes:
        """UTF-8 of all keys, one behind the other."""
    @property
    def key_ends(self) -> bytes:
        """uint32, native order: the end of key i in `key_blob`."""
    @property
    def sizes(self) -> bytes:
        """uint64, native order."""
    @property
    def mtimes(self) -> bytes:
        """int64, native order: epoch seconds."""
    @property
    def etag_blob(self) -> bytes:
        """ETags without quotes, one behind the other."""
    @property
    def etag_ends(self) -> bytes:
        """uint32, native order."""
    @property
    def storage_class_index(self) -> bytes:
        """uint8 index into `storage_class_names`, 255 for none."""
    @property
    def storage_class_names(self) -> list[str]: ...
    @property
    def restore_status(self) -> list[tuple[int, bool, float | None]]:
        """(row, restore in progress, expiry in epoch seconds) of the rows that have one."""
    def key(self, row: int) -> str: ...
    def first_key(self) -> str: ...
    def last_key(self) -> str: ...

@final
class Failure:
    """Why a request ended without a result. `s3dataset._client` turns it into the exception tree."""

    kind: str
    """One of: cancelled, service (an S3 error that has no kind of its own), not_found, bucket_not_found, access_denied, credentials
    (rejected, missing or expired beyond refresh), precondition_failed, conflict (409), changed (ETag pin broken), throttled,
    transport (connect, DNS, reset, broken HTTP), connect_timeout, first_byte_timeout, stall_timeout, tls, checksum, invalid
    (the request can never work; message says why), redirect (a region or endpoint that could not be followed), internal."""
    operation: str
    bucket: str
    key: str
    status: int  # 0: no answer
    code: str  # S3's, "" when none
    message: str
    request_id: str
    host_id: str
    attempts: int
    elapsed_s: float
    causes: list[str]  # what failed in each earlier attempt, oldest first, at most 10
    retries_exhausted: bool
    region: str  # redirect: where the bucket is, "" when not known

Result = Body | Reply | ListPage | Failure

# -- Requests -----------------------------------------------------------------------------------------------------------------

Get = tuple[Route, str, int | None, int | None, int | None, str | None]
"""(route, key, start, end, size, etag).

start, end: bytes [start, end); both None: the whole object; start < 0 and end None: the last -start bytes; end past the object: up to its end.
size: of the whole object where known (from a listing): lets the engine split without asking, and admit by size.
etag: pins the object (If-Match, and compared); None: ranges of one object are pinned to one another.
"""

Buffers = list[memoryview] | tuple[memoryview, ...]
"""Memory in several pieces, which count as one behind the other."""

GetInto = tuple[Route, str, int, str | None, ReadableBuffer | Buffers]
"""(route, key, start, etag, writable C-contiguous buffer, or pieces of one): exactly so many bytes from start; a shorter object is a Failure
of kind `invalid` with status 416 or 206."""

Put = tuple[Route, str, ReadableBuffer | Buffers, Sequence[tuple[str, str]]]
"""(route, key, data, further headers in lower case). `data` is held until the request is done; it must not change meanwhile."""

@final
class Queue:
    """Requests go in, in batches; results come out, in batches, in the order of completion or by index.

    Requests of one queue have the indices 0, 1, 2 ... in the order of submission; a submitting method returns the index of its first.
    Requests start in that order. The lowest unfinished one is admitted even when the budget is used up, so taking results in order never
    waits on oneself. A result leaves the budget when it is taken. Dropping or closing a queue cancels what is unfinished and returns
    when the engine has given up the callers' memory.
    """

    def get(
        self,
        requests: Sequence[Get],
        /,
        *,
        limit: int | None = None,
        version_id: str | None = None,
        verify: bool = False,
    ) -> int:
        """Fetches objects or ranges -> Body. With `limit`, at most so many bytes of each are fetched, from its start on
        (`Body.object_size` tells the rest). Objects and ranges larger than two parts are fetched in parallel ranges into one memory.
        `version_id` and `verify` (of whole objects that come in parallel ranges too) hold for all of the requests."""
    def get_into(
        self, requests: Sequence[GetInto], /, *, version_id: str | None = None, checksum: str | None = None
    ) -> int:
        """Fetches ranges into the callers' memory -> Reply; large ones in parallel ranges. With `checksum`, CRC64NVME, CRC32C or
        CRC32, `Reply.checksum` tells that of the bytes that came."""
    def put(self, requests: Sequence[Put], /, *, checksum: str | None = "CRC64NVME") -> int:
        """PutObject -> Reply."""
    def upload_part(
        self,
        route: Route,
        key: str,
        upload_id: str,
        part_number: int,
        data: ReadableBuffer | Buffers,
        headers: Sequence[tuple[str, str]] = (),
        /,
        *,
        checksum: str | None = "CRC64NVME",
    ) -> int: ...
    def create_upload(
        self, route: Route, key: str, headers: Sequence[tuple[str, str]] = (), /, *, checksum: str | None = "CRC64NVME"
    ) -> int: ...
    def complete_upload(
        self,
        route: Route,
        key: str,
        upload_id: str,
        parts: Sequence[tuple[int, str, str | None]],  # (number, ETag, checksum in base64)
        headers: Sequence[tuple[str, str]] = (),
        /,
        *,
        checksum: str | None = "CRC64NVME",
        object_size: int | None = None,
    ) -> int: ...
    def abort_upload(self, route: Route, key: str, upload_id: str, /) -> int: ...
    def head(
        self, route: Route, key: str, headers: Sequence[tuple[str, str]] = (), /, *, version_id: str | None = None
    ) -> int:
        """HeadObject; an empty key asks for the bucket. A failure's code is found out by a 1-byte GET."""
    def list(
        self,
        route: Route,
        prefix: str,
        /,
        *,
        delimiter: str = "",
        start_after: str = "",
        token: str | None = None,
        max_keys: int = 1000,
    ) -> int:
        """One page of ListObjectsV2 -> ListPage."""
    def list_uploads(self, route: Route, prefix: str, /, *, key_marker: str = "", upload_id_marker: str = "") -> int:
        """One page of ListMultipartUploads -> Reply with `uploads` and `next_uploads`."""
    def delete(
        self, route: Route, key: str, headers: Sequence[tuple[str, str]] = (), /, *, version_id: str | None = None
    ) -> int: ...
    def delete_many(self, route: Route, keys: Sequence[str], /) -> int:
        """DeleteObjects, at most 1,000 keys."""
    def copy(self, route: Route, key: str, source: str, headers: Sequence[tuple[str, str]] = (), /) -> int:
        """CopyObject; `source` is "bucket/key", not encoded."""
    def copy_part(
        self,
        route: Route,
        key: str,
        upload_id: str,
        part_number: int,
        source: str,
        start: int,
        end: int,
        headers: Sequence[tuple[str, str]] = (),
        /,
    ) -> int: ...
    def next(
        self, min_items: int = 1, max_items: int = 4096, timeout_s: float | None = None, /
    ) -> builtins.list[tuple[int, Result]]:
        """Waits until min_items results are there, nothing is unfinished, or the time is over; takes up to max_items, in the order of
        completion. [] when nothing is left or the time is over."""
    def take(self, first: int, count: int, timeout_s: float | None = None, /) -> builtins.list[Result] | None:
        """Waits for the results first ... first+count-1 and takes them, in order; None when the time is over. An index that was
        taken already is an IndexError."""
    def ready(self, index: int, /) -> bool: ...
    @property
    def unfinished(self) -> int:
        """Requests submitted whose results are not there yet."""
    @property
    def untaken(self) -> int:
        """Results that wait to be taken."""
    def cancel(self, first: int, count: int, /) -> None:
        """Asks for the end of these; each still gets a result (a Failure `cancelled`, or what it had become)."""
    def close(self) -> None:
        """Cancels everything, waits until callers' memory is given up, drops untaken results. Idempotent."""

@final
class Client:
    """Settings, credentials and connections for one endpoint or region; every request goes through a queue of one."""

    def __new__(
        cls,
        *,
        unsigned: bool = False,
        user_agent: str,
        part_size: int = 8388608,
        max_attempts: int = 10,
        max_connections: int = 256,
        large_in_flight: int = 32,  # ranges of a mebibyte and more at once, at most
        connect_timeout_s: float = 3.0,
        first_byte_timeout_s: float
        | None = None,  # None: 10 s, and 2 s (doubling) for GETs of known size under 512 KiB
        stall_timeout_s: float = 15.0,  # under 64 KiB/s for that long
        retry_max_elapsed_s: float = 600.0,
        verify_reads: bool = True,  # compare whole objects that come with one answer with the checksum stored
        save_max_elapsed_s: float | None = None,  # for what makes an object; None: the same
        memory_limit_bytes: int | None = None,  # a budget of its own
        ca_bundle: bytes | None = None,  # PEM; None: the system's roots
        headers: Sequence[tuple[str, str]] = (),  # with every request, lower case (x-amz-request-payer ...)
        proxy: tuple[str, int, str | None, str] | None = None,  # host, port, Proxy-Authorization, NO_PROXY
        object_headers: Sequence[
            tuple[str, str]
        ] = (),  # with what reads or writes an object: the key that it is encrypted with
    ) -> Client: ...
    def queue(self) -> Queue: ...
    def fetch(
        self,
        route: Route,
        key: str,
        start: int | None = None,
        end: int | None = None,
        size: int | None = None,
        etag: str | None = None,
        limit: int | None = None,
        version_id: str | None = None,
        verify: bool = False,
        /,
    ) -> Body | Failure:
        """One `Queue.get` and its result in one call, which costs 10 us less; Ctrl-C cancels it."""
    def buffer(self, size: int, /, *, force: bool = False) -> Buffer | None:
        """Pooled memory of that size, or None when the budget has no room and `force` is False."""
    def set_credentials(self, access_key: str, secret_key: str, session_token: str | None, /) -> None: ...
    def keep_credentials(self, reason: str, /) -> None:
        """Nobody will bring others: requests whose credentials expire fail at once, with `reason`."""
    def wait_credentials_wanted(self, timeout_s: float, /) -> str | None:
        """Blocks until a request met expired credentials, which waits for `set_credentials` (30 s at most) -> the access key
        that was refused; None when the time is over or the client is closed."""
    def refuse_credentials(self, reason: str, /) -> None:
        """No new ones are to be had: the waiting requests fail with `reason`."""
    def stats(self) -> dict[str, Any]:
        """requests, bytes_in, bytes_out, retries, retries_by_cause {cause: n}, throttles, hedges, reads_verified, reads_unverified
        (whole objects that came with one answer; unverified: no checksum of the full object is stored), connections_opened,
        connections_reused, connections_open, in_flight, network_wait_s (summed over requests), ttfb_s / latency_s: histograms
        as lists of (upper bound in s, count), by_operation {name: n}."""
    def close(self) -> None:
        """Closes idle connections and ends the wait for wanted credentials. Queues still open keep working."""

# -- For tests, and the small things that must agree with the engine -----------------------------------------------------------

def combine_checksums(algorithm: str, parts: Sequence[tuple[str, int]], /) -> str:
    """Base64 checksum of the concatenation, from (base64 checksum, length in bytes) of each piece."""

def checksum(algorithm: str, data: ReadableBuffer | Buffers, /) -> str:
    """CRC64NVME, CRC32C or CRC32 of data, base64 of the big-endian value."""

def prefer_huge_pages(data: ReadableBuffer, /) -> None:
    """Asks the kernel for huge pages for writable memory that is about to be filled; elsewhere than on Linux, nothing."""

def sign(
    *,
    access_key: str,
    secret_key: str,
    session_token: str | None,
    of_session: bool = False,
    region: str,
    service: str,
    epoch_s: int,
    method: str,
    host: str,
    key: str,
    query: Sequence[tuple[str, str]],
    headers: Sequence[tuple[str, str]],
) -> dict[str, str]:
    """The headers that the engine adds to a request for "/" + key; compared with botocore's signer in tests."""

def run_local_s3(config_json: str, /) -> None:
    """Serves until its standard input ends or SIGTERM comes; prints one JSON line when ready."""
