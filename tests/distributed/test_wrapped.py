"""Datasets inside other things that split samples."""

import sys
import warnings
from collections import Counter
from typing import Any

import pytest
import torch.utils.data

import s3dataset
from s3dataset.testing import LocalS3

COUNT = 1797
URI = "s3://bucket/images/"

pytestmark = pytest.mark.filterwarnings("ignore:This process .*multi-threaded:DeprecationWarning")


def number(reader: s3dataset.S3Reader) -> int:
    return int(reader.read())


def print_warnings(worker: int) -> None:
    """As a program has it; in a worker forked from pytest they would be kept for a report that nobody makes."""
    warnings.simplefilter("always")
    warnings.showwarning = lambda message, *rest: print(message, file=sys.stderr)  # type: ignore[assignment]  # noqa: T201


def loader(dataset: Any) -> Any:
    return torch.utils.data.DataLoader(dataset, batch_size=32, num_workers=2, worker_init_fn=print_warnings)


def seen(batches: Any) -> Counter[int]:
    return Counter(int(i) for batch in batches for i in batch)


def test_a_sharding_filter_splits_over_workers(server: LocalS3, capfd: pytest.CaptureFixture[str]) -> None:
    server.reset_stats()
    s3dataset.Manifest.from_prefix(URI)
    alone = server.stats()["operations"]["ListObjectsV2"]
    dataset = s3dataset.S3IterableDataset.from_prefix(URI, transform=number)
    pipe: Any = torch.utils.data.datapipes.iter.IterableWrapper(dataset).sharding_filter()  # type: ignore[attr-defined]
    assert seen(loader(pipe)) == Counter(range(COUNT))
    assert capfd.readouterr().err.count("cannot tell who splits") == 1
    assert server.stats()["operations"]["ListObjectsV2"] < 3 * alone


def test_something_that_does_not_split_gets_what_the_peer_would_give(
    server: LocalS3, capfd: pytest.CaptureFixture[str]
) -> None:
    dataset = s3dataset.S3IterableDataset.from_prefix(URI, transform=number)
    chained: Any = torch.utils.data.ChainDataset([dataset])
    counts = seen(loader(chained))
    assert counts == Counter([*range(COUNT)] * 2)
    assert capfd.readouterr().err.count("cannot tell who splits") == 1


def test_said_explicitly_a_wrapped_dataset_splits(server: LocalS3, capfd: pytest.CaptureFixture[str]) -> None:
    dataset = s3dataset.S3IterableDataset.from_prefix(URI, transform=number, enable_sharding=True)
    chained: Any = torch.utils.data.ChainDataset([dataset])
    assert seen(loader(chained)) == Counter(range(COUNT))
    assert "cannot tell" not in capfd.readouterr().err


def test_lists_cut_by_hand_for_each_rank(server: LocalS3, monkeypatch: pytest.MonkeyPatch) -> None:
    uris = [f"{URI}{i:05}" for i in range(COUNT)]
    counts: Counter[int] = Counter()
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        dataset = s3dataset.S3IterableDataset.from_objects(
            uris[rank::3], transform=number, enable_sharding=s3dataset.Split(ranks=False)
        )
        counts += seen(loader(dataset))
    assert counts == Counter(range(COUNT))


def test_subsets_of_a_map_dataset(server: LocalS3) -> None:
    dataset = s3dataset.S3MapDataset.from_prefix(URI, transform=number)
    parts: Any = torch.utils.data.random_split(dataset, [0.5, 0.5])
    counts = seen(loader(parts[0]))
    counts += seen(loader(parts[1]))
    assert counts == Counter(range(COUNT))
