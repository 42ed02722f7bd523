"""Manifests of a server's objects: listing over the real client, saving to it, failures that users meet."""

import multiprocessing
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from s3dataset._client import get_client
from s3dataset._config import S3ClientConfig
from s3dataset._manifest import Manifest, _files, list_prefix
from s3dataset.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    DecodeError,
    EmptyPrefixWarning,
    ObjectChangedError,
    ObjectNotFoundError,
    S3Exception,
)
from s3dataset.testing import Fault, LocalS3

BUCKET = "bucket"
COUNT = 30_000


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    with LocalS3(BUCKET, "dense", "uuids", "dates", "empty") as server:
        server.add_synthetic("dense", "key-{}.jpg", size_bytes=7, count=COUNT)
        server.add_synthetic("uuids", "{uuid}", size_bytes=7, count=COUNT)
        server.add_synthetic("dates", "logs/{date}", size_bytes=7, count=COUNT)
        yield server


@pytest.mark.parametrize("bucket", ["dense", "uuids", "dates"])
def test_lists_what_a_serial_listing_lists(server: LocalS3, bucket: str) -> None:
    client = get_client()
    expected = [info for page in client.list_objects(bucket) for info in page.object_info]
    server.reset_stats()
    manifest = list_prefix(client, f"s3://{bucket}")
    assert len(expected) == COUNT
    assert [(e.key, e.size, e.etag, e.last_modified) for e in manifest.objects] == [
        (info.key, info.size, info.etag, info.last_modified) for info in expected
    ]
    assert server.stats()["requests"] <= 1.25 * COUNT / 1000 + 32


def test_keys_of_every_kind(server: LocalS3) -> None:
    keys = ["k/", "k/a b", "k/a+b", "k/%41", "k/ü", "k/\U0001f600", "k/&<>\"'", "k/\x01", "k//", "k/\x7f", "k/￿"]
    for key in keys:
        server.put(BUCKET, key, key.encode())
    manifest = Manifest.from_prefix(f"s3://{BUCKET}/k/")
    assert [entry.key for entry in manifest.objects] == sorted(keys, key=str.encode)
    assert [entry.size for entry in manifest.objects] == [len(entry.key.encode()) for entry in manifest.objects]


def test_saves_to_the_service_and_loads_from_it(server: LocalS3) -> None:
    manifest = Manifest.from_prefix("s3://dense/", pattern="*[05].jpg")
    manifest.save(f"s3://{BUCKET}/lists/dense.manifest")
    loaded = Manifest.load(f"s3://{BUCKET}/lists/dense.manifest")
    assert loaded == manifest
    assert len(loaded) == COUNT // 5
    assert loaded.verify() == []
    with pytest.raises(ObjectNotFoundError, match=r"s3://bucket/lists/none"):
        Manifest.load(f"s3://{BUCKET}/lists/none")


