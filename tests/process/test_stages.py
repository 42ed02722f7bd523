"""Stages behind an iterable dataset: what comes through, and going on in the middle."""

import io
import json
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch.utils.data

import s3dataset
from s3dataset.formats import JSONL
from s3dataset.testing import LocalS3

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process .*multi-threaded:DeprecationWarning"),
]

COUNT = 60


@pytest.fixture(scope="module")
def manifests() -> Iterator[dict[str, Any]]:
    with LocalS3("bucket") as server:
        for shard in range(6):
            out = io.BytesIO()
            with JSONL().writer(out) as writer:
                for i in range(10):
                    writer.write({"number": 10 * shard + i})
                writer.finish()
            server.put("bucket", f"shards/{shard}.jsonl", out.getvalue())
        manifest = s3dataset.Manifest.from_prefix("s3://bucket/shards/")
        yield {"unindexed": manifest, "indexed": manifest.index("jsonl")}


def number(sample: Any) -> int:
    return int(sample["number"])


def not_fifths(n: int) -> bool:
    return n % 5 != 0


def repeated(n: int) -> Iterator[int]:
    """None to three of a number."""
    yield from [100 * n + i for i in range(n % 4)]


def tokens(n: int) -> list[int]:
    return [n] * (n % 7)


def source(manifests: Any, kind: str, **options: Any) -> Any:
    options = {"shuffle": s3dataset.Shuffle(seed=3, streams=6), "transform": number, "format": "jsonl", **options}
    return s3dataset.S3IterableDataset.from_manifest(manifests[kind], **options)


def staged(manifests: Any, kind: str, packed: bool, **options: Any) -> Any:
    dataset = source(manifests, kind, **options).filter(not_fifths)
    if packed:
        return dataset.flat_map(sequences).pack_sequences(8)
    return dataset.flat_map(repeated)


def sequences(n: int) -> list[list[int]]:
    return [tokens(n), tokens(n + 1)]


def flat(items: Any) -> list[int]:
    return [int(x) for item in items for x in (item if isinstance(item, list) else [item])]


EXPECTED = {
    False: sorted(x for n in range(COUNT) if n % 5 for x in repeated(n)),
    True: sorted(x for n in range(COUNT) if n % 5 for x in tokens(n) + tokens(n + 1)),
}
KINDS = ["indexed", "unindexed"]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_at_any_place_is_exact(manifests: Any, kind: str, packed: bool) -> None:
    whole = list(staged(manifests, kind, packed))
    assert sorted(flat(whole)) == EXPECTED[packed]
    if packed:
        assert all(len(chunk) == 8 for chunk in whole[:-1])
    for stop in range(0, len(whole), 3):
        first = staged(manifests, kind, packed)
        samples = iter(first)
        got = [next(samples) for _ in range(stop)]
        state = json.loads(json.dumps(first.state_dict()))
        again = staged(manifests, kind, packed)
        again.load_state_dict(state)
        assert again.state_dict() == state
        rest = list(again)
        assert got + rest == whole
        assert list(again) != whole, "the next epoch follows"
    assert again.state_dict()["epoch"] == 2


