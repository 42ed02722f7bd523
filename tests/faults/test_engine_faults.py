"""Every operation under every fault: the right bytes or the right exception, and nothing published by halves."""

import random
from collections.abc import Callable, Iterator

import pytest

from s3dataset import errors
from s3dataset._client import Client
from s3dataset._config import S3ClientConfig
from s3dataset._io import S3Reader, S3Writer
from s3dataset.testing import Fault, LocalS3

BUCKET = "bucket"
MIB = 1 << 20
DATA = random.Random(3).randbytes(12 * MIB + 345)
SMALL = DATA[:50_000]
PAGES = [f"page/{i:04}" for i in range(1500)]
ANY_TIMES = None
ETAGS: dict[str, str] = {}


@pytest.fixture(scope="module")
def running() -> Iterator[LocalS3]:
    with LocalS3(BUCKET) as server:
        Client().put_many([(BUCKET, key, b"") for key in PAGES])
        yield server


@pytest.fixture
def server(running: LocalS3) -> Iterator[LocalS3]:
    for key, data in {"small": SMALL, "large": DATA}.items():
        if _etag(key) != ETAGS.get(key):  # the test before replaced or deleted it
            ETAGS[key] = running.put(BUCKET, key, data).strip('"')
    yield running
    running.clear_faults()
    left = running.uploads(BUCKET)
    for upload in left:  # fails this test, and none after it
        Client().abort_upload(BUCKET, upload["key"], upload["upload_id"])
    assert left == []


def _etag(key: str) -> str:
    try:
        return Client().head_object(BUCKET, key).etag.strip('"')
    except errors.ObjectNotFoundError:
        return ""


def client(**settings: object) -> Client:
    settings = {"part_size": 5 * MIB, "first_byte_timeout_s": 0.5, "stall_timeout_s": 0.5} | settings
    return Client(s3client_config=S3ClientConfig(**settings))


# -- Each returns whether what it did is right -----------------------------------------------------------------------


def get_small(client: Client, _: LocalS3) -> bool:
    return [bytes(body) for _, body in client.get_many([(BUCKET, "small")])] == [SMALL]


def get_large(client: Client, _: LocalS3) -> bool:
    return [bytes(body) for _, body in client.get_many([(BUCKET, "large")])] == [DATA]


def get_into(client: Client, _: LocalS3) -> bool:
    whole, part = bytearray(len(DATA)), bytearray(70_000)
    client.read_into([(BUCKET, "large", 0, whole), (BUCKET, "large", 1000, part)])
    return whole == DATA and part == DATA[1000:71_000]


def get_into_one(client: Client, _: LocalS3) -> bool:
    whole = bytearray(len(DATA))
    client.read_into([(BUCKET, "large", 0, whole)])
    return whole == DATA


def read(client: Client, _: LocalS3) -> bool:
    return S3Reader(client, BUCKET, "large").read() == DATA


def head(client: Client, _: LocalS3) -> bool:
    return client.head_object(BUCKET, "small").size == len(SMALL)


def list_pages(client: Client, _: LocalS3) -> bool:
    return [info.key for page in client.list_objects(BUCKET, "page/") for info in page.object_info] == PAGES


def put(client: Client, server: LocalS3) -> bool:
    client.put_many([(BUCKET, "new", DATA[: 2 * MIB])])
    return server.get(BUCKET, "new") == DATA[: 2 * MIB]


def write_parts(client: Client, server: LocalS3) -> bool:
    with S3Writer(client, BUCKET, "new") as writer:
        writer.write(DATA)
    return server.get(BUCKET, "new") == DATA


def delete(client: Client, server: LocalS3) -> bool:
    client.delete_object(BUCKET, "small")
    return "small" not in server.keys(BUCKET)


def delete_many(client: Client, server: LocalS3) -> bool:
    return client.delete_objects(BUCKET, ["small", "never was"]) == [] and "small" not in server.keys(BUCKET)


def copy(client: Client, server: LocalS3) -> bool:
    client.copy_object(BUCKET, "large", BUCKET, "new")
    return server.get(BUCKET, "new") == DATA