def test_a_large_one_is_loaded_into_a_file_that_goes_with_it(server: LocalS3, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = Manifest.from_prefix("s3://dense/")
    manifest.save(f"s3://{BUCKET}/lists/large.manifest")
    monkeypatch.setattr(_files, "SMALL_BYTES", 100_000)
    server.reset_stats()
    loaded = Manifest.load(f"s3://{BUCKET}/lists/large.manifest")
    assert loaded == manifest
    assert loaded.rows(range(COUNT)) == manifest.rows(range(COUNT))
    assert server.stats()["operations"] == {"GetObject": 2}
    path = Path(loaded.path or "")
    assert len(pickle.dumps(loaded)) < 2000
    assert pickle.loads(pickle.dumps(loaded)) == manifest
    del loaded
    assert not path.exists()
    server.put(BUCKET, "lists/none.manifest", bytes(200_000))
    with pytest.raises(DecodeError, match=r"s3://bucket/lists/none.manifest is no manifest"):
        Manifest.load(f"s3://{BUCKET}/lists/none.manifest")


def test_one_that_is_replaced_while_it_is_loaded_is_told(server: LocalS3, monkeypatch: pytest.MonkeyPatch) -> None:
    Manifest.from_prefix("s3://dense/").save(f"s3://{BUCKET}/lists/replaced.manifest")
    monkeypatch.setattr(_files, "SMALL_BYTES", 100_000)
    server.add_fault(Fault.replace(operation="GetObject"))
    try:
        with pytest.raises(ObjectChangedError, match=r"s3://bucket/lists/replaced.manifest"):
            Manifest.load(f"s3://{BUCKET}/lists/replaced.manifest")
    finally:
        server.clear_faults()


def test_verify_sees_what_happened_since(server: LocalS3) -> None:
    for key in ("v/a", "v/b", "v/c"):
        server.put(BUCKET, key, b"1")
    manifest = Manifest.from_prefix(f"s3://{BUCKET}/v/")
    named = Manifest.from_objects(f"s3://{BUCKET}/v/{name}" for name in "abc")
    server.put(BUCKET, "v/a", b"2")
    server.delete(BUCKET, "v/b")
    server.put(BUCKET, "v/d", b"1")
    assert [(change.kind, change.uri[-3:]) for change in manifest.verify()] == [
        ("changed", "v/a"), ("removed", "v/b"), ("added", "v/d")
    ]  # fmt: skip
    assert [(change.kind, change.uri[-3:]) for change in named.verify()] == [("removed", "v/b")]


def test_an_empty_prefix_warns_and_has_length_0(server: LocalS3) -> None:
    server.put(BUCKET, "pictures/1.png", b"1")
    with pytest.warns(EmptyPrefixWarning, match=r"s3://bucket/pictures/"):
        assert len(Manifest.from_prefix(f"s3://{BUCKET}/picture/")) == 0
    with pytest.warns(EmptyPrefixWarning, match="the bucket empty is empty"):
        assert len(Manifest.from_prefix("s3://empty")) == 0


def test_failures_name_the_place(server: LocalS3) -> None:
    with pytest.raises(BucketNotFoundError, match="s3://no-such-bucket"):
        Manifest.from_prefix("s3://no-such-bucket/x/")
    with pytest.raises(AccessDeniedError, match=r"s3://dense/"):
        Manifest.from_prefix("s3://dense/", s3client_config=S3ClientConfig(unsigned=True))


def test_stores_without_order(server: LocalS3) -> None:
    server.configure(variant={"unordered_listing": True})
    try:
        manifest = Manifest.from_prefix("s3://dense/")
    finally:
        server.configure(variant={"unordered_listing": False})
    assert [entry.key for entry in manifest.objects] == [f"key-{number:08d}.jpg" for number in range(COUNT)]


def test_pages_that_fail_are_asked_for_again(server: LocalS3) -> None:
    server.add_fault(Fault.status(500, operation="ListObjectsV2", times=None, probability=0.2))
    try:
        manifest = Manifest.from_prefix("s3://uuids/")
    finally:
        server.clear_faults()
    assert len(manifest) == COUNT


@pytest.mark.parametrize("disorder", ["unordered", "duplicate", "empty", "endless"])
@pytest.mark.parametrize("after", [0, 3])
def test_a_page_that_is_not_as_it_should_be(
    server: LocalS3, disorder: Literal["unordered", "duplicate", "empty", "endless"], after: int
) -> None:
    server.add_fault(Fault.listing(disorder, after=after))
    try:
        manifest = Manifest.from_prefix("s3://dense/")
    finally:
        server.clear_faults()
    assert [entry.key for entry in manifest.objects] == [f"key-{number:08d}.jpg" for number in range(COUNT)]


@pytest.mark.parametrize("disorder", ["empty", "endless"])
def test_a_listing_without_end_is_an_error(server: LocalS3, disorder: Literal["empty", "endless"]) -> None:
    server.add_fault(Fault.listing(disorder, times=None))
    try:
        with pytest.raises(S3Exception, match=r"s3://dense/ says that there is more, and does not go on"):
            Manifest.from_prefix("s3://dense/")
    finally:
        server.clear_faults()


def list_in_child(path: str) -> None:
    Manifest.from_prefix("s3://dates/").publish(path)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_listing_made_in_a_process_outlives_it(server: LocalS3, method: str, tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "page.manifest")  # noqa: PTH118
    process = multiprocessing.get_context(method).Process(target=list_in_child, args=(path,))  # type: ignore[attr-defined]
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert Manifest.open(path) == Manifest.from_prefix("s3://dates/")
