"""Versions of objects, read by our client from moto's server: an S3 by other people."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from s3dataset import S3Client, S3ClientConfig, S3ReaderConstructor, errors

moto_server = pytest.importorskip("moto.server")

BUCKET, KEY = "versions", "k"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def versions(endpoint: str) -> list[str]:
    """Ids of two versions, the older first; the object is deleted then."""
    import boto3

    s3: Any = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="s"
    )
    s3.create_bucket(Bucket=BUCKET)
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    ids = [s3.put_object(Bucket=BUCKET, Key=KEY, Body=body)["VersionId"] for body in (b"older", b"the newer one")]
    s3.delete_object(Bucket=BUCKET, Key=KEY)
    s3.close()
    return ids


@pytest.fixture
def client(endpoint: str) -> Iterator[S3Client]:
    config = S3ClientConfig(credentials=("a", "s"))
    with closing(S3Client("us-east-1", endpoint=endpoint, s3client_config=config)) as client:
        yield client


@pytest.mark.parametrize(("which", "data"), [(0, b"older"), (1, b"the newer one")])
def test_each_version_is_read(client: S3Client, versions: list[str], which: int, data: bytes) -> None:
    version_id = versions[which]
    info = client.head_object(BUCKET, KEY, version_id=version_id)
    assert (info.size, info.version_id) == (len(data), version_id)
    assert bytes(client.get_range(BUCKET, KEY, 1, 4, version_id=version_id)) == data[1:4]
    for constructor in (None, S3ReaderConstructor.range_based(), S3ReaderConstructor.dcp_optimized()):
        with client.get_object(BUCKET, KEY, version_id=version_id, reader_constructor=constructor) as reader:
            assert reader.read(2) + reader.read() == data


def test_without_one_it_is_the_current(client: S3Client, versions: list[str]) -> None:
    with pytest.raises(errors.ObjectNotFoundError):
        client.get_range(BUCKET, KEY, 0, 1)
    with client.put_object(BUCKET, "other") as writer:
        writer.write(b"x")
    assert writer.result.version_id is not None
    assert client.head_object(BUCKET, "other").version_id == writer.result.version_id
    (info,) = client.put_many([(BUCKET, "other", b"y")])
    assert bytes(client.get_range(BUCKET, "other", 0, 1, version_id=writer.result.version_id)) == b"x"
    assert info.version_id != writer.result.version_id


def test_a_version_that_is_not_there(client: S3Client, versions: list[str]) -> None:
    with pytest.raises(errors.S3Exception):
        client.get_range(BUCKET, KEY, 0, 1, version_id="0" * 32)
