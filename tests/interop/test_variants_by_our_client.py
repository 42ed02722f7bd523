"""What our own client does on stores that are not quite S3."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import s3dataset
from s3dataset._client import Client
from s3dataset.safetensors import load_file, save_file
from s3dataset.testing import LocalS3

LARGE = bytes(range(256)) * 80_000  # of several parts, the last a smaller one


@pytest.fixture(params=["s3", "minio", "r2", "gcs", "b2"])
def server(request: pytest.FixtureRequest) -> Iterator[LocalS3]:
    with LocalS3("bucket", variant=request.param) as server:
        yield server


@pytest.fixture
def client(server: LocalS3) -> Any:
    return s3dataset.S3Client(region=server.region)


def write(client: Any, key: str, data: bytes) -> None:
    with client.put_object("bucket", key) as writer:
        writer.write(data)


def test_objects_come_and_go(server: LocalS3, client: Any) -> None:
    write(client, "small", b"small")
    write(client, "large", LARGE)
    client.put_many([("bucket", f"many/{number}", b"x") for number in range(20)])
    assert client.get_object("bucket", "small").read() == b"small"
    assert client.get_object("bucket", "large").read() == LARGE
    client.copy_object("bucket", "large", "bucket", "copy")
    assert server.get("bucket", "copy") == LARGE
    assert len(s3dataset.Manifest.from_prefix("s3://bucket/", region=server.region)) == 23
    client.delete_object("bucket", "copy")
    assert "copy" not in server.keys("bucket")
    assert server.uploads("bucket") == []
    # A header that the store refuses costs one request, not one for each object.
    refused = [record for record in server.requests() if record.status in {400, 501}]
    assert len(refused) <= 1


def test_datasets(server: LocalS3) -> None:
    """Whole objects, for whose stored checksums the service is asked."""
    for number in range(20):
        server.put("bucket", f"data/{number:02}", b"%d" % number)
    listed = s3dataset.S3MapDataset.from_prefix("s3://bucket/data/", region=server.region)
    assert [reader.read() for reader in listed] == [b"%d" % number for number in range(20)]
    refused = len([record for record in server.requests() if record.status in {400, 501}])
    assert [listed[number].read() for number in (7, 3)] == [b"7", b"3"]
    # Once the store has refused to be asked, it is not asked any more.
    assert len([record for record in server.requests() if record.status in {400, 501}]) == refused


def test_checkpoints(server: LocalS3) -> None:
    """One in one request, one in parts, by each way of reading."""
    for state in ({"a": torch.ones(5)}, {"a": torch.arange(5 << 20), "b": torch.ones(3)}):
        checkpoint = s3dataset.S3Checkpoint(server.region)
        checkpoint.save(state, "s3://bucket/model.pt")
        assert torch.equal(checkpoint.load("s3://bucket/model.pt")["a"], state["a"])
        assert torch.equal(checkpoint.load("s3://bucket/model.pt", keys="a")["a"], state["a"])
        save_file(state, "s3://bucket/model.safetensors", region=server.region)
        assert torch.equal(load_file("s3://bucket/model.safetensors", region=server.region)["a"], state["a"])
    assert server.uploads("bucket") == []


@pytest.mark.parametrize(("variant", "requests"), [("s3", 2), ("gcs", 2 + 1101)])
def test_many_objects_are_deleted_where_delete_objects_is_unknown_too(variant: Any, requests: int) -> None:
    keys = [f"many/{number:04}" for number in range(1100)]
    with LocalS3("bucket", variant=variant) as server:
        for key in keys:
            server.put("bucket", key, b"")
        ((key, _),) = Client(region=server.region).delete_objects("bucket", [*keys, "never was", ""])
        assert key == ""
        assert server.keys("bucket") == []
        assert len([record for record in server.requests() if record.operation.startswith("Delete")]) == requests