Operation = Callable[[Client, LocalS3], bool]
READS: list[Operation] = [get_small, get_large, get_into, read]
WRITES: list[Operation] = [put, write_parts, copy]
OPERATIONS: list[Operation] = [*READS, head, list_pages, *WRITES, delete, delete_many]
NAMES: dict[Operation, tuple[str, ...]] = {
    get_small: ("GetObject",),
    get_large: ("GetObject",),
    get_into: ("GetObject",),
    read: ("GetObject",),
    head: ("HeadObject",),
    list_pages: ("ListObjectsV2",),
    put: ("PutObject",),
    write_parts: ("CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"),
    copy: ("CopyObject",),
    delete: ("DeleteObject",),
    delete_many: ("DeleteObjects",),
}
PASSING = {
    "reset": Fault.reset(scope="request"),
    "reset in the body": Fault.reset(at=1000, times=2),
    "close": Fault.close(scope="request"),
    "close afterwards": Fault.close_after(times=ANY_TIMES),
    "500": Fault.status(500, scope="request"),
    "500 without a body": Fault.status(500, empty=True, scope="request"),
    "503 with Retry-After": Fault.status(503, retry_after_s=0.1, scope="request"),
    "503 of a load balancer": Fault.status(503, body_bytes=3000, close=True, scope="request"),
    "429": Fault.status(429, scope="request"),
    "408": Fault.status(408, code="RequestTimeout", close=True, scope="request"),
    "head in pieces": Fault.split_head(times=ANY_TIMES),
    "lost answer": Fault.lost_answer(scope="request"),
    "lost behind a 500": Fault.lost_status(500, scope="request"),
    "no HTTP": Fault.raw("SSH-2.0-OpenSSH_9.6\r\n\r\n", scope="request"),
}


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.__name__)
def test_faults_that_pass_are_not_seen(server: LocalS3, operation: Operation, fault: str) -> None:
    if operation is write_parts and "lost" in fault:
        # Of an upload whose creation nobody heard of, nobody knows the id.
        server.add_fault(*(_of(PASSING[fault], name) for name in ("UploadPart", "CompleteMultipartUpload")))
    else:
        server.add_fault(PASSING[fault])
    assert operation(client(), server)


def _of(fault: Fault, operation: str) -> Fault:
    return Fault(
        kind=fault.kind, parameters=fault.parameters, times=fault.times, scope=fault.scope, operation=operation
    )


@pytest.mark.parametrize("at", [0, 1, 40_000])
@pytest.mark.parametrize("how", ["truncate", "reset"])
@pytest.mark.parametrize("operation", [*READS, list_pages], ids=lambda o: o.__name__)
def test_bodies_that_break_off_are_continued(server: LocalS3, operation: Operation, how: str, at: int) -> None:
    fault = {"truncate": Fault.truncate, "reset": Fault.reset}[how]
    server.add_fault(fault(at=at, times=3))
    assert operation(client(), server)


@pytest.mark.parametrize("operation", [get_small, get_into, list_pages], ids=lambda o: o.__name__)
def test_bodies_that_stall_are_continued(server: LocalS3, operation: Operation) -> None:
    server.add_fault(Fault.stall(at=40_000))
    assert operation(client(), server)


def test_a_body_that_breaks_off_again_and_again(server: LocalS3) -> None:
    """Each attempt brings some bytes, and none is fetched twice."""
    server.add_fault(Fault.truncate(at=10_000, times=4))
    fetching = client(max_attempts=6)
    assert get_small(fetching, server)
    assert fetching.stats()["bytes_in"] == len(SMALL)


@pytest.mark.parametrize("operation", [get_small, get_large, head, put, write_parts, delete], ids=lambda o: o.__name__)
def test_silence_ends_an_attempt(server: LocalS3, operation: Operation) -> None:
    names = [name for name in NAMES[operation] if not name.startswith("Complete")]
    server.add_fault(*(Fault.stall(at=None, operation=name) for name in names))
    assert operation(client(), server)


