"""Shards without an index whose sizes no listing told: what the service is asked, and when."""

from collections.abc import Iterator

import pytest
from tests.process.shard_world import number, put_shards

import s3dataset
from s3dataset import S3Client, S3IterableDataset
from s3dataset._client import ClientRef
from s3dataset._datasets._shard_opener import ShardOpener
from s3dataset._datasets._shard_rows import ShardRows
from s3dataset.errors import AccessDeniedError, ObjectChangedError, ObjectNotFoundError
from s3dataset.testing import Fault, LocalS3

SHARDS = 12
URIS = [f"s3://bucket/{shard:03}.tar" for shard in range(SHARDS)]


@pytest.fixture
def server() -> Iterator[LocalS3]:
    """12 shards of 100 samples, 100 KiB each."""
    with LocalS3("bucket") as running:
        put_shards(running, "", "tar", [100] * SHARDS, nbytes=50)
        running.reset_stats()
        yield running


def epoch(uris: list[str] = URIS) -> Iterator[int]:
    return iter(S3IterableDataset.from_objects(uris, format="tar", transform=number))


def test_each_is_asked_for_once_and_fetched_as_if_it_had_been_listed(server: LocalS3) -> None:
    assert list(epoch()) == list(range(100 * SHARDS))
    assert len(server.requests("HeadObject")) == SHARDS
    assert sorted(request.key for request in server.requests("GetObject")) == [uri[-7:] for uri in URIS]


def test_nobody_waits_between_two_questions(server: LocalS3) -> None:
    server.add_fault(Fault.delay(0.5, operation="HeadObject", times=None))
    rows = ShardRows(ClientRef().get(), s3dataset.Manifest.from_objects(URIS))
    assert [rows.coming(shard) for shard in range(SHARDS)] == [None] * SHARDS
    sizes = [rows.row(shard)[2] for shard in range(SHARDS)]
    assert sizes == [len(server.get("bucket", uri[-7:])) for uri in URIS]
    assert server.stats()["max_in_flight"] == SHARDS
    rows.close()


def test_one_that_is_not_answered_for_holds_up_nobody_before_it(server: LocalS3) -> None:
    server.add_fault(Fault.status(503, code="SlowDown", operation="HeadObject", key="005.tar", times=None))
    samples = epoch()
    assert [next(samples) for _ in range(500)] == list(range(500))


def test_listed_ones_are_not_asked_for(server: LocalS3) -> None:
    dataset = S3IterableDataset.from_prefix("s3://bucket/", pattern="*.tar", format="tar", transform=number)
    assert list(dataset) == list(range(100 * SHARDS))
    assert server.requests("HeadObject") == []


def test_whoever_may_not_ask_reads_all_the_same(server: LocalS3) -> None:
    server.add_fault(Fault.status(403, operation="HeadObject", times=None))
    with pytest.raises(AccessDeniedError):
        S3Client().head_object("bucket", "000.tar")
    once = len(server.requests("HeadObject"))  # is tried again, as its answer cannot say why
    server.reset_stats()
    assert list(epoch()) == list(range(100 * SHARDS))
    assert len(server.requests("HeadObject")) == SHARDS * once


def test_a_missing_one_is_an_error_when_its_turn_comes(server: LocalS3) -> None:
    server.delete("bucket", "003.tar")
    samples = epoch()
    assert [next(samples) for _ in range(300)] == list(range(300))
    with pytest.raises(ObjectNotFoundError, match=r"s3://bucket/003\.tar"):
        next(samples)


def test_one_that_changed_since_it_was_asked_for_is_not_mixed(server: LocalS3) -> None:
    manifest = s3dataset.Manifest.from_objects(URIS)
    with ShardOpener(ClientRef().get(), manifest, window_bytes=1 << 16) as opener:
        with opener.open(0, range(1, SHARDS)) as first:
            assert len(first.read()) == len(server.get("bucket", "000.tar"))
        server.put("bucket", "005.tar", b"another")
        with opener.open(5, ()) as changed, pytest.raises(ObjectChangedError, match=r"005\.tar"):
            changed.read()


def test_shards_may_be_closed_behind_their_opener(server: LocalS3) -> None:
    with ShardOpener(ClientRef().get(), s3dataset.Manifest.from_objects(URIS), window_bytes=1 << 18) as opener:
        shard = opener.open(0, range(1, SHARDS))
        shard.read(1)
    shard.close()
    assert shard.closed
