"""Datasets against a server: access, errors, and a small budget."""

import gc
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.process.shard_world import put_shards

import s3dataset
from s3dataset import S3ClientConfig, S3IterableDataset, S3MapDataset
from s3dataset.errors import (
    BucketNotFoundError,
    NoCredentialsError,
    ObjectChangedError,
    ObjectNotFoundError,
    S3DatasetException,
)
from s3dataset.testing import LocalS3
from s3dataset.transforms import Bytes

pytestmark = pytest.mark.filterwarnings("ignore:This process .*multi-threaded:DeprecationWarning")

BOTH: Any = [S3MapDataset, S3IterableDataset]
BUCKET = "bucket"
MIB = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    with LocalS3(BUCKET) as server:
        for i in range(20):
            server.put(BUCKET, f"few/{i:02}.txt", f"object {i}".encode())
        server.put(BUCKET, "few/folder/", b"")
        server.add_synthetic(BUCKET, "mid/{}", size_bytes=MIB, count=64)
        server.add_synthetic(BUCKET, "big/{}", size_bytes=24 * MIB, count=3)
        yield server


@pytest.fixture(autouse=True)
def fresh_counters(server: LocalS3) -> None:
    server.reset_stats()


def gets(server: LocalS3) -> int:
    return server.stats()["operations"].get("GetObject", 0)


def test_listing_order_and_folders_are_the_services(server: LocalS3) -> None:
    dataset = S3MapDataset.from_prefix(f"s3://{BUCKET}/few/", transform=lambda reader: (reader.key, reader.read()))
    assert len(dataset) == 21
    assert dataset[-1] == ("few/folder/", b"")
    assert dataset[3] == dataset["few/03.txt"] == dataset[f"s3://{BUCKET}/few/03.txt"] == ("few/03.txt", b"object 3")
    assert list(dataset) == dataset[:]
    assert dataset[::-7] == [dataset[i] for i in (20, 13, 6)]
    matching = S3MapDataset.from_prefix(f"s3://{BUCKET}/few/", pattern="{00..04}.txt", transform=Bytes())
    assert list(matching) == [f"object {i}".encode() for i in range(5)]


def test_a_single_access_reads_what_is_read(server: LocalS3) -> None:
    dataset = S3MapDataset.from_prefix(f"s3://{BUCKET}/big/")
    reader = dataset[1]
    assert gets(server) == 0
    reader.seek(-100, 2)
    assert len(reader.read()) == 100
    assert server.stats()["bytes_out"] < 4 * MIB


def test_a_manifest_is_a_dataset_too(server: LocalS3, tmp_path: Any) -> None:
    manifest = s3dataset.Manifest.from_prefix(f"s3://{BUCKET}/few/").filter(lambda entry: bool(entry.size))
    manifest.save(tmp_path / "few.manifest")
    server.reset_stats()
    for given in (manifest, str(tmp_path / "few.manifest")):
        for kind in BOTH:
            assert len(list(kind.from_manifest(given, transform=Bytes()))) == 20
    assert "ListObjectsV2" not in server.stats()["operations"]


@pytest.mark.parametrize("kind", BOTH)
def test_an_empty_prefix_is_empty_and_warns_with_what_is_near(server: LocalS3, kind: Any) -> None:
    dataset = kind.from_prefix(f"s3://{BUCKET}/fwe/")
    with pytest.warns(UserWarning, match="few/"):
        assert len(dataset) == 0
    assert list(dataset) == []
    assert list(s3dataset.DataLoader(dataset)) == []


@pytest.mark.parametrize("kind", BOTH)
def test_a_missing_bucket_is_named_at_first_use(server: LocalS3, kind: Any) -> None:
    dataset = kind.from_prefix("s3://no-such-bucket/images/")
    for _ in range(2):
        with pytest.raises(BucketNotFoundError, match="s3://no-such-bucket"):
            list(dataset)


@pytest.mark.parametrize("kind", BOTH)
def test_an_object_that_is_gone_or_replaced_is_named(server: LocalS3, kind: Any) -> None:
    for key in ("changing/1", "changing/2"):
        server.put(BUCKET, key, b"old")
    dataset = kind.from_prefix(f"s3://{BUCKET}/changing/", transform=Bytes())
    assert list(dataset) == [b"old", b"old"]
    server.put(BUCKET, "changing/2", b"new")
    with pytest.raises(ObjectChangedError, match=f"s3://{BUCKET}/changing/2"):
        list(dataset)
    server.delete(BUCKET, "changing/2")
    with pytest.raises(ObjectNotFoundError, match=f"s3://{BUCKET}/changing/2"):
        list(dataset)


@pytest.mark.parametrize("kind", BOTH)
def test_without_credentials_the_first_use_says_so(monkeypatch: pytest.MonkeyPatch, server: LocalS3, kind: Any) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    dataset = kind.from_prefix(f"s3://{BUCKET}/few/")
    started = time.monotonic()
    with pytest.raises(NoCredentialsError, match=r"^Client error: No signing credentials found") as caught:
        next(iter(dataset))
    assert isinstance(caught.value, S3DatasetException)
    assert "unsigned=True" in str(caught.value)
    assert time.monotonic() - started < 30  # nobody asks a metadata service again and again
    with pytest.raises(NoCredentialsError):
        list(s3dataset.DataLoader(dataset, num_workers=2))


# -- A budget of 16 MiB ------------------------------------------------------------------------------------------------

SMALL = S3ClientConfig(memory_limit_bytes=16 * MIB)


