"""What a mixture takes: shards without an index, map datasets, samples that are left out."""

import io
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import s3dataset
from s3dataset.errors import DecodeError
from s3dataset.formats import JSONL
from s3dataset.testing import LocalS3

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process .*multi-threaded:DeprecationWarning"),
]

SHARDS, IN_SHARD, OBJECTS = 8, 12, 40


@pytest.fixture(scope="module")
def manifests() -> Iterator[dict[str, Any]]:
    """96 samples in shards from 0 on, and 40 objects from 1000 on."""
    with LocalS3("bucket") as server:
        for shard in range(SHARDS):
            out = io.BytesIO()
            with JSONL().writer(out) as writer:
                for i in range(IN_SHARD):
                    writer.write({"number": IN_SHARD * shard + i})
                writer.finish()
            server.put("bucket", f"shards/{shard}.jsonl", out.getvalue())
        for i in range(OBJECTS):
            server.put("bucket", f"objects/{i:03}", str(1000 + i).encode())
        shards = s3dataset.Manifest.from_prefix("s3://bucket/shards/")
        objects = s3dataset.Manifest.from_prefix("s3://bucket/objects/")
        yield {"shards": shards, "indexed": shards.index("jsonl"), "objects": objects}


def number(sample: Any) -> int:
    return int(sample["number"] if isinstance(sample, dict) else sample.read())


def no_sevens(sample: Any) -> int:
    n = number(sample)
    if n % 10 == 7:
        raise DecodeError(f"{n} is bad")
    return n


def streamed(manifests: Any, weights: Any = (2, 1), split: Any = None, stop: Any = "first", **options: Any) -> Any:
    make, shuffle = s3dataset.S3IterableDataset.from_manifest, s3dataset.Shuffle(seed=1, streams=4, block_bytes=300)
    options = {"transform": number, "enable_sharding": split, **options}
    shards = make(manifests["shards"], format="jsonl", shuffle=shuffle, **options)
    objects = make(manifests["objects"], shuffle=s3dataset.Shuffle(seed=1), **options)
    return s3dataset.MixedDataset([shards, objects], weights, seed=5, stop=stop)


def loader_of(dataset: Any, workers: int = 0, size: int = 4) -> Any:
    method = "fork" if workers else None
    return s3dataset.DataLoader(dataset, size, num_workers=workers, multiprocessing_context=method)


def batches_of(loader: Any) -> list[list[int]]:
    return [batch.tolist() for batch in loader]


def flat(batches: Any) -> list[int]:
    return [n for batch in batches for n in batch]


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_without_an_index_have_their_share(manifests: Any, workers: int) -> None:
    dataset = streamed(manifests, weights=(1, 4))  # the objects end first
    taken = flat(batches_of(loader_of(dataset, workers)))
    assert max(Counter(taken).values()) == 1
    assert sorted(n for n in taken if n >= 1000) == list(range(1000, 1000 + OBJECTS))
    assert 3 <= sum(n < 1000 for n in taken) <= 20
    dataset = streamed(manifests, weights=(4, 1))  # the shards end first, for each reader by itself
    taken = flat(batches_of(loader_of(dataset, workers)))
    assert max(Counter(taken).values()) == 1
    assert sorted(n for n in taken if n < 1000) == list(range(SHARDS * IN_SHARD))


@pytest.mark.parametrize("workers", [0, 2])
def test_all_goes_on_until_the_shards_were_gone_through(manifests: Any, workers: int) -> None:
    taken = Counter(flat(batches_of(loader_of(streamed(manifests, (3, 1), stop="all"), workers))))
    assert set(taken) == {*range(SHARDS * IN_SHARD), *range(1000, 1000 + OBJECTS)}
    assert sum(taken.values()) < 3 * (SHARDS * IN_SHARD + OBJECTS)


