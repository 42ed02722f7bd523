"""Objects that change, and what the server makes of requests."""

from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError
from tests.interop.errors import refused
from tests.interop.wire import Wire

from s3dataset.testing import Fault, LocalS3

from . import DATA, get


def test_replaced_between_two_ranges(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.replace(after=1))
    first, second, third = (get(wire, Range=f"bytes={start}-{start + 9}") for start in (0, 10, 20))
    assert first.headers["etag"] == second.headers["etag"] != third.headers["etag"]
    assert (second.body, third.headers["content-range"]) == (DATA[10:20], f"bytes 20-29/{len(DATA)}")
    assert get(wire, If_Match=second.headers["etag"]).status == 412
    assert server.get("bucket", "k") != DATA


def test_replaced_before_the_answer_with_another_size(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.replace(before=True, size_bytes=3))
    assert len(get(wire).body) == 3


def test_deleted(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.delete())
    assert get(wire).body == DATA
    assert get(wire).status == 404


@pytest.mark.parametrize("ending", ["reset", "close", "stall"])
def test_done_but_the_answer_is_lost(server: LocalS3, ending: Any) -> None:
    server.add_fault(Fault.lost_answer(ending=ending))
    with Wire(server) as wire:
        wire.socket.settimeout(1)
        with pytest.raises((OSError, EOFError)):
            wire.request("PUT", "/bucket/new", b"written")
    assert server.get("bucket", "new") == b"written"


def test_done_but_said_to_have_failed(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.lost_status(500))
    assert wire.request("PUT", "/bucket/new", b"written").status == 500
    assert server.get("bucket", "new") == b"written"


def test_conditions_ignored(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.ignore_conditions(times=2))
    assert get(wire, If_Match='"other"').status == 200
    assert wire.request("PUT", "/bucket/k", b"", If_None_Match="*").status == 200
    assert get(wire, If_Match='"other"').status == 412


def test_checksums_refused(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.refuse_checksums())
    headers = {"x_amz_checksum_crc32": "AAAAAA=="}
    assert wire.request("PUT", "/bucket/k", b"", **headers).status == 501
    assert wire.request("PUT", "/bucket/k", b"", **headers).status == 200


@pytest.fixture
def upload(s3: Any) -> dict[str, Any]:
    """A multipart upload with a part in it: what completes it."""
    where = {"Bucket": "bucket", "Key": "whole"}
    where["UploadId"] = s3.create_multipart_upload(**where)["UploadId"]
    part = {"PartNumber": 1, "ETag": s3.upload_part(**where, PartNumber=1, Body=b"part")["ETag"]}
    return where | {"MultipartUpload": {"Parts": [part]}}


def uploads(server: LocalS3) -> dict[str, int]:
    """Ids of uploads in progress, and how many parts each has."""
    return {upload["upload_id"]: upload["parts"] for upload in server.uploads("bucket")}


class TestAppliedAndLost:
    """Each operation that changes something: it does, and the client does not hear of it."""

    @pytest.fixture(autouse=True)
    def lost(self, server: LocalS3, upload: dict[str, Any]) -> None:
        server.add_fault(Fault.lost_answer())

    def test_completion(self, server: LocalS3, s3: Any, upload: dict[str, Any]) -> None:
        with pytest.raises(ConnectionClosedError):
            s3.complete_multipart_upload(**upload)
        assert server.get("bucket", "whole") == b"part"
        assert upload["UploadId"] not in uploads(server)
        with refused(404, "NoSuchUpload"):
            s3.complete_multipart_upload(**upload)

    def test_abort(self, server: LocalS3, s3: Any, upload: dict[str, Any]) -> None:
        del upload["MultipartUpload"]
        with pytest.raises(ConnectionClosedError):
            s3.abort_multipart_upload(**upload)
        assert upload["UploadId"] not in uploads(server)

    def test_creation(self, server: LocalS3, s3: Any) -> None:
        with pytest.raises(ConnectionClosedError):
            s3.create_multipart_upload(Bucket="bucket", Key="other")
        assert "other" in {upload["key"] for upload in server.uploads("bucket")}

    def test_part(self, server: LocalS3, s3: Any, upload: dict[str, Any]) -> None:
        with pytest.raises(ConnectionClosedError):
            s3.upload_part(Bucket="bucket", Key="whole", UploadId=upload["UploadId"], PartNumber=2, Body=b"")
        assert uploads(server)[upload["UploadId"]] == 2

    def test_copy(self, server: LocalS3, s3: Any) -> None:
        with pytest.raises(ConnectionClosedError):
            s3.copy_object(Bucket="bucket", Key="copy", CopySource={"Bucket": "bucket", "Key": "k"})
        assert server.get("bucket", "copy") == DATA

    def test_deletion(self, server: LocalS3, s3: Any) -> None:
        with pytest.raises(ConnectionClosedError):
            s3.delete_object(Bucket="bucket", Key="k")
        assert server.keys("bucket") == []

    def test_deletions(self, server: LocalS3, s3: Any) -> None:
        with pytest.raises(ConnectionClosedError):
            s3.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": "k"}]})
        assert server.keys("bucket") == []

    def test_conditional_write(self, server: LocalS3, s3: Any) -> None:
        with pytest.raises(ConnectionClosedError):
            s3.put_object(Bucket="bucket", Key="new", Body=b"mine", IfNoneMatch="*")
        with refused(412, "PreconditionFailed"):
            s3.put_object(Bucket="bucket", Key="new", Body=b"mine", IfNoneMatch="*")
        assert server.get("bucket", "new") == b"mine"


def test_deleted_while_it_is_read(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.truncate(at=5000), Fault.delete(before=False))
    assert get(wire).body == DATA[:5000]
    with Wire(server) as wire:
        assert get(wire, Range="bytes=5000-").status == 404
