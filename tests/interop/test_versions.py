"""Versions of objects, as boto3 sees them."""

from pathlib import Path
from typing import Any

import pytest

from s3dataset.testing import LocalS3, ServerError

from .errors import refused


@pytest.fixture
def versioned(server: LocalS3, bucket: str) -> str:
    server.create_bucket(bucket, versioned=True)
    return bucket


def put(s3: Any, bucket: str, key: str, body: bytes) -> str:
    return str(s3.put_object(Bucket=bucket, Key=key, Body=body)["VersionId"])


def read(s3: Any, bucket: str, key: str, version: str | None = None) -> bytes:
    options = {"VersionId": version} if version else {}
    answer = s3.get_object(Bucket=bucket, Key=key, **options)
    assert version is None or answer["VersionId"] == version
    return bytes(answer["Body"].read())


def test_a_bucket_has_none_until_told(s3: Any, bucket: str) -> None:
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    assert "VersionId" not in s3.put_object(Bucket=bucket, Key="k", Body=b"before")
    for status in ("Enabled", "Suspended", "Enabled"):
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})
        assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == status
    assert s3.get_object(Bucket=bucket, Key="k")["VersionId"] == "null"
    put(s3, bucket, "k", b"after")
    assert (read(s3, bucket, "k", "null"), read(s3, bucket, "k")) == (b"before", b"after")


def test_each_write_is_a_version(s3: Any, versioned: str) -> None:
    ids = [put(s3, versioned, "k", body) for body in (b"1", b"2", b"3")]
    assert len(set(ids)) == 3
    assert [read(s3, versioned, "k", version) for version in ids] == [b"1", b"2", b"3"]
    assert s3.head_object(Bucket=versioned, Key="k")["VersionId"] == ids[2]
    part = s3.get_object(Bucket=versioned, Key="k", VersionId=ids[1], Range="bytes=0-0")
    assert (part["Body"].read(), part["VersionId"]) == (b"2", ids[1])
    with refused(404, "NoSuchVersion"):
        read(s3, versioned, "k", "no-such-version")
    with refused(404, "NoSuchVersion"):
        read(s3, versioned, "other", "null")


def test_a_deletion_is_a_marker(s3: Any, versioned: str) -> None:
    version = put(s3, versioned, "k", b"x")
    deleted = s3.delete_object(Bucket=versioned, Key="k")
    assert deleted["DeleteMarker"]
    marker = deleted["VersionId"]
    with refused(404, "NoSuchKey") as refusal:
        read(s3, versioned, "k")
    assert (refusal.headers["x-amz-delete-marker"], refusal.headers["x-amz-version-id"]) == ("true", marker)
    with refused(405, "MethodNotAllowed") as refusal:
        read(s3, versioned, "k", marker)
    assert refusal.headers["x-amz-delete-marker"] == "true"
    assert s3.list_objects_v2(Bucket=versioned)["KeyCount"] == 0
    assert read(s3, versioned, "k", version) == b"x"
    # Without the marker the object is there again.
    assert s3.delete_object(Bucket=versioned, Key="k", VersionId=marker)["DeleteMarker"]
    assert read(s3, versioned, "k") == b"x"


def test_versions_are_removed_for_good(s3: Any, versioned: str) -> None:
    ids = [put(s3, versioned, "k", body) for body in (b"1", b"2", b"3")]
    assert s3.delete_object(Bucket=versioned, Key="k", VersionId=ids[2])["VersionId"] == ids[2]
    assert read(s3, versioned, "k") == b"2"
    entries = [{"Key": "k", "VersionId": version} for version in (*ids[:2], "never-there")]
    answer = s3.delete_objects(Bucket=versioned, Delete={"Objects": entries})
    assert [deleted["VersionId"] for deleted in answer["Deleted"]] == [*ids[:2], "never-there"]
    with refused(404, "NoSuchKey"):
        read(s3, versioned, "k")
    s3.delete_bucket(Bucket=versioned)


def test_many_deletions_make_markers(s3: Any, versioned: str) -> None:
    put(s3, versioned, "k", b"x")
    (deleted,) = s3.delete_objects(Bucket=versioned, Delete={"Objects": [{"Key": "k"}]})["Deleted"]
    assert deleted["DeleteMarker"]
    with refused(405, "MethodNotAllowed"):
        read(s3, versioned, "k", deleted["DeleteMarkerVersionId"])
    with refused(409, "BucketNotEmpty"):
        s3.delete_bucket(Bucket=versioned)


