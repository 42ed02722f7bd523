"""MixedDataset: shares, one sequence for every topology, going on anywhere."""

import io
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch.utils.data

import s3dataset
from s3dataset.formats import JSONL
from s3dataset.testing import LocalS3

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process .*multi-threaded:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def manifests() -> Iterator[tuple[Any, Any, Any]]:
    """90 samples of indexed shards from 0 on, and 30 objects from 1000 on."""
    with LocalS3("bucket") as server:
        for shard in range(9):
            out = io.BytesIO()
            with JSONL().writer(out) as writer:
                for i in range(10):
                    writer.write({"number": 10 * shard + i})
                writer.finish()
            server.put("bucket", f"shards/{shard}.jsonl", out.getvalue())
        for i in range(30):
            server.put("bucket", f"objects/{i:03}", str(1000 + i).encode())
        shards = s3dataset.Manifest.from_prefix("s3://bucket/shards/")
        yield shards.index("jsonl"), s3dataset.Manifest.from_prefix("s3://bucket/objects/"), shards


def number(sample: Any) -> int:
    return int(sample["number"])


def number_of_object(reader: Any) -> int:
    return int(reader.read())


def mixed(manifests: Any, weights: Any = (2, 1), split: Any = None, **options: Any) -> Any:
    make, shuffle = s3dataset.S3IterableDataset.from_manifest, s3dataset.Shuffle(seed=1)
    shards = make(manifests[0], transform=number, shuffle=shuffle, enable_sharding=split)
    objects = make(manifests[1], transform=number_of_object, shuffle=shuffle, enable_sharding=split)
    return s3dataset.MixedDataset([shards, objects], weights, seed=5, **options)


def batches_of(loader: Any) -> list[list[int]]:
    return [batch.tolist() for batch in loader]


def test_first_ends_before_a_dataset_would_begin_again(manifests: Any) -> None:
    dataset = mixed(manifests)
    taken = list(dataset)
    assert max(Counter(taken).values()) == 1
    objects = [n for n in taken if n >= 1000]
    assert sorted(objects) == list(range(1000, 1030))
    assert 50 <= len(taken) - len(objects) <= 75
    assert list(dataset) != taken


def test_all_ends_when_every_dataset_did(manifests: Any) -> None:
    taken = list(mixed(manifests, stop="all"))
    counts = Counter(taken)
    assert set(counts) == {*range(90), *range(1000, 1030)}
    assert all(counts[n] == 1 for n in range(90))
    assert {counts[n] for n in range(1000, 1030)} <= {1, 2}


@pytest.mark.parametrize("stop", ["first", "all"])
def test_the_sequence_is_the_same_for_every_topology(manifests: Any, stop: Any) -> None:
    whole = batches_of(s3dataset.DataLoader(mixed(manifests, stop=stop), 4))
    for world, method, workers in [(1, "fork", 3), (1, "spawn", 2), (2, "fork", 2), (3, None, 0)]:
        ranks = [
            batches_of(
                s3dataset.DataLoader(
                    mixed(manifests, split=s3dataset.Split(rank=rank, world_size=world), stop=stop),
                    4,
                    num_workers=workers,
                    multiprocessing_context=method,
                )
            )
            for rank in range(world)
        ]
        assert len({len(rank) for rank in ranks}) == 1
        together = [batch for step in zip(*ranks, strict=True) for batch in step]
        same = min(len(together), len(whole) - 1)
        assert together[:same] == whole[:same]
        assert len(together) - len(whole) in range(-world, world + 1)


@pytest.mark.parametrize("stop", ["first", "all"])
def test_a_run_goes_on_with_other_workers_and_ranks(manifests: Any, stop: Any) -> None:
    whole = batches_of(s3dataset.DataLoader(mixed(manifests, stop=stop), 4))
    for step in (0, 1, 5, len(whole) - 2):
        loader = s3dataset.DataLoader(mixed(manifests, stop=stop), 4, num_workers=2, multiprocessing_context="fork")
        batches = iter(loader)
        got = [next(batches).tolist() for _ in range(step)]
        state = json.loads(json.dumps(loader.state_dict()))
        del batches
        again = s3dataset.DataLoader(mixed(manifests, stop=stop), 4, num_workers=3, multiprocessing_context="fork")
        again.load_state_dict(state)
        assert got + batches_of(again) == whole
        assert again.state_dict()["epoch"] == 1
        ranks = []
        for rank in range(2):
            split = s3dataset.Split(rank=rank, world_size=2)
            part = s3dataset.DataLoader(mixed(manifests, split=split, stop=stop), 4)
            part.load_state_dict(state)
            ranks.append(batches_of(part))
        together = got + [batch for pair in zip(*ranks, strict=True) for batch in pair]
        same = min(len(together), len(whole) - 1)
        assert together[:same] == whole[:same]


def test_a_dataset_by_itself_goes_on_in_mid_batch(manifests: Any) -> None:
    whole = list(mixed(manifests))
    for stop in (0, 7, 50, len(whole)):
        first = mixed(manifests)
        samples = iter(first)
        got = [next(samples) for _ in range(stop)]
        again = mixed(manifests)
        again.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert got + list(again) == whole


def test_weights_change_where_a_run_goes_on(manifests: Any) -> None:
    loader = s3dataset.DataLoader(mixed(manifests), 4)
    batches = iter(loader)
    got = [n for _ in range(5) for n in next(batches).tolist()]
    again = s3dataset.DataLoader(mixed(manifests, weights=(1, 0)), 4)
    again.load_state_dict(loader.state_dict())
    rest = [n for batch in again for n in batch.tolist()]
    assert all(n < 1000 for n in rest)
    assert sorted(n for n in got + rest if n < 1000) == list(range(90))


def test_torchs_loader_splits_it_too(manifests: Any) -> None:
    loader = torch.utils.data.DataLoader(mixed(manifests), 1, num_workers=2, multiprocessing_context="fork")
    assert [int(n) for batch in loader for n in batch] == list(mixed(manifests))


def test_mistakes_teach(manifests: Any) -> None:
    plain = s3dataset.S3IterableDataset.from_manifest(manifests[2], format="jsonl")
    with pytest.raises(TypeError, match="put the stages behind"):
        s3dataset.MixedDataset([plain.filter(number)], [1])  # type: ignore[list-item]
    many = s3dataset.Split(rank=11, world_size=12)
    lonely = s3dataset.S3IterableDataset.from_manifest(manifests[2], format="jsonl", enable_sharding=many)
    with pytest.raises(ValueError, match="none of them to mix in"):
        list(s3dataset.MixedDataset([lonely], [1]))
    with pytest.raises(ValueError, match="2 weights"):
        s3dataset.MixedDataset([plain], [1, 2])
    with pytest.raises(TypeError, match="got a list"):
        s3dataset.MixedDataset([[]], [1])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="kind"):
        mixed(manifests).load_state_dict({"kind": "indexed"})
