"""sample_rng: the same numbers for a sample whoever makes it."""

import io
import threading
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

COUNT = 40


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[LocalS3]:
    with LocalS3("bucket") as server:
        for i in range(COUNT):
            server.put("bucket", f"objects/{i:03}", str(i).encode())
        for shard in range(4):
            out = io.BytesIO()
            with JSONL().writer(out) as writer:
                for i in range(10):
                    writer.write({"number": 10 * shard + i})
                writer.finish()
            server.put("bucket", f"shards/{shard}.jsonl", out.getvalue())
        yield server


def drawn(source: Any) -> tuple[int, float]:
    number = source["json"]["number"] if "json" in source else source["number"]
    first = s3dataset.sample_rng().random()
    assert s3dataset.sample_rng().random() != first, "calls for one sample go on"
    return number, first


def drawn_of_object(reader: Any) -> tuple[int, float]:
    return int(reader.read()), s3dataset.sample_rng().random()


@pytest.fixture(params=["objects", "indexed", "unindexed"])
def source(request: pytest.FixtureRequest) -> tuple[Any, dict[str, Any]]:
    if request.param == "objects":
        return s3dataset.Manifest.from_prefix("s3://bucket/objects/"), {"transform": drawn_of_object}
    manifest = s3dataset.Manifest.from_prefix("s3://bucket/shards/")
    if request.param == "indexed":
        return manifest.index("jsonl"), {"transform": drawn}
    return manifest, {"transform": drawn, "format": "jsonl"}


def pairs(batches: Any) -> dict[int, float]:
    found = [(int(n), float(x)) for ns, xs in batches for n, x in zip(ns, xs, strict=True)]
    assert len(found) == len(dict(found)) == COUNT
    return dict(found)


def iterable(source: Any) -> Any:
    manifest, arguments = source
    shuffle = s3dataset.Shuffle(seed=7, streams=4)
    return s3dataset.S3IterableDataset.from_manifest(manifest, shuffle=shuffle, **arguments)


@pytest.mark.parametrize(("method", "workers"), [(None, 0), ("fork", 3), ("spawn", 2)])
def test_a_sample_draws_the_same_in_every_worker_and_others_in_every_epoch(
    source: Any, method: Any, workers: int
) -> None:
    alone = dict(iterable(source))
    assert len(set(alone.values())) == COUNT
    loader = s3dataset.DataLoader(iterable(source), 4, num_workers=workers, multiprocessing_context=method)
    first, second = pairs(loader), pairs(loader)
    assert first == alone
    assert set(first.values()).isdisjoint(second.values())


def test_a_resumed_run_draws_what_the_first_would_have(source: Any) -> None:
    loader = s3dataset.DataLoader(iterable(source), 4)
    whole = pairs(loader)
    loader = s3dataset.DataLoader(iterable(source), 4)
    batches = iter(loader)
    got = [next(batches) for _ in range(3)]
    again = s3dataset.DataLoader(iterable(source), 4, num_workers=2, multiprocessing_context="fork")
    again.load_state_dict(loader.state_dict())
    assert pairs(got + list(again)) == whole


@pytest.mark.parametrize("workers", [0, 2])
def test_map_datasets_draw_by_seed_and_epoch_of_their_loader(source: Any, server: LocalS3, workers: int) -> None:
    manifest, arguments = source
    if "format" in arguments:
        pytest.skip("no random access without an index")
    dataset = s3dataset.S3MapDataset.from_manifest(manifest, **arguments)
    shuffled = s3dataset.DataLoader(dataset, 4, shuffle=True, seed=7, num_workers=workers)
    first, second = pairs(shuffled), pairs(shuffled)
    assert first == dict(iterable(source)), "the same as of an iterable dataset with that seed"
    assert set(first.values()).isdisjoint(second.values())
    sampler = s3dataset.BatchSampler(dataset, 5, shuffle=True, seed=7)
    assert pairs(torch.utils.data.DataLoader(dataset, batch_sampler=sampler)) == first
    bare = dict(dataset[i] for i in range(COUNT))
    assert bare == dict(dataset) == dict(dataset[:])
    assert bare != first


def test_it_belongs_to_a_transform() -> None:
    with pytest.raises(RuntimeError, match="within the transform"):
        s3dataset.sample_rng()
    errors: list[Exception] = []

    def elsewhere() -> None:
        try:
            s3dataset.sample_rng()
        except RuntimeError as error:
            errors.append(error)

    def transform(_: Any) -> int:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        return 0

    dataset = s3dataset.S3MapDataset.from_prefix("s3://bucket/objects/", transform=transform)
    assert dataset[0] == 0
    assert len(errors) == 1


def test_a_transform_that_reads_another_dataset_draws_its_own() -> None:
    other = s3dataset.S3MapDataset.from_prefix("s3://bucket/objects/", transform=drawn_of_object)

    def transform(_: Any) -> tuple[float, float, float]:
        rng = s3dataset.sample_rng()
        before = rng.random()
        _, inner = other[3]
        assert s3dataset.sample_rng() is rng
        return before, inner, rng.random()

    dataset = s3dataset.S3MapDataset.from_prefix("s3://bucket/objects/", transform=transform)
    assert dataset[3][0] == other[3][1]