@pytest.mark.parametrize("kind", BOTH)
def test_a_full_window_does_not_stop_a_loop_that_saves(server: LocalS3, kind: Any) -> None:
    dataset = kind.from_prefix(f"s3://{BUCKET}/mid/", transform=Bytes(), s3client_config=SMALL)
    client = s3dataset.S3Client(s3client_config=SMALL)
    for i, sample in enumerate(dataset):
        if i % 16 == 0:
            with client.put_object(BUCKET, f"saved/{i}") as writer:
                for _ in range(24):
                    writer.write(sample)
    assert i == 63
    assert len(server.get(BUCKET, "saved/48")) == 24 * MIB


@pytest.mark.parametrize("kind", BOTH)
def test_unread_readers_of_a_whole_dataset_hold_no_bytes(server: LocalS3, kind: Any) -> None:
    readers = list(kind.from_prefix(f"s3://{BUCKET}/mid/", s3client_config=SMALL))
    assert gets(server) == 0
    assert [len(reader.read()) for reader in reversed(readers)] == [MIB] * 64


@pytest.mark.parametrize("kind", BOTH)
def test_objects_larger_than_the_budget_come(server: LocalS3, kind: Any) -> None:
    dataset = kind.from_prefix(
        f"s3://{BUCKET}/big/", transform=lambda reader: len(reader.read()), s3client_config=SMALL
    )
    assert list(dataset) == [24 * MIB] * 3
    if kind is S3MapDataset:
        assert dataset[0] == 24 * MIB
        assert dataset.__getitems__([2, 1, 0]) == [24 * MIB] * 3


def test_later_objects_do_not_starve_the_head(server: LocalS3) -> None:
    """While many small bodies wait untaken, a reader outside of the window gets its bytes."""
    config = S3ClientConfig(memory_limit_bytes=4 * MIB)
    stream = iter(S3IterableDataset.from_prefix(f"s3://{BUCKET}/mid/", transform=Bytes(), s3client_config=config))
    next(stream)
    other = S3MapDataset.from_prefix(f"s3://{BUCKET}/big/", s3client_config=config)[0]
    assert len(other.read()) == 24 * MIB
    assert sum(1 for _ in stream) == 63


# -- Forks and interruptions ------------------------------------------------------------------------------------------


def test_a_child_that_is_forked_in_mid_iteration_reads_by_itself(server: LocalS3) -> None:
    dataset = S3MapDataset.from_prefix(f"s3://{BUCKET}/few/", transform=Bytes())
    stream = iter(dataset)
    assert next(stream) == b"object 0"
    kept = S3MapDataset.from_prefix(f"s3://{BUCKET}/few/")[1]
    child = os.fork()
    if child == 0:
        status = 1
        try:
            right = list(dataset)[2] == b"object 2" and kept.read() == b"object 1" and dataset[5] == b"object 5"
            status = 0 if right else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert next(stream) == b"object 1"
    assert len(list(stream)) == 19


def test_an_iteration_that_is_dropped_gives_up_its_requests(server: LocalS3) -> None:
    dataset = S3IterableDataset.from_prefix(f"s3://{BUCKET}/few/", transform=Bytes())
    dataset.prepare()
    server.set_traffic(latency_s=60.0)
    try:
        stream = iter(dataset)
        started = time.monotonic()

        def interrupt(*args: object) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        try:
            with pytest.raises(KeyboardInterrupt):
                next(stream)
        finally:
            signal.signal(signal.SIGALRM, before)
        del stream
        gc.collect()
        assert time.monotonic() - started < 40
    finally:
        server.set_traffic(latency_s=0.0)


def test_a_forked_worker_inherits_what_the_parent_could_read(server: LocalS3) -> None:
    """Configuration and keys at hand are read before the fork, once, and not by every worker in every epoch."""
    dataset = S3MapDataset.from_objects(f"s3://{BUCKET}/few/01.txt", transform=Bytes())
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
                del os.environ[name]
            status = 0 if dataset[0] == b"object 1" else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("on_error", ["raise", "replace"])
@pytest.mark.parametrize("in_thread", [False, True], ids=["itself", "by a thread"])
@pytest.mark.parametrize("kind", ["few", "mid", "shards"])
def test_a_transform_asks_its_own_dataset(server: LocalS3, kind: str, in_thread: bool, on_error: Any) -> None:
    """Mosaics, mixup and the like take other samples of the same data."""

    def length(sample: Any) -> int:
        return len(sample["text"] if kind == "shards" else sample.read())

    def with_another(sample: Any) -> tuple[int, int, list[int]]:
        if alone:
            return (length(sample), 0, [])
        alone.append(True)

        def another() -> tuple[int, int, list[int]]:
            return length(sample), dataset[5][0], [n for n, *_ in dataset[2:4]]

        with ThreadPoolExecutor(1) as threads:
            taken = threads.submit(another).result() if in_thread else another()
        alone.clear()
        return taken

    alone: list[bool] = []
    if kind == "shards":
        put_shards(server, "shards/", "jsonl", [5, 7], nbytes=1000)
    manifest = s3dataset.Manifest.from_prefix(f"s3://{BUCKET}/{kind}/")
    manifest = manifest.index("jsonl") if kind == "shards" else manifest
    dataset = S3MapDataset.from_manifest(
        manifest, transform=with_another, on_error=on_error, s3client_config=S3ClientConfig(memory_limit_bytes=2 * MIB)
    )
    n = {"few": 8, "mid": MIB, "shards": 1000}[kind]
    whole = (n, n, [n, n])
    assert dataset[0] == whole
    assert dataset[:9] == [whole] * 9
    assert dataset.__getitems__(list(range(9))) == [whole] * 9
