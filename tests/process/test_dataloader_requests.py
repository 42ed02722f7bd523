"""How many requests loaders send, and how many at a time."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch.utils.data

import s3dataset
from s3dataset.testing import LocalS3

pytestmark = pytest.mark.filterwarnings("ignore:This process .*multi-threaded:DeprecationWarning")

BUCKET = "bucket"
COUNT = 600


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    with LocalS3(BUCKET, latency_s=0.02) as server:
        server.add_synthetic(BUCKET, "small/{}", size_bytes=2000, count=COUNT)
        yield server


@pytest.fixture(autouse=True)
def fresh_counters(server: LocalS3) -> None:
    server.reset_stats()


def nbytes(reader: s3dataset.S3Reader) -> int:
    return len(reader.read())


def gets(server: LocalS3) -> int:
    return server.stats()["operations"].get("GetObject", 0)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
@pytest.mark.parametrize("batch_size", [4, 32])
def test_look_ahead_sends_each_request_once_and_many_at_a_time(
    server: LocalS3, num_workers: int, batch_size: int
) -> None:
    dataset = s3dataset.S3MapDataset.from_prefix(f"s3://{BUCKET}/small/", transform=nbytes)
    loader = s3dataset.DataLoader(dataset, batch_size=batch_size, shuffle=True, num_workers=num_workers)
    assert sum(int(batch.sum()) for batch in loader) == 2000 * COUNT
    assert gets(server) == COUNT
    assert server.stats()["max_in_flight"] > 3 * batch_size


@pytest.mark.parametrize("sampler", ["sampler", "batch_sampler"])
def test_samplers_of_ones_own_are_looked_ahead_in(server: LocalS3, sampler: str) -> None:
    dataset = s3dataset.S3MapDataset.from_prefix(f"s3://{BUCKET}/small/", transform=nbytes)
    indices: Any = torch.utils.data.WeightedRandomSampler([1.0] * COUNT, COUNT, replacement=True)
    if sampler == "sampler":
        loader: Any = s3dataset.DataLoader(dataset, batch_size=8, sampler=indices, num_workers=2)
    else:
        batches = torch.utils.data.BatchSampler(indices, 8, drop_last=False)
        loader = s3dataset.DataLoader(dataset, batch_sampler=batches, num_workers=2)
    assert sum(int(batch.sum()) for batch in loader) == 2000 * COUNT
    assert gets(server) == COUNT
    assert server.stats()["max_in_flight"] > 24


def test_pytorchs_loader_looks_ahead_with_our_batch_sampler(server: LocalS3) -> None:
    dataset = s3dataset.S3MapDataset.from_prefix(f"s3://{BUCKET}/small/", transform=nbytes)
    batches = s3dataset.BatchSampler(dataset, 8, seed=1, num_workers=2)
    loader: Any = torch.utils.data.DataLoader(dataset, batch_sampler=batches, num_workers=2)
    assert sum(int(batch.sum()) for batch in loader) == 2000 * COUNT
    assert gets(server) == COUNT
    assert server.stats()["max_in_flight"] > 24


def test_batches_dealt_in_another_way_are_right_and_cost_little(server: LocalS3) -> None:
    """With in_order=False batches go to whichever worker is free, so nothing is named ahead."""
    dataset = s3dataset.S3MapDataset.from_prefix(f"s3://{BUCKET}/small/", transform=nbytes)
    loader = s3dataset.DataLoader(dataset, batch_size=8, num_workers=2, in_order=False)
    assert sum(int(batch.sum()) for batch in loader) == 2000 * COUNT
    assert gets(server) == COUNT


def test_a_wrapper_that_picks_batches_costs_a_few_requests(server: LocalS3) -> None:
    dataset = s3dataset.S3MapDataset.from_prefix(f"s3://{BUCKET}/small/", transform=nbytes)
    every_other = list(s3dataset.BatchSampler(dataset, 8, num_workers=2))[::2]
    loader: Any = torch.utils.data.DataLoader(dataset, batch_sampler=every_other, num_workers=2)
    total = sum(map(len, every_other))
    assert sum(int(batch.sum()) for batch in loader) == 2000 * total
    assert gets(server) < 3 * total  # two surprises for each worker, 16 batches of 8 each


def test_iterating_has_many_requests_under_way(server: LocalS3) -> None:
    for kind in (s3dataset.S3MapDataset, s3dataset.S3IterableDataset):
        server.reset_stats()
        dataset: Any = kind.from_prefix(f"s3://{BUCKET}/small/", transform=nbytes)
        assert sum(dataset) == 2000 * COUNT
        assert gets(server) == COUNT
        assert server.stats()["max_in_flight"] > 100


def test_a_loop_that_only_prints_keys_fetches_nothing(server: LocalS3) -> None:
    for kind in (s3dataset.S3MapDataset, s3dataset.S3IterableDataset):
        dataset: Any = kind.from_prefix(f"s3://{BUCKET}/small/")
        assert len([reader.key for reader in dataset]) == COUNT
    assert gets(server) == 0


def test_a_slice_is_fetched_together(server: LocalS3) -> None:
    dataset = s3dataset.S3MapDataset.from_prefix(f"s3://{BUCKET}/small/", transform=nbytes)
    assert dataset[10:110] == [2000] * 100
    assert gets(server) == 100
    assert server.stats()["max_in_flight"] > 50


def test_a_small_budget_slows_down_and_stops_nothing(server: LocalS3) -> None:
    config = s3dataset.S3ClientConfig(memory_limit_bytes=10_000)
    for kind in (s3dataset.S3MapDataset, s3dataset.S3IterableDataset):
        dataset: Any = kind.from_prefix(f"s3://{BUCKET}/small/", transform=nbytes, s3client_config=config)
        assert sum(dataset) == 2000 * COUNT
        assert sum(int(batch.sum()) for batch in s3dataset.DataLoader(dataset, batch_size=50)) == 2000 * COUNT
        readers: Any = kind.from_prefix(f"s3://{BUCKET}/small/", s3client_config=config)
        kept = list(readers)
        assert sum(len(reader.read()) for reader in reversed(kept[:50])) == 2000 * 50
