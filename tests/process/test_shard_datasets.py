"""Datasets over shards: the same samples however they are read."""

import copy
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.utils.data
from tests.process.shard_world import batches_of, flat, number, put_shards, shard_of

import s3dataset
from s3dataset import ObjectChangedError, S3IterableDataset, S3MapDataset, UnindexedError
from s3dataset._manifest import update_index
from s3dataset.testing import LocalS3

COUNTS = [40, 7, 0, 25, 60, 1]
TOTAL = sum(COUNTS)
EVERYTHING = list(range(TOTAL))

KINDS = [("tar", None), ("tar", "gz"), ("tar", "zst"), ("jsonl", None), ("jsonl", "zst"), ("parquet", None)]

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def failing(sample: Any) -> int:
    raise ZeroDivisionError


def descriptors_open() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    with LocalS3("bucket") as running:
        for kind, compression in KINDS:
            put_shards(running, f"{kind}-{compression}/", kind, COUNTS, compression=compression)
        yield running


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0]}-{kind[1]}")
def kind(request: pytest.FixtureRequest, server: LocalS3) -> tuple[str, str]:
    name, compression = request.param
    return name, f"s3://bucket/{name}-{compression}/"


def test_streamed_in_order_at_random_and_shuffled_they_are_the_same(kind: tuple[str, str]) -> None:
    name, uri = kind
    streamed = S3IterableDataset.from_prefix(uri, format=name, transform=number)
    assert list(streamed) == EVERYTHING
    manifest = s3dataset.Manifest.from_prefix(uri).index(name)
    assert manifest.num_samples == TOTAL
    assert list(S3IterableDataset.from_manifest(manifest, transform=number)) == EVERYTHING
    at_random = S3MapDataset.from_manifest(manifest, transform=number)
    assert len(at_random) == TOTAL
    assert list(at_random) == EVERYTHING
    assert [at_random[i] for i in (0, 39, 40, 47, -1)] == [0, 39, 40, 47, TOTAL - 1]
    assert at_random[30:80:7] == EVERYTHING[30:80:7]
    assert at_random.__getitems__([99, 3, 3, 47]) == [99, 3, 3, 47]
    with pytest.raises(IndexError):
        at_random[TOTAL]
    with pytest.raises(KeyError, match="samples of shards have numbers"):
        at_random["s3://bucket/x"]
    for manifest_or_not in (manifest, s3dataset.Manifest.from_prefix(uri)):
        shuffled = S3IterableDataset.from_manifest(manifest_or_not, format=name, transform=number, shuffle=True)
        first, second = list(shuffled), list(shuffled)
        assert sorted(first) == sorted(second) == EVERYTHING
        assert first != second
        assert first != EVERYTHING


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("shuffle", [False, True])
def test_workers_share_them(kind: tuple[str, str], workers: int, shuffle: bool) -> None:
    name, uri = kind
    dataset = S3IterableDataset.from_prefix(uri, format=name, transform=number, shuffle=shuffle)
    assert sorted(flat(batches_of(s3dataset.DataLoader(dataset, batch_size=8, num_workers=workers)))) == EVERYTHING
    plain = torch.utils.data.DataLoader(dataset, batch_size=8, num_workers=workers)
    assert sorted(flat(batches_of(plain))) == EVERYTHING


def test_a_sample_is_a_dict_and_batches_of_them_collate(server: LocalS3) -> None:
    dataset = S3IterableDataset.from_prefix("s3://bucket/tar-None/", format="tar")
    sample = next(iter(dataset))
    assert sample == {"__key__": "000000", "__url__": "s3://bucket/tar-None/000.tar", "n": b"0", "bin": bytes(50)}
    batch = next(iter(s3dataset.DataLoader(dataset, batch_size=4)))
    assert batch["__key__"] == [f"{n:06}" for n in range(4)]