def test_an_upload_that_stalls_in_its_body_is_sent_again(server: LocalS3) -> None:
    server.add_fault(Fault.stall(at=300_000, operation="PutObject"))
    assert put(client(), server)


@pytest.mark.parametrize("status", [403, 500, 503])
def test_an_answer_before_the_upload_ends(server: LocalS3, status: int) -> None:
    if status == 403:
        server.add_fault(Fault.early(403, at=1000, operation="PutObject", times=ANY_TIMES))
        with pytest.raises(errors.AccessDeniedError, match="s3://bucket/new"):
            client().put_many([(BUCKET, "new", DATA)])
    else:
        server.add_fault(Fault.early(status, at=1000, operation="PutObject"))
        assert put(client(), server)


@pytest.mark.parametrize("seconds", [1200, -1200])
def test_a_clock_that_is_off(server: LocalS3, seconds: int) -> None:
    server.add_fault(Fault.clock_skew(seconds, times=ANY_TIMES))
    skewed = client()
    assert all(operation(skewed, server) for operation in OPERATIONS if operation is not delete)


# -- Faults that stay ------------------------------------------------------------------------------------------------

LASTING: dict[str, tuple[Fault, type[Exception], dict[str, object]]] = {
    "403": (Fault.status(403, times=ANY_TIMES), errors.AccessDeniedError, {}),
    "500": (Fault.status(500, times=ANY_TIMES), errors.RetriesExhaustedError, {"max_attempts": 2}),
    "SlowDown": (Fault.status(503, times=ANY_TIMES), errors.ThrottledError, {"retry_max_elapsed_s": 0.3}),
    "reset": (Fault.reset(times=ANY_TIMES), errors.TransportError, {"max_attempts": 2}),
    "truncate": (Fault.truncate(at=0, times=ANY_TIMES), errors.TransportError, {"max_attempts": 2}),
    "silence": (Fault.stall(at=None, times=ANY_TIMES), errors.FirstByteTimeoutError, {"max_attempts": 2}),
    "no HTTP": (Fault.raw("\0\1\2\r\n\r\n", times=ANY_TIMES), errors.TransportError, {"max_attempts": 2}),
    "endless head": (Fault.endless_head(times=ANY_TIMES), errors.TransportError, {"max_attempts": 2}),
}


@pytest.mark.parametrize("fault", LASTING)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.__name__)
def test_faults_that_stay_are_told(server: LocalS3, operation: Operation, fault: str) -> None:
    plan, expected, settings = LASTING[fault]
    last = NAMES[operation][-1]
    if fault == "silence" and last.startswith(("Copy", "Complete")):
        pytest.skip("may take minutes")
    if fault == "truncate" and operation in (head, delete, put):
        pytest.skip("has an answer without a body")
    server.add_fault(_of(plan, last))
    if "new" in server.keys(BUCKET):
        server.delete(BUCKET, "new")
    with pytest.raises(expected, match=r"s3://bucket"):
        operation(client(**settings), server)
    if operation not in (copy, write_parts) or fault != "truncate":  # there the work is done, and only the answer lost
        assert "new" not in server.keys(BUCKET)


@pytest.mark.parametrize("step", NAMES[write_parts])
@pytest.mark.parametrize("fault", ["403", "500", "reset"])
def test_a_writer_that_fails_publishes_nothing(server: LocalS3, step: str, fault: str) -> None:
    plan, expected, settings = LASTING[fault]
    server.add_fault(_of(plan, step))
    if "new" in server.keys(BUCKET):
        server.delete(BUCKET, "new")
    with pytest.raises(expected):
        write_parts(client(**settings), server)
    assert "new" not in server.keys(BUCKET)
    assert server.uploads(BUCKET) == []


# -- Objects that change ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("conditions", [True, False], ids=["with conditions", "without conditions"])
@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("operation", [get_large, get_into_one, read], ids=lambda o: o.__name__)
def test_an_object_replaced_between_two_ranges(
    server: LocalS3, operation: Operation, after: int, conditions: bool
) -> None:
    """One version or an error, never a mixture."""
    server.add_fault(Fault.replace(after=after, key="large"))
    if not conditions:
        server.add_fault(Fault.ignore_conditions(times=ANY_TIMES))
    try:
        whole = operation(client(max_connections=1), server)
    except errors.ObjectChangedError as error:
        assert "s3://bucket/large" in str(error)  # noqa: PT017 - either is right
    else:
        assert whole or after == 0


