"""The request log: a record a request, where it was asked for."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3dataset import monitoring
from s3dataset._client import Client
from s3dataset.errors import InvalidConfigError, ObjectNotFoundError
from s3dataset.testing import Fault, LocalS3

BUCKET = "bucket"


@pytest.fixture
def server() -> Iterator[LocalS3]:
    with LocalS3(BUCKET) as server:
        server.put(BUCKET, "k", b"hello")
        yield server
    monitoring.stop_request_log()


def test_lines_of_json_tell_of_each_attempt(server: LocalS3, tmp_path: Path) -> None:
    server.add_fault(Fault.status(500))
    monitoring.start_request_log(tmp_path / "log.jsonl")
    client = Client()
    client.get_range(BUCKET, "k", 1, 4)
    with pytest.raises(ObjectNotFoundError):
        client.get_range(BUCKET, "missing", 0, 1)
    client.put_many([(BUCKET, "new", b"12345")])
    monitoring.stop_request_log()
    failed, read, missing, written = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert (failed["operation"], failed["key"], failed["status"], failed["attempt"]) == ("GetObject", "k", 500, 1)
    assert (read["status"], read["attempt"], read["bytes_in"]) == (206, 2, 3)
    assert read["duration_s"] >= read["ttfb_s"] > 0
    assert (missing["bucket"], missing["key"], missing["status"]) == (BUCKET, "missing", 404)
    assert missing["request_id"] == server.requests("GetObject")[-1].request_id
    assert (written["operation"], written["bytes_out"]) == ("PutObject", 5)


def test_a_body_that_breaks_off_is_a_record(server: LocalS3, tmp_path: Path) -> None:
    server.add_fault(Fault.truncate(at=2))
    monitoring.start_request_log(tmp_path / "log.jsonl")
    Client().get_range(BUCKET, "k", 0, 5)
    monitoring.stop_request_log()
    broken, rest = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert (broken["attempt"], broken["status"], broken["bytes_in"]) == (1, 206, 2)
    assert "the body ended 3 bytes early" in broken["error"]
    assert (rest["attempt"], rest["range"], rest["bytes_in"], rest["error"]) == (2, "bytes=2-4", 3, "")


def test_the_logger_gets_records(server: LocalS3, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, monitoring.REQUEST_LOGGER)
    monitoring.start_request_log()
    Client().head_object(BUCKET, "k")
    monitoring.stop_request_log()
    (record,) = (r for r in caplog.records if r.name == monitoring.REQUEST_LOGGER)
    assert record.s3["operation"] == "HeadObject"
    assert "operation=HeadObject" in record.getMessage()
    assert "key=k" in record.getMessage()


def test_it_is_off_unless_asked_for(server: LocalS3, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)  # the root's level does not count: it would flood every debug log
    Client().head_object(BUCKET, "k")
    monitoring.stop_request_log()
    assert not [r for r in caplog.records if r.name == monitoring.REQUEST_LOGGER]


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match="nowhere"):
        monitoring.start_request_log(tmp_path / "nowhere" / "log.jsonl")