@pytest.mark.parametrize("stop", ["first", "all"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_with_streams_is_exact(manifests: Any, workers: int, stop: Any) -> None:
    def loader() -> Any:
        return loader_of(streamed(manifests, (3, 1), stop=stop), workers)

    whole = batches_of(loader())
    for step in (0, 5, len(whole) - 1):
        first = loader()
        batches = iter(first)
        got = [next(batches).tolist() for _ in range(step)]
        state = json.loads(json.dumps(first.state_dict()))
        del batches
        again = loader()
        again.load_state_dict(state)
        assert got + batches_of(again) == whole
        assert again.state_dict()["epoch"] == 1


def test_a_state_with_streams_fits_other_topologies(manifests: Any) -> None:
    first = loader_of(streamed(manifests, (4, 1)), 2)
    batches = iter(first)
    got = flat(next(batches).tolist() for _ in range(6))
    state = json.loads(json.dumps(first.state_dict()))
    del batches
    again = loader_of(streamed(manifests, (4, 1)), 0)
    again.load_state_dict(state)
    rest = flat(batches_of(again))
    parts: list[int] = []
    for rank in range(2):
        split = s3dataset.Split(rank=rank, world_size=2, tail="exact")
        part = loader_of(streamed(manifests, (4, 1), split), 0)
        part.load_state_dict(state)
        parts += flat(batches_of(part))
    for together in (got + rest, got + parts):
        assert sorted(n for n in together if n < 1000) == list(range(SHARDS * IN_SHARD))
        assert max(Counter(together).values()) == 1


def test_states_of_ranks_are_put_together(manifests: Any) -> None:
    states, got = [], []
    for rank in range(2):
        split = s3dataset.Split(rank=rank, world_size=2, tail="exact")
        loader = loader_of(streamed(manifests, (4, 1), split))
        batches = iter(loader)
        got += flat(next(batches).tolist() for _ in range(3))
        states.append(json.loads(json.dumps(loader.state_dict())))
        del batches
    with pytest.raises(ValueError, match="merge_states"):
        alone = loader_of(streamed(manifests, (4, 1)))
        alone.load_state_dict(states[0])
        batches_of(alone)
    again = loader_of(streamed(manifests, (4, 1)))
    again.load_state_dict(s3dataset.merge_states(states))
    together = got + flat(batches_of(again))
    assert sorted(n for n in together if n < 1000) == list(range(SHARDS * IN_SHARD))


def test_steps_end_an_epoch(manifests: Any) -> None:
    for workers in (0, 2):
        split = s3dataset.Split(rank=0, world_size=2, steps_per_epoch=9)
        assert len(batches_of(loader_of(streamed(manifests, split=split), workers))) == 9


def test_map_datasets_are_gone_through_in_shuffled_epochs(manifests: Any) -> None:
    def mixed() -> Any:
        make = s3dataset.S3MapDataset.from_manifest
        sources = [make(manifests[kind], transform=number) for kind in ("indexed", "objects")]
        return s3dataset.MixedDataset(sources, [1, 1], seed=3, stop="all")

    whole = batches_of(loader_of(mixed()))
    counts = Counter(flat(whole))
    assert set(counts) == {*range(SHARDS * IN_SHARD), *range(1000, 1000 + OBJECTS)}
    objects = [n for n in flat(whole) if n >= 1000]
    assert sorted(objects[:OBJECTS]) == list(range(1000, 1000 + OBJECTS)) != objects[:OBJECTS]
    assert objects[OBJECTS : 2 * OBJECTS] != objects[:OBJECTS]
    assert batches_of(loader_of(mixed(), 2)) == whole
    first = loader_of(mixed(), 2)
    batches = iter(first)
    got = [next(batches).tolist() for _ in range(7)]
    again = loader_of(mixed(), 3)
    again.load_state_dict(json.loads(json.dumps(first.state_dict())))
    del batches
    assert got + batches_of(again) == whole


class Doubled(s3dataset.S3MapDataset[Any]):
    def __getitem__(self, index: Any) -> Any:
        return 2 * super().__getitem__(index)


def test_a_derived_map_dataset_makes_its_samples_itself(manifests: Any) -> None:
    dataset = Doubled.from_manifest(manifests["objects"], transform=number)
    taken = list(s3dataset.MixedDataset([dataset], [1]))
    assert sorted(taken) == [2 * n for n in range(1000, 1000 + OBJECTS)]


@pytest.mark.parametrize("kind", ["indexed", "shards"])
@pytest.mark.parametrize("workers", [0, 2])
def test_bad_samples_are_left_out_or_replaced(manifests: Any, kind: str, workers: int) -> None:
    def mixed(on_error: str) -> Any:
        make = s3dataset.S3IterableDataset.from_manifest
        options: dict[str, Any] = {"transform": no_sevens, "shuffle": s3dataset.Shuffle(seed=1, streams=4)}
        shards = make(manifests[kind], format="jsonl", on_error="skip", **options)
        objects = make(manifests["objects"], on_error=on_error, **options)
        return s3dataset.MixedDataset([shards, objects], [1, 1], seed=5)

    dataset = mixed("skip")
    taken = flat(batches_of(loader_of(dataset, workers)))
    assert sorted(n for n in taken if n >= 1000) == [n for n in range(1000, 1000 + OBJECTS) if n % 10 != 7]
    assert all(n % 10 != 7 for n in taken)
    assert dataset.bad_samples().count >= OBJECTS // 10
    if not workers:
        assert sorted(mixed("skip")) == sorted(taken)
    taken = flat(batches_of(loader_of(mixed("replace"), workers)))
    assert sum(n >= 1000 for n in taken) == OBJECTS
    assert all(n % 10 != 7 for n in taken)


def test_statistics_are_those_of_the_sources(manifests: Any) -> None:
    dataset = streamed(manifests, (1, 1))
    loader = loader_of(dataset, 2)
    taken = flat(batches_of(loader))
    stats = loader.stats()
    assert stats == dataset.stats()
    by_source = [source.stats() for source in dataset.datasets]
    assert stats.samples == sum(one.samples for one in by_source)
    # A sample counts when the next of its source is asked for: all but the last one of each source and worker.
    assert len(taken) - 4 <= stats.samples <= len(taken)
    assert stats.requests == max(one.requests for one in by_source) > 0, "they share a client"
    source = dataset.datasets[1]
    staged = s3dataset.DataLoader(source.filter(bool), 4)
    before = staged.stats()
    assert len(flat(batches_of(staged))) == (staged.stats() - before).samples == OBJECTS