def as_they_are(batch: Any) -> Any:
    return batch


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("kind", "method", "workers"),
    [("indexed", "fork", 3), ("unindexed", "fork", 2), ("indexed", "spawn", 2), ("indexed", None, 0)],
)
def test_loader_goes_on_batch_by_batch(manifests: Any, kind: str, method: Any, workers: int, packed: bool) -> None:
    def loader() -> Any:
        return s3dataset.DataLoader(
            staged(manifests, kind, packed),
            3,
            num_workers=workers,
            multiprocessing_context=method,
            collate_fn=as_they_are,
        )

    whole = list(loader())
    assert sorted(x for batch in whole for x in flat(batch)) == EXPECTED[packed]
    for stop in (0, 2, len(whole) // 2, len(whole) - 1) if method != "spawn" else (3,):
        first = loader()
        batches = iter(first)
        got = [next(batches) for _ in range(stop)]
        state = json.loads(json.dumps(first.state_dict()))
        del batches
        again = loader()
        again.load_state_dict(state)
        rest = list(again)
        assert got + rest == whole
        assert again.state_dict()["epoch"] == 1
    if workers:
        other = s3dataset.DataLoader(staged(manifests, kind, packed), 3, collate_fn=as_they_are)
        other.load_state_dict(state)
        with pytest.raises(ValueError, match="same topology"):
            next(iter(other))


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_and_torchs_loader_share_the_source(manifests: Any, kind: str) -> None:
    parts = []
    for rank in range(2):
        split = s3dataset.Split(rank=rank, world_size=2, tail="exact")
        dataset = staged(manifests, kind, False, enable_sharding=split)
        loader = torch.utils.data.DataLoader(dataset, 4, num_workers=2, multiprocessing_context="fork")
        parts += [int(x) for batch in loader for x in batch]
    assert sorted(parts) == EXPECTED[False]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_the_batches_that_come_out(manifests: Any, kind: str, workers: int, packed: bool) -> None:
    def loader() -> Any:
        split = s3dataset.Split(rank=1, world_size=2, steps_per_epoch=17)
        dataset = staged(manifests, kind, packed, enable_sharding=split)
        method = "fork" if workers else None
        return s3dataset.DataLoader(
            dataset, 4, num_workers=workers, multiprocessing_context=method, collate_fn=as_they_are
        )

    whole = list(loader())
    assert [len(batch) for batch in whole] == [4] * 17
    first = loader()
    batches = iter(first)
    got = [next(batches) for _ in range(7)]
    state = json.loads(json.dumps(first.state_dict()))
    del batches
    again = loader()
    again.load_state_dict(state)
    assert got + list(again) == whole


@pytest.mark.parametrize("kind", KINDS)
def test_steps_that_nothing_comes_of_end(manifests: Any, kind: str) -> None:
    split = s3dataset.Split(rank=0, world_size=1, steps_per_epoch=3)
    dataset = source(manifests, kind, enable_sharding=split, batch_size=4).filter(lambda n: n > 1000)
    with pytest.raises(ValueError, match="nothing came through"):
        next(iter(dataset))
    assert len(list(dataset._source)) == 12, "the source by itself gives as many as before"


@pytest.mark.parametrize("kind", KINDS)
def test_functions_draw_the_numbers_of_their_sample(manifests: Any, kind: str) -> None:
    def drawn(n: int) -> Iterator[tuple[int, float]]:
        yield n, s3dataset.sample_rng().random()
        yield n, s3dataset.sample_rng().random()

    def some(n: int) -> bool:
        return bool(s3dataset.sample_rng().random() < 0.7)

    whole = list(source(manifests, kind).filter(some).flat_map(drawn))
    numbers = [number for number, _ in whole]
    assert 2 * COUNT * 0.4 < len(whole) < 2 * COUNT
    assert len({value for _, value in whole}) == len(whole)
    loader = s3dataset.DataLoader(
        source(manifests, kind).filter(some).flat_map(drawn), 5, num_workers=2, multiprocessing_context="fork",
        collate_fn=as_they_are,
    )  # fmt: skip
    assert sorted(pair for batch in loader for pair in batch) == sorted(whole)
    first = source(manifests, kind).filter(some).flat_map(drawn)
    samples = iter(first)
    got = [next(samples) for _ in range(7)]
    again = source(manifests, kind).filter(some).flat_map(drawn)
    again.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert got + list(again) == whole
    assert numbers == [number for number, _ in whole]
    with pytest.raises(RuntimeError, match="flat_map"):
        s3dataset.sample_rng()


def test_what_is_packed_keeps_its_kind(manifests: Any) -> None:
    def arrays(n: int) -> Any:
        return {"ids": np.array(tokens(n), np.int32)}

    def tensors(n: int) -> Any:
        return torch.tensor(tokens(n), dtype=torch.int16)

    plain = source(manifests, "indexed", transform=number)
    array = list(plain.flat_map(lambda n: [arrays(n)]).pack_sequences(10, key="ids", tail="drop"))
    tensor = list(plain.flat_map(lambda n: [tensors(n)]).pack_sequences(10))
    assert {chunk.dtype for chunk in array} == {np.dtype(np.int32)}
    assert {chunk.dtype for chunk in tensor} == {torch.int16}
    total = sum(n % 7 for n in range(COUNT))
    assert len(array) == total // 10
    assert sum(map(len, tensor)) == total


def test_mistakes_teach(manifests: Any) -> None:
    plain = source(manifests, "indexed")
    with pytest.raises(TypeError, match="known only when"):
        len(plain.filter(not_fifths))
    with pytest.raises(ValueError, match="last stage"):
        plain.pack_sequences(4).filter(not_fifths)
    with pytest.raises(ValueError, match="at least 1"):
        plain.pack_sequences(0)
    with pytest.raises(TypeError, match="key="):
        list(plain.pack_sequences(4))
    with pytest.raises(pickle.PicklingError, match="filter="):
        pickle.dumps(plain.filter(lambda n: n))
    padded = source(manifests, "indexed", enable_sharding=s3dataset.Split(rank=0, world_size=2))
    with pytest.raises(ValueError, match='tail="exact"'):
        iter(padded.filter(not_fifths))
    with pytest.raises(ValueError, match="kind"):
        plain.filter(not_fifths).load_state_dict(plain.state_dict())