class TestTheIndexBesideTheData:
    @pytest.fixture
    def uri(self, server: LocalS3) -> str:
        put_shards(server, "beside/", "tar", [10, 20, 30])
        for key in server.keys("bucket", "beside/.s3dataset/"):
            server.delete("bucket", key)
        return "s3://bucket/beside/"

    @staticmethod
    def make(uri: str) -> None:
        listed = s3dataset.Manifest.from_prefix(uri)
        update_index(listed, "tar", s3dataset.Manifest.index_location(uri, "tar"))

    def test_without_one_random_access_is_refused_with_advice(self, uri: str) -> None:
        dataset = S3MapDataset.from_prefix(uri, format="tar")
        with pytest.raises(UnindexedError, match="s3dataset index"):
            dataset[0]
        with pytest.raises(UnindexedError, match="s3dataset index"):
            len(dataset)
        with pytest.raises(TypeError, match="s3dataset index"):
            len(S3IterableDataset.from_prefix(uri, format="tar"))

    def test_it_is_found(self, uri: str) -> None:
        self.make(uri)
        assert S3MapDataset.from_prefix(uri, format="tar", transform=number)[59] == 59
        assert len(S3IterableDataset.from_prefix(uri, format="tar")) == 60
        assert len(S3MapDataset.from_prefix(uri, pattern="00[01].tar", format="tar")) == 30

    def test_one_that_is_out_of_date_is_told_and_not_used(self, uri: str, server: LocalS3) -> None:
        self.make(uri)
        server.put("bucket", "beside/001.tar", shard_of("tar", range(10, 31)))
        dataset = S3MapDataset.from_prefix(uri, format="tar")
        with pytest.warns(UserWarning, match="is of earlier contents of 1 shard,"), pytest.raises(UnindexedError):
            len(dataset)
        streamed = S3IterableDataset.from_prefix(uri, format="tar", transform=number)
        with pytest.warns(UserWarning, match="brings it up to date"):
            assert len(list(streamed)) == 61
        self.make(uri)
        assert len(S3MapDataset.from_prefix(uri, format="tar")) == 61

    def test_a_shard_that_changed_since_is_an_error(self, uri: str, server: LocalS3) -> None:
        manifest = s3dataset.Manifest.from_prefix(uri).index("tar")
        unindexed = s3dataset.Manifest.from_prefix(uri)
        server.put("bucket", "beside/001.tar", shard_of("tar", range(10, 30), nbytes=51))
        with pytest.raises(ObjectChangedError, match=r"beside/001\.tar"):
            list(S3MapDataset.from_manifest(manifest))
        with pytest.raises(ObjectChangedError, match=r"beside/001\.tar"):
            list(S3IterableDataset.from_manifest(manifest, shuffle=True))
        with pytest.raises(ObjectChangedError, match=r"beside/001\.tar"):
            list(S3IterableDataset.from_manifest(unindexed, format="tar"))

    def test_another_format_is_refused(self, uri: str) -> None:
        manifest = s3dataset.Manifest.from_prefix(uri).index("tar")
        with pytest.raises(s3dataset.ManifestMismatchError, match="leave format= out"):
            S3MapDataset.from_manifest(manifest, format="jsonl")[0]


def test_an_error_in_the_transform_names_sample_and_shard(server: LocalS3) -> None:
    manifest = s3dataset.Manifest.from_prefix("s3://bucket/tar-None/").index("tar")
    for dataset in (
        S3IterableDataset.from_prefix("s3://bucket/tar-None/", format="tar", transform=failing),
        S3IterableDataset.from_manifest(manifest, transform=failing),
    ):
        with pytest.raises(ZeroDivisionError) as raised:
            next(iter(dataset))
        assert "'000000'" in str(raised.value.__notes__)
        assert "s3://bucket/tar-None/000.tar" in str(raised.value.__notes__)
    loader = s3dataset.DataLoader(dataset, batch_size=2, num_workers=1)
    with pytest.raises(ZeroDivisionError, match=r"s3://bucket/tar-None/000\.tar"):
        next(iter(loader))


@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_other_start_methods(server: LocalS3, context: str) -> None:
    dataset = S3IterableDataset.from_prefix("s3://bucket/tar-None/", format="tar", transform=number, shuffle=True)
    loader = s3dataset.DataLoader(dataset, batch_size=8, num_workers=2, multiprocessing_context=context)
    first, state = batches_of(loader, 3), loader.state_dict()
    again = s3dataset.DataLoader(dataset, batch_size=8, num_workers=2, multiprocessing_context=context)
    again.load_state_dict(state)
    assert sorted(flat(first + batches_of(again))) == EVERYTHING