def test_suspended_versions(s3: Any, versioned: str) -> None:
    first = put(s3, versioned, "k", b"1")
    s3.put_bucket_versioning(Bucket=versioned, VersioningConfiguration={"Status": "Suspended"})
    assert [put(s3, versioned, "k", body) for body in (b"2", b"3")] == ["null", "null"]
    assert (read(s3, versioned, "k", first), read(s3, versioned, "k", "null")) == (b"1", b"3")
    assert s3.delete_object(Bucket=versioned, Key="k")["VersionId"] == "null"
    listed = s3.list_object_versions(Bucket=versioned)
    assert [version["VersionId"] for version in listed["Versions"]] == [first]
    assert [(marker["VersionId"], marker["IsLatest"]) for marker in listed["DeleteMarkers"]] == [("null", True)]


def test_copies_and_uploads(s3: Any, versioned: str) -> None:
    ids = [put(s3, versioned, "k", body) for body in (b"1", b"2")]
    source = {"Bucket": versioned, "Key": "k", "VersionId": ids[0]}
    copied = s3.copy_object(Bucket=versioned, Key="copy", CopySource=source)
    assert (copied["CopySourceVersionId"], read(s3, versioned, "copy", copied["VersionId"])) == (ids[0], b"1")
    where = {"Bucket": versioned, "Key": "whole"}
    where["UploadId"] = s3.create_multipart_upload(**where)["UploadId"]
    part = s3.upload_part_copy(**where, PartNumber=1, CopySource=source)
    assert part["CopySourceVersionId"] == ids[0]
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["CopyPartResult"]["ETag"]}]}
    version = s3.complete_multipart_upload(**where, MultipartUpload=parts)["VersionId"]
    assert read(s3, versioned, "whole", version) == b"1"


class TestListing:
    @pytest.fixture
    def filled(self, s3: Any, server: LocalS3, versioned: str) -> list[tuple[str, str]]:
        """Key and version id of all there is, in the order of a listing."""
        server.add_synthetic(versioned, "n/{}", count=3, size_bytes=1)
        ids: dict[str, list[str]] = {"n/00000000": ["null"], "n/00000001": ["null"], "n/00000002": ["null"]}
        for key in ("a", "b/1", "b/2", "a", "z", "n/00000001", "a"):
            ids.setdefault(key, []).append(put(s3, versioned, key, b"x"))
        for key in ("b/1", "n/00000002", "z"):
            ids[key].append(s3.delete_object(Bucket=versioned, Key=key)["VersionId"])
        return [(key, version) for key in sorted(ids) for version in reversed(ids[key])]

    @pytest.mark.parametrize("size", [1, 2, 3, 1000])
    def test_pages_of_any_size_add_up(self, s3: Any, versioned: str, filled: list[tuple[str, str]], size: int) -> None:
        for delimiter, prefix in (("", ""), ("/", ""), ("", "b/"), ("/", "n/")):
            pages = s3.get_paginator("list_object_versions").paginate(
                Bucket=versioned, Delimiter=delimiter, Prefix=prefix, PaginationConfig={"PageSize": size}
            )
            found, common, latest = set(), [], []
            for page in pages:
                entries = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
                assert len(entries) + len(page.get("CommonPrefixes", [])) <= size
                found |= {(entry["Key"], entry["VersionId"]) for entry in entries}
                latest += [entry["Key"] for entry in entries if entry["IsLatest"]]
                common += [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
            in_folders = delimiter == "/" and not prefix
            expected = {e for e in filled if e[0].startswith(prefix) and not (in_folders and "/" in e[0])}
            assert found == expected
            assert sorted(latest) == sorted({key for key, _ in expected})
            assert common == (["b/", "n/"] if in_folders else [])

    def test_newest_first(self, s3: Any, server: LocalS3, versioned: str, filled: list[tuple[str, str]]) -> None:
        versions = s3.list_object_versions(Bucket=versioned, Prefix="a")["Versions"]
        assert [(entry["Key"], entry["VersionId"]) for entry in versions] == [e for e in filled if e[0] == "a"]
        assert [entry["IsLatest"] for entry in versions] == [True, False, False]
        told = server.versions(versioned)
        assert [(entry["key"], entry["version_id"]) for entry in told] == filled

    def test_what_is_current(self, s3: Any, versioned: str, filled: list[tuple[str, str]]) -> None:
        keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket=versioned)["Contents"]]
        assert keys == ["a", "b/2", "n/00000000", "n/00000001"]


def test_folders_keep_no_versions(tmp_path: Path) -> None:
    with LocalS3("bucket", directory=tmp_path, activate=False) as server:
        with pytest.raises(ServerError, match="no versions"):
            server.create_bucket("bucket", versioned=True)
        s3 = server.boto3_client()
        with refused(501, "NotImplemented"):
            s3.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
        s3.close()
