"""Objects of the local S3 as files."""

import os
from pathlib import Path

from s3dataset.testing import LocalS3

from .conftest import ONE_ATTEMPT


def files(directory: Path) -> list[str]:
    found = (path.relative_to(directory) for path in directory.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if path.parts[0] != ".local-s3")


def test_objects_are_plain_files(tmp_path: Path) -> None:
    with LocalS3("bucket", directory=tmp_path, activate=False) as server:
        server.put("bucket", "train/cat/1.png", b"cat")
        server.put("bucket", "readme.txt", b"text")
        assert files(tmp_path) == ["bucket/readme.txt", "bucket/train/cat/1.png"]
        assert (tmp_path / "bucket/train/cat/1.png").read_bytes() == b"cat"
        server.delete("bucket", "train/cat/1.png")
        assert files(tmp_path) == ["bucket/readme.txt"]
        # Folders that a delete has emptied go with it, or the listing of the folder would differ from that of S3.
        assert not (tmp_path / "bucket/train").exists()


def test_a_later_server_finds_all(tmp_path: Path) -> None:
    with LocalS3("bucket", directory=tmp_path, activate=False) as server:
        s3 = server.boto3_client(config=ONE_ATTEMPT)
        for key in ("a", "a/b", "//", "é"):
            s3.put_object(Bucket="bucket", Key=key, Body=key.encode(), Metadata={"m": "1"}, ContentType="text/x")
        before = s3.list_objects_v2(Bucket="bucket")["Contents"]
        s3.close()
    with LocalS3(directory=tmp_path, activate=False) as server:
        s3 = server.boto3_client(config=ONE_ATTEMPT)
        after = s3.list_objects_v2(Bucket="bucket")["Contents"]
        assert [(e["Key"], e["ETag"], e["Size"]) for e in after] == [(e["Key"], e["ETag"], e["Size"]) for e in before]
        for key in ("a", "a/b", "//", "é"):
            answer = s3.get_object(Bucket="bucket", Key=key, ChecksumMode="ENABLED")
            assert (answer["Metadata"], answer["ContentType"]) == ({"m": "1"}, "text/x")
            assert answer["Body"].read() == key.encode()
        s3.close()


def test_files_put_there_by_hand_are_objects(tmp_path: Path) -> None:
    (tmp_path / "photos/2024").mkdir(parents=True)
    (tmp_path / "photos/2024/a.jpg").write_bytes(b"before")
    with LocalS3(directory=tmp_path, activate=False) as server:
        assert server.buckets() == ["photos"]
        assert server.get("photos", "2024/a.jpg") == b"before"
        (tmp_path / "photos/2024/b.jpg").write_bytes(b"while it runs")
        assert server.get("photos", "2024/b.jpg") == b"while it runs"


def test_a_read_keeps_its_version(tmp_path: Path) -> None:
    size = 64 << 20
    with LocalS3("bucket", directory=tmp_path, activate=False, bandwidth_bytes_s=400e6) as server:
        s3 = server.boto3_client(config=ONE_ATTEMPT)
        server.put("bucket", "k", b"a" * size)
        stream = s3.get_object(Bucket="bucket", Key="k")["Body"]
        server.put("bucket", "k", b"b" * size)
        assert set(stream.read()) == {ord("a")}
        stream.close()
        s3.close()


def test_nothing_partial_is_seen_or_left(tmp_path: Path) -> None:
    with LocalS3("bucket", directory=tmp_path, activate=False) as server:
        s3 = server.boto3_client(config=ONE_ATTEMPT)
        upload = s3.create_multipart_upload(Bucket="bucket", Key="k")["UploadId"]
        s3.upload_part(Bucket="bucket", Key="k", UploadId=upload, PartNumber=1, Body=b"part")
        s3.close()
        assert files(tmp_path) == []
        os.kill(server.pid, 9)
        server.stop()
    with LocalS3(directory=tmp_path, activate=False) as server:
        assert server.keys("bucket") == []
    assert not any((tmp_path / ".local-s3/tmp").iterdir())
