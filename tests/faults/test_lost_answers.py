"""Writes that were carried out though their answer was lost: reported as saved, and nobody else's upload aborted."""

import logging
from collections.abc import Iterator

import pytest

from s3dataset import errors
from s3dataset._client import Client
from s3dataset._client import _copy as copying
from s3dataset._config import S3ClientConfig
from s3dataset._io import S3Writer
from s3dataset.testing import Fault, LocalS3

BUCKET = "bucket"
MIB = 1 << 20
DATA = bytes(range(256)) * 4096 * 7
LOST = {"reset": Fault.lost_answer(operation="*"), "500": Fault.lost_status(500, operation="*")}


@pytest.fixture(scope="module")
def running() -> Iterator[LocalS3]:
    with LocalS3(BUCKET) as server:
        yield server


@pytest.fixture
def server(running: LocalS3) -> Iterator[LocalS3]:
    running.reset_stats()
    yield running
    running.clear_faults()
    for key in running.keys(BUCKET):
        running.delete(BUCKET, key)


def client(**settings: object) -> Client:
    return Client(s3client_config=S3ClientConfig(part_size=5 * MIB, **settings))


def lost(how: str, operation: str, times: int = 1) -> Fault:
    if how == "reset":
        return Fault.lost_answer(operation=operation, times=times)
    return Fault.lost_status(500, operation=operation, times=times)


@pytest.mark.parametrize("how", LOST)
@pytest.mark.parametrize("times", [1, 2])
def test_put_many_with_conditions(server: LocalS3, how: str, times: int) -> None:
    etag = server.put(BUCKET, "old", b"1")
    server.add_fault(lost(how, "PutObject", times))
    new, replaced, plain = client().put_many(
        [
            (BUCKET, "new", b"22", [("if-none-match", "*")]),
            (BUCKET, "old", b"333", [("if-match", etag)]),
            (BUCKET, "plain", b"4444", [("content-type", "text/plain")]),
        ]
    )
    assert [server.get(BUCKET, key) for key in ("new", "old", "plain")] == [b"22", b"333", b"4444"]
    assert (new.size, replaced.size, plain.size) == (2, 3, 4)
    assert new.etag.strip('"') == client().head_object(BUCKET, "new").etag.strip('"')


def test_conditions_that_fail_are_told_without_a_question(server: LocalS3) -> None:
    server.put(BUCKET, "there", b"1")
    rows = [(BUCKET, "there", b"2", [("if-none-match", "*")]), (BUCKET, "new", b"3", [("if-none-match", "*")])]
    failed, written = client().put_many(rows, on_error="return")
    assert isinstance(failed, errors.PreconditionFailedError)
    assert not isinstance(written, errors.S3Exception)
    assert server.stats()["operations"] == {"PutObject": 2}


def test_another_writer_who_was_first(server: LocalS3) -> None:
    """The first attempt fails without having been carried out, and somebody else writes before the second."""
    server.add_fault(Fault.status(500, operation="PutObject"))
    server.put(BUCKET, "k", b"theirs")
    with pytest.raises(errors.PreconditionFailedError):
        client().put_many([(BUCKET, "k", b"ours", [("if-none-match", "*")])])
    assert server.get(BUCKET, "k") == b"theirs"


@pytest.mark.parametrize("how", LOST)
@pytest.mark.parametrize("operation", ["PutObject", "CompleteMultipartUpload"])
@pytest.mark.parametrize("conditional", [True, False])
def test_writers(server: LocalS3, how: str, operation: str, conditional: bool) -> None:
    data = DATA[:1000] if operation == "PutObject" else DATA
    server.add_fault(lost(how, operation))
    with S3Writer(client(), BUCKET, "k", if_none_match=conditional) as writer:
        writer.write(data)
    assert server.get(BUCKET, "k") == data
    assert writer.etag.strip('"') == client().head_object(BUCKET, "k").etag.strip('"')
    assert server.uploads(BUCKET) == []


@pytest.mark.parametrize("how", LOST)
def test_an_abort_that_finds_nothing_left(server: LocalS3, how: str, caplog: pytest.LogCaptureFixture) -> None:
    server.add_fault(lost(how, "AbortMultipartUpload"))
    with pytest.raises(ZeroDivisionError), S3Writer(client(), BUCKET, "k") as writer:
        writer.write(DATA)
        raise ZeroDivisionError
    assert server.uploads(BUCKET) == []
    assert "may remain" not in caplog.text


@pytest.mark.parametrize("how", LOST)
def test_copies_by_parts(server: LocalS3, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "_MOST_AT_ONCE_BYTES", MIB)
    monkeypatch.setattr(copying, "_PART_BYTES", 5 * MIB)
    server.put(BUCKET, "k", DATA)
    server.add_fault(
        Fault.status(400, code="InvalidRequest", operation="CopyObject"), lost(how, "CompleteMultipartUpload")
    )
    client().copy_object(BUCKET, "k", BUCKET, "copy")
    assert server.get(BUCKET, "copy") == DATA
    assert server.uploads(BUCKET) == []


@pytest.mark.parametrize("how", LOST)
def test_an_upload_whose_creation_nobody_heard_of(server: LocalS3, how: str, caplog: pytest.LogCaptureFixture) -> None:
    """It remains, without parts, since nothing tells it from another writer's; and that is said."""
    server.add_fault(lost(how, "CreateMultipartUpload"))
    writing = client()
    with caplog.at_level(logging.WARNING, "s3dataset"), S3Writer(writing, BUCKET, "k") as writer:
        writer.write(DATA)
    assert server.get(BUCKET, "k") == DATA
    (left,) = server.uploads(BUCKET)
    assert writing.stats()["uploads_in_doubt"] == 1
    assert "s3://bucket/k" in caplog.text
    assert "without parts may remain" in caplog.text
    with writing.queue() as queue:
        queue.take(queue.abort_upload(BUCKET, "k", left["upload_id"]))


def test_a_creation_that_surely_failed_is_in_no_doubt(server: LocalS3, caplog: pytest.LogCaptureFixture) -> None:
    server.add_fault(Fault.status(503, operation="CreateMultipartUpload"))
    writing = client()
    with S3Writer(writing, BUCKET, "k") as writer:
        writer.write(DATA)
    assert writing.stats()["uploads_in_doubt"] == 0
    assert caplog.text == ""
