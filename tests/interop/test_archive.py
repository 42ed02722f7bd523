"""Archived objects of the local S3, and their restores."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from s3dataset.testing import LocalS3

from .conftest import ONE_ATTEMPT
from .errors import refused


@pytest.fixture(scope="module")
def archive() -> Iterator[LocalS3]:
    """A server where a restore takes an hour; its clock can be turned."""
    with LocalS3("bucket", activate=False) as server:
        server.configure(restore_s=3600, max_skew_s=10**9)
        yield server


@pytest.fixture
def s3(archive: LocalS3) -> Iterator[Any]:
    archive.configure(clock_offset_s=0)
    archive.put("bucket", "k", b"cold", x_amz_storage_class="GLACIER")
    client = archive.boto3_client(config=ONE_ATTEMPT)
    yield client
    client.close()


def restore(s3: Any, key: str = "k", **request: Any) -> int:
    answer = s3.restore_object(Bucket="bucket", Key=key, RestoreRequest=request)
    return int(answer["ResponseMetadata"]["HTTPStatusCode"])


def listed(s3: Any) -> Any:
    (entry,) = s3.list_objects_v2(Bucket="bucket", OptionalObjectAttributes=["RestoreStatus"], Prefix="k")["Contents"]
    return entry.get("RestoreStatus")


def test_what_is_archived_is_seen_but_not_read(s3: Any) -> None:
    head = s3.head_object(Bucket="bucket", Key="k")
    assert (head["StorageClass"], head["ContentLength"], "Restore" in head) == ("GLACIER", 4, False)
    with refused(403, "InvalidObjectState") as refusal:
        s3.get_object(Bucket="bucket", Key="k")
    assert refusal.details["StorageClass"] == "GLACIER"
    with refused(403, "InvalidObjectState"):
        s3.copy_object(Bucket="bucket", Key="copy", CopySource={"Bucket": "bucket", "Key": "k"})
    assert listed(s3) is None


def test_a_restore_takes_its_time_and_ends(s3: Any, archive: LocalS3) -> None:
    assert restore(s3, Days=2) == 202
    assert s3.head_object(Bucket="bucket", Key="k")["Restore"] == 'ongoing-request="true"'
    assert listed(s3) == {"IsRestoreInProgress": True}
    with refused(409, "RestoreAlreadyInProgress"):
        restore(s3, Days=2)
    with refused(403, "InvalidObjectState"):
        s3.get_object(Bucket="bucket", Key="k")
    archive.configure(clock_offset_s=3601)
    head = s3.head_object(Bucket="bucket", Key="k")
    assert head["Restore"].startswith('ongoing-request="false", expiry-date="')
    assert head["StorageClass"] == "GLACIER"
    assert s3.get_object(Bucket="bucket", Key="k")["Body"].read() == b"cold"
    assert s3.copy_object(Bucket="bucket", Key="copy", CopySource={"Bucket": "bucket", "Key": "k"})
    assert s3.get_object(Bucket="bucket", Key="copy")["Body"].read() == b"cold"
    status = listed(s3)
    assert not status["IsRestoreInProgress"]
    assert timedelta(days=2) < status["RestoreExpiryDate"] - datetime.now(UTC) < timedelta(days=4)
    # Once more, for longer.
    assert restore(s3, Days=7) == 200
    archive.configure(clock_offset_s=5 * 86_400)
    assert s3.get_object(Bucket="bucket", Key="k")["Body"].read() == b"cold"
    archive.configure(clock_offset_s=9 * 86_400)
    with refused(403, "InvalidObjectState"):
        s3.get_object(Bucket="bucket", Key="k")


def test_what_is_not_archived_is_not_restored(s3: Any, archive: LocalS3) -> None:
    archive.put("bucket", "warm", b"x")
    with refused(403, "InvalidObjectState"):
        restore(s3, "warm", Days=1)
    with refused(404, "NoSuchKey"):
        restore(s3, "missing", Days=1)
    with refused(400, "MalformedXML"):
        restore(s3, Days=0)


def test_tiers_of_intelligent_tiering(s3: Any, archive: LocalS3) -> None:
    headers = {"x_amz_storage_class": "INTELLIGENT_TIERING", "x_amz_archive_status": "ARCHIVE_ACCESS"}
    archive.put("bucket", "k", b"cold", **headers)
    head = s3.head_object(Bucket="bucket", Key="k")
    assert (head["StorageClass"], head["ArchiveStatus"]) == ("INTELLIGENT_TIERING", "ARCHIVE_ACCESS")
    with refused(403, "InvalidObjectState") as refusal:
        s3.get_object(Bucket="bucket", Key="k")
    assert refusal.details["AccessTier"] == "ARCHIVE_ACCESS"
    assert restore(s3) == 202
    archive.configure(clock_offset_s=3601)
    assert s3.get_object(Bucket="bucket", Key="k")["Body"].read() == b"cold"
    assert "ArchiveStatus" not in s3.head_object(Bucket="bucket", Key="k")