@pytest.mark.parametrize("before", [True, False])
def test_an_object_replaced_while_its_body_broke_off(server: LocalS3, before: bool) -> None:
    server.add_fault(Fault.truncate(at=20_000, times=1), Fault.replace(after=int(before), before=before, key="small"))
    with pytest.raises(errors.ObjectChangedError, match="s3://bucket/small"):
        get_small(client(), server)


def test_an_object_deleted_while_it_is_read(server: LocalS3) -> None:
    server.add_fault(Fault.truncate(at=20_000, times=1), Fault.delete(key="small"))
    with pytest.raises((errors.ObjectNotFoundError, errors.ObjectChangedError), match="s3://bucket/small"):
        get_small(client(), server)


@pytest.mark.parametrize("size", [len(DATA) - 7, len(DATA) + 7, 3])
def test_an_object_that_is_not_as_long_as_was_listed(server: LocalS3, size: int) -> None:
    """Parallel ranges are planned by the listed size; what is there is told, or all of it comes."""
    with client().queue() as queue:
        queue.get([(BUCKET, "large", None, None, size, None)])
        try:
            body = queue.take(0, 30.0)
        except errors.ObjectChangedError:
            return
        assert bytes(body) == DATA  # type: ignore[arg-type]


def test_a_pinned_object(server: LocalS3) -> None:
    etag = client().head_object(BUCKET, "large").etag
    for pin in (etag, etag.strip('"'), f'"{etag.strip(chr(34))}"'):
        assert bytes(client().get_range(BUCKET, "large", 0, len(DATA), etag=pin)) == DATA
    with pytest.raises(errors.ObjectChangedError):
        client().get_range(BUCKET, "large", 0, 5, etag='"other"')


# -- Answers that lie ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delta", [-1, -40_000, 1, 40_000])
def test_a_content_length_that_is_wrong(server: LocalS3, delta: int) -> None:
    server.add_fault(Fault.wrong_length(delta, operation="GetObject"))
    try:
        assert get_small(client(), server) or delta < 0
    except errors.TransportError as error:
        assert "s3://bucket/small" in str(error)  # noqa: PT017 - either is right


@pytest.mark.parametrize("operation", READS, ids=lambda o: o.__name__)
def test_bodies_in_chunks(server: LocalS3, operation: Operation) -> None:
    server.add_fault(Fault.chunked(times=ANY_TIMES))
    assert operation(client(), server)


@pytest.mark.parametrize("operation", [copy, write_parts], ids=lambda o: o.__name__)
def test_errors_behind_status_200(server: LocalS3, operation: Operation) -> None:
    server.add_fault(Fault.error_in_200(code="InternalError", after_s=0.1, operation=NAMES[operation][-1]))
    server.add_fault(Fault.slow_result(0.7, operation=NAMES[operation][-1], after=1, times=ANY_TIMES))
    assert operation(client(), server)


def test_an_outage(server: LocalS3) -> None:
    reader = client()
    assert get_small(reader, server)
    server.add_fault(Fault.outage(1.0))
    assert get_small(reader, server)


def test_a_head_of_503_counts_as_throttling(server: LocalS3) -> None:
    server.add_fault(Fault.status(503, operation="HeadObject", times=3))
    patient = client(max_attempts=2)
    assert head(patient, server)
    assert patient.stats()["throttles"] == 3


def test_attempts_without_a_connection_are_counted() -> None:
    config = S3ClientConfig(max_attempts=3, unsigned=True)
    lonely = Client(endpoint="http://127.0.0.1:9", s3client_config=config)
    with pytest.raises(errors.TransportError, match="after 3 attempts") as caught:
        lonely.get_range(BUCKET, "small", 0, 5)
    assert caught.value.attempts == 3