def many_tensors(sample: Any) -> list[torch.Tensor]:
    return [torch.zeros(1) for _ in range(500)]


def test_a_spawned_worker_that_is_left_ends_in_order(server: LocalS3) -> None:
    """It is putting batches of many tensors into shared memory when the loop leaves."""
    dataset = S3IterableDataset.from_prefix("s3://bucket/tar-None/", format="tar", transform=many_tensors)
    loader = s3dataset.DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context="spawn")
    iterator = iter(loader)
    next(iterator)
    workers = list(iterator._workers)
    del iterator
    assert [worker.exitcode for worker in workers] == [0, 0]


def test_copies_and_pickles_read_the_same(server: LocalS3) -> None:
    manifest = s3dataset.Manifest.from_prefix("s3://bucket/tar-None/").index("tar")
    dataset = S3IterableDataset.from_manifest(manifest, transform=number, shuffle=True)
    expected = list(dataset)
    for twin in (pickle.loads(pickle.dumps(dataset)), copy.copy(dataset), copy.deepcopy(dataset)):
        twin.set_epoch(0)
        assert list(twin) == expected


def test_two_iterators_at_once_and_ones_that_are_left(server: LocalS3) -> None:
    manifest = s3dataset.Manifest.from_prefix("s3://bucket/tar-None/").index("tar")
    for dataset in (
        S3IterableDataset.from_manifest(manifest, transform=number),
        S3IterableDataset.from_prefix("s3://bucket/tar-None/", format="tar", transform=number),
        S3MapDataset.from_manifest(manifest, transform=number),
    ):
        one, other = iter(dataset), iter(dataset)
        assert [next(one), next(other), next(one)] == [0, 0, 1]
        del one, other
        for _ in range(3):
            next(iter(dataset))
        threads, descriptors = threading.active_count(), descriptors_open()
        for _ in range(30):
            next(iter(dataset))
        assert threading.active_count() <= threads + 2  # not one for each
        assert descriptors_open() <= descriptors + 100  # connections that are kept
        assert list(dataset) == EVERYTHING


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_small_budget_and_samples_that_are_larger(server: LocalS3, shuffle: bool) -> None:
    put_shards(server, "large/", "tar", [3, 2], nbytes=6 << 20)
    config = s3dataset.S3ClientConfig(memory_limit_bytes=4 << 20)
    manifest = s3dataset.Manifest.from_prefix("s3://bucket/large/", s3client_config=config)
    for one in (manifest, manifest.index("tar")):
        dataset = S3IterableDataset.from_manifest(
            one, format="tar", transform=number, s3client_config=config, shuffle=shuffle
        )
        assert sorted(dataset) == [0, 1, 2, 3, 4]


def test_nothing_at_all(server: LocalS3) -> None:
    empty = s3dataset.Manifest.from_objects([])
    assert list(S3IterableDataset.from_manifest(empty, format="tar")) == []
    for shuffle in (False, True):
        dataset = S3IterableDataset.from_manifest(empty.index("tar"), shuffle=shuffle)
        assert list(dataset) == list(s3dataset.DataLoader(dataset, batch_size=4)) == []
    server.put("bucket", "hollow/0.tar", shard_of("tar", range(0)))
    manifest = s3dataset.Manifest.from_prefix("s3://bucket/hollow/").index("tar")
    assert len(S3MapDataset.from_manifest(manifest)) == 0
    assert list(S3IterableDataset.from_manifest(manifest, shuffle=True)) == []


def test_steps_of_shards_without_an_index_repeat_them(server: LocalS3) -> None:
    dataset = S3IterableDataset.from_prefix(
        "s3://bucket/tar-None/",
        format="tar",
        transform=number,
        enable_sharding=s3dataset.Split(steps_per_epoch=50),
    )
    loader = s3dataset.DataLoader(dataset, batch_size=8, num_workers=2)
    batches = batches_of(loader)
    assert [len(batch) for batch in batches] == [8] * 50
    assert set(flat(batches)) == set(EVERYTHING)
    for tail in ("pad", "drop"):
        refused = S3IterableDataset.from_prefix(
            "s3://bucket/tar-None/", format="tar", enable_sharding=s3dataset.Split(tail=tail)
        )
        with pytest.raises(ValueError, match="s3dataset index"):
            next(iter(refused))
