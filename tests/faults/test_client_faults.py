"""What a caller sees when the service or the network fails: the class, the text, and that nothing hangs."""

from collections.abc import Iterator

import pytest

from s3dataset import errors
from s3dataset._client import Client
from s3dataset._client import _copy as copying
from s3dataset._config import S3ClientConfig
from s3dataset.testing import Fault, LocalS3

BUCKET = "bucket"
MIB = 1 << 20


@pytest.fixture(scope="module")
def running() -> Iterator[LocalS3]:
    with LocalS3(BUCKET) as server:
        server.put(BUCKET, "k", b"hello")
        yield server


@pytest.fixture
def server(running: LocalS3) -> Iterator[LocalS3]:
    yield running
    running.clear_faults()


def client(**settings: object) -> Client:
    return Client(s3client_config=S3ClientConfig(**settings))


def test_passing_faults_are_retried_unseen(server: LocalS3) -> None:
    server.add_fault(Fault.status(500), Fault.reset(after=1), Fault.status(503, after=2))
    assert bytes(client().get_range(BUCKET, "k", 0, 5)) == b"hello"


def test_errors_that_stay(server: LocalS3) -> None:
    server.add_fault(Fault.status(500, times=None))
    with pytest.raises(errors.RetriesExhaustedError, match=r"s3://bucket/k .*after 2 attempts.*request id") as caught:
        client(max_attempts=2).get_range(BUCKET, "k", 0, 5)
    assert (caught.value.status, caught.value.attempts) == (500, 2)


def test_resets_that_stay(server: LocalS3) -> None:
    server.add_fault(Fault.reset(times=None))
    with pytest.raises(ConnectionError, match="s3://bucket/k") as caught:
        client(max_attempts=2).get_range(BUCKET, "k", 0, 5)
    assert isinstance(caught.value, errors.TransportError)


def test_throttling_that_stays(server: LocalS3) -> None:
    server.add_fault(Fault.status(503, code="SlowDown", times=None))
    with pytest.raises(errors.ThrottledError, match="s3://bucket/k"):
        client(retry_max_elapsed_s=1.0).get_range(BUCKET, "k", 0, 5)


def test_access_denied_is_not_retried(server: LocalS3) -> None:
    server.add_fault(Fault.status(403, code="AccessDenied", times=None))
    before = server.stats()["requests"]
    with pytest.raises(PermissionError, match="s3://bucket/k"):
        client().get_range(BUCKET, "k", 0, 5)
    assert server.stats()["requests"] == before + 1


def test_no_answer(server: LocalS3) -> None:
    server.add_fault(Fault.stall(at=None, times=None))
    with pytest.raises(errors.FirstByteTimeoutError) as caught:
        client(max_attempts=1, first_byte_timeout_s=0.3).get_range(BUCKET, "k", 0, 5)
    assert isinstance(caught.value, TimeoutError)


def test_nobody_listens() -> None:
    lonely = Client(endpoint="http://127.0.0.1:9", s3client_config=S3ClientConfig(max_attempts=2, unsigned=True))
    with pytest.raises(errors.TransportError, match="endpoint"):
        lonely.head_object(BUCKET, "k")


def test_no_such_host() -> None:
    config = S3ClientConfig(max_attempts=1, unsigned=True)
    with pytest.raises(errors.TransportError, match=r"s3://bucket/k"):
        Client(endpoint="http://no-such-host.invalid", s3client_config=config).head_object(BUCKET, "k")


def test_another_region_is_followed_and_remembered(server: LocalS3) -> None:
    server.add_fault(Fault.wrong_region("eu-west-3", times=1))
    follower = Client("us-west-2")
    assert follower.head_object(BUCKET, "k").size == 5
    assert follower.head_object(BUCKET, "k").size == 5
    scopes = [r.status for r in server.requests("HeadObject")][-3:]
    assert scopes == [400, 200, 200]


def test_expired_keys_are_renewed_unseen() -> None:
    """All requests that meet expired keys wait for one renewal, which costs them no attempt."""
    asked = []

    def keys() -> tuple[str, str]:
        asked.append(1)
        return f"KEY{len(asked)}", "secret"

    server = LocalS3(BUCKET, access_key="KEY1", secret_key="secret")
    server._config["credentials"].append({"access_key": "KEY2", "secret_key": "secret", "session_token": None})
    with server:
        server.put(BUCKET, "k", b"hello")
        renewing = client(credentials=keys, max_attempts=1)
        assert renewing.head_object(BUCKET, "k").size == 5
        server.add_fault(Fault.status(400, code="ExpiredToken", times=8))
        server.add_fault(Fault.delay(0.5, times=8))  # all eight were asked with the first key before one is refused
        bodies = [bytes(body) for _, body in renewing.get_many([(BUCKET, "k")] * 50)]
        assert bodies == [b"hello"] * 50
        assert len(asked) == 2
        renewing.close()


def test_expired_keys_without_others(server: LocalS3) -> None:
    renewing = client(credentials=lambda: (server.access_key, server.secret_key))
    server.add_fault(Fault.status(400, code="ExpiredToken", times=None))
    with pytest.raises(errors.CredentialsError, match="log in anew"):
        renewing.head_object(BUCKET, "k")
    renewing.close()


def test_one_key_that_cannot_be_deleted(server: LocalS3) -> None:
    for key in ("a", "b"):
        server.put(BUCKET, f"del/{key}", b"")
    assert client().delete_objects(BUCKET, ["del/a", "del/b"]) == []


def test_a_copy_too_large_for_one_request_is_made_of_parts(server: LocalS3, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(256)) * 4096 * 12
    server.put(BUCKET, "large", data)
    monkeypatch.setattr(copying, "_MOST_AT_ONCE_BYTES", MIB)
    monkeypatch.setattr(copying, "_PART_BYTES", 5 * MIB)
    server.add_fault(Fault.status(400, code="InvalidRequest", operation="CopyObject"))
    client().copy_object(BUCKET, "large", BUCKET, "large-copy")
    assert server.get(BUCKET, "large-copy") == data
    assert len([r for r in server.requests("UploadPartCopy") if r.key == "large-copy"]) == 3


def test_a_copy_by_parts_that_fails_leaves_no_upload(server: LocalS3, monkeypatch: pytest.MonkeyPatch) -> None:
    server.put(BUCKET, "large", bytes(12 * MIB))
    monkeypatch.setattr(copying, "_MOST_AT_ONCE_BYTES", MIB)
    monkeypatch.setattr(copying, "_PART_BYTES", 5 * MIB)
    server.add_fault(
        Fault.status(400, code="InvalidRequest", operation="CopyObject"),
        Fault.status(403, operation="UploadPartCopy", times=None),
    )
    with pytest.raises(errors.AccessDeniedError):
        client().copy_object(BUCKET, "large", BUCKET, "failed-copy")
    assert server.uploads(BUCKET) == []
    assert "failed-copy" not in server.keys(BUCKET)
