"""Runs that stop anywhere and go on with other ranks and workers: each sample once, in the batches of the whole run."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.utils.data
from tests.process.shard_world import COUNTS, batches_of, flat, number, put_shards, split

import s3dataset
from s3dataset import BatchSampler, DataLoader, Manifest, S3IterableDataset, S3MapDataset, Shuffle, merge_states
from s3dataset.testing import LocalS3

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create", "ignore:.*multi-threaded.*fork")

TOTAL = sum(COUNTS)
EVERYTHING = list(range(TOTAL))


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    with LocalS3("bucket") as running:
        put_shards(running, "small/", "tar", COUNTS)
        put_shards(running, "large/", "tar", COUNTS, nbytes=40_000)
        put_shards(running, "frames/", "jsonl", COUNTS, compression="zst")
        put_shards(running, "rows/", "parquet", COUNTS)
        for n in EVERYTHING:
            running.put("bucket", f"objects/{n:04}", str(n).encode())
        yield running


@pytest.fixture(scope="module")
def data(server: LocalS3) -> dict[str, tuple[Manifest, Any]]:
    found: dict[str, tuple[Manifest, Any]] = {}
    for name, kind in (("small", "tar"), ("large", "tar"), ("frames", "jsonl"), ("rows", "parquet")):
        listed = Manifest.from_prefix(f"s3://bucket/{name}/")
        found[name] = listed.index(kind), number
        found[f"{name} unindexed"] = listed, number
    found["objects"] = Manifest.from_prefix("s3://bucket/objects/"), read
    return found


def read(reader: Any) -> int:
    return int(reader.read())


INDEXED = ["small", "large", "frames", "rows", "objects"]
UNINDEXED = ["small unindexed", "frames unindexed", "rows unindexed"]
KIND = {"small": "tar", "large": "tar", "frames": "jsonl", "rows": "parquet", "objects": None}


def loader_of(
    data: Any, name: str, *, rank: int = 0, ranks: int = 1, workers: int = 0, batch: int = 8, **options: Any
) -> DataLoader[Any]:
    manifest, transform = data[name]
    dataset = S3IterableDataset.from_manifest(
        manifest,
        format=KIND[name.partition(" ")[0]],
        transform=transform,
        enable_sharding=split(rank, ranks),
        **options,
    )
    return DataLoader(dataset, batch_size=batch, num_workers=workers)


def interleaved(ranks: list[list[list[int]]]) -> list[list[int]]:
    """The global sequence of what each rank took."""
    return [rank[step] for step in range(max(map(len, ranks), default=0)) for rank in ranks if step < len(rank)]


@pytest.mark.parametrize("name", INDEXED)
@pytest.mark.parametrize("shuffle", [False, True])
def test_any_ranks_go_on_where_others_stopped(data: Any, name: str, shuffle: bool) -> None:
    choose = random.Random(f"{name}{shuffle}")
    for _ in range(12):
        seed, batch, epoch = choose.randrange(100), choose.choice([1, 3, 8, 50]), choose.randrange(3)
        order: Any = (
            Shuffle(seed=seed, streams=12, block_bytes=choose.choice([None, 1000, 10_000])) if shuffle else False
        )
        whole = loader_of(data, name, batch=batch, shuffle=order)
        whole.set_epoch(epoch)
        expected = batches_of(whole)
        assert sorted(flat(expected)) == EVERYTHING
        taken: list[list[int]] = []
        state = None
        while len(taken) < len(expected):
            ranks = choose.choice([1, 1, 2, 3, 4, 5])
            steps = choose.randrange(1 + (len(expected) - len(taken)) // ranks) if choose.random() < 0.7 else None
            by_rank, states = [], []
            for rank in range(ranks):
                loader = loader_of(data, name, rank=rank, ranks=ranks, batch=batch, shuffle=order)
                if state is None:
                    loader.set_epoch(epoch)
                else:
                    loader.load_state_dict(state)
                by_rank.append(batches_of(loader, steps))
                states.append(loader.state_dict())
            taken += interleaved(by_rank)
            if steps is not None and len(taken) < len(expected):
                assert all(one == states[0] for one in states)
                state = json.loads(json.dumps(states[0]))
                assert len(json.dumps(state)) < 4096
        assert taken == expected


@pytest.mark.parametrize("name", ["small", "large", "frames"])
def test_the_batch_size_may_change(data: Any, name: str) -> None:
    choose = random.Random(name)
    for _ in range(10):
        taken: list[int] = []
        state: dict[str, Any] | None = None
        while state is None or state["epoch"] == 0:
            loader = loader_of(data, name, batch=choose.choice([1, 2, 7, 16]), shuffle=Shuffle(seed=3))
            if state is not None:
                loader.load_state_dict(state)
            taken += flat(batches_of(loader, choose.randrange(1, 12)))
            state = loader.state_dict()
        assert sorted(taken) == EVERYTHING


@pytest.mark.parametrize("name", UNINDEXED)
@pytest.mark.parametrize("shuffle", [False, True])
def test_without_an_index_the_states_of_all_readers_make_one(data: Any, name: str, shuffle: bool) -> None:
    choose = random.Random(f"{name}{shuffle}")
    for _ in range(6):
        order: Any = Shuffle(seed=choose.randrange(9), streams=6, open_shards=2, block_bytes=800) if shuffle else False
        taken: list[int] = []
        state = None
        ended = False
        while not ended:
            ranks = choose.choice([1, 2, 3]) if shuffle else choose.randint(1, 3 if state is None else state["streams"])
            steps = choose.choice([1, 3, 7, None])
            states = []
            for rank in range(ranks):
                loader = loader_of(data, name, rank=rank, ranks=ranks, batch=5, shuffle=order)
                if state is not None:
                    loader.load_state_dict(state)
                taken += flat(batches_of(loader, steps))
                states.append(loader.state_dict())
            state = merge_states(states)
            ended = state["epoch"] == 1
        assert sorted(taken) == EVERYTHING


@pytest.mark.parametrize("name", ["small", "large", "objects", "small unindexed"])
@pytest.mark.parametrize("persistent", [False, True])
def test_workers_epochs_and_a_state_in_the_middle(data: Any, name: str, persistent: bool) -> None:
    order = Shuffle(seed=1, streams=6)

    def loader(workers: int) -> DataLoader[Any]:
        manifest, transform = data[name]
        dataset = S3IterableDataset.from_manifest(
            manifest, format=KIND[name.partition(" ")[0]], transform=transform, shuffle=order
        )
        return DataLoader(dataset, batch_size=8, num_workers=workers, persistent_workers=persistent and workers > 0)

    one = loader(2)
    epochs = [batches_of(one) for _ in range(3)]
    assert [sorted(flat(epoch)) for epoch in epochs] == [EVERYTHING] * 3
    assert epochs[0] != epochs[1] != epochs[2]
    one.set_epoch(1)
    assert batches_of(one) == epochs[1]
    other = loader(2)
    other.set_epoch(1)
    before = batches_of(other, 5)
    state = other.state_dict()
    third = loader(2 if "unindexed" in name else 3)
    third.load_state_dict(state)
    after = batches_of(third)
    if "unindexed" in name:
        assert sorted(flat(before + after)) == EVERYTHING
    else:
        assert before + after == epochs[1]
    assert batches_of(third) == epochs[2]


def test_states_before_between_and_behind_epochs(data: Any) -> None:
    loader = loader_of(data, "small", shuffle=True)
    beginning = loader.state_dict()
    epochs = [batches_of(loader), batches_of(loader)]
    loader = loader_of(data, "small", shuffle=True)
    loader.load_state_dict(beginning)
    assert batches_of(loader) == epochs[0]
    between = loader.state_dict()
    assert (between["epoch"], between["batches"]) == (1, 0)
    again = loader_of(data, "small", shuffle=True)
    again.load_state_dict(between)
    again.load_state_dict(between)  # the last one counts
    assert batches_of(again) == epochs[1]


def test_a_state_is_refused_where_it_does_not_belong(data: Any) -> None:
    loader = loader_of(data, "small", shuffle=True)
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    with pytest.raises(RuntimeError, match="going on"):
        loader.load_state_dict(state)
    del batches
    other = loader_of(data, "large", shuffle=True)
    other.load_state_dict(state)
    with pytest.raises(s3dataset.ManifestMismatchError, match="was saved over"):
        next(iter(other))
    with pytest.raises(ValueError, match="state"):
        loader_of(data, "small").load_state_dict({"version": 99})


class TestMapDatasets:
    @pytest.mark.parametrize("name", ["small", "objects"])
    def test_any_ranks_go_on(self, data: Any, name: str) -> None:
        manifest, transform = data[name]
        dataset = S3MapDataset.from_manifest(manifest, transform=transform)

        def loader(rank: int, ranks: int, workers: int = 0) -> DataLoader[Any]:
            return DataLoader(
                dataset, batch_size=8, shuffle=True, seed=5, split=split(rank, ranks), num_workers=workers
            )

        expected = batches_of(loader(0, 1))
        for ranks, workers, steps, later in ((1, 0, 5, 3), (2, 0, 3, 1), (1, 2, 7, 2), (3, 0, 2, 4)):
            first = [loader(rank, ranks, workers) for rank in range(ranks)]
            taken = interleaved([batches_of(one, steps) for one in first])
            states = [one.state_dict() for one in first]
            assert all(state == states[0] for state in states)
            second = [loader(rank, later) for rank in range(later)]
            for one in second:
                one.load_state_dict(states[0])
            assert taken + interleaved([batches_of(one) for one in second]) == expected

    def test_a_sampler_by_itself(self, data: Any) -> None:
        sampler = BatchSampler(data["small"][0].num_samples, 8, seed=2)
        whole = list(sampler)
        sampler.set_epoch(0)
        batches = iter(sampler)
        taken = [next(batches) for _ in range(4)]
        state = sampler.state_dict()
        other = BatchSampler(data["small"][0].num_samples, 8, seed=2)
        other.load_state_dict(state)
        assert taken + list(other) == whole
        assert BatchSampler(100, 8, num_workers=2).state_dict()["batches"] == 0
        ahead = BatchSampler(100, 8, num_workers=2)
        next(iter(ahead))
        with pytest.raises(ValueError, match="batches_consumed"):
            ahead.state_dict()
        assert ahead.state_dict(batches_consumed=3)["batches"] == 3


class TestOtherLoaders:
    def dataset(self, data: Any, name: str = "small", **options: Any) -> S3IterableDataset[int]:
        manifest, transform = data[name]
        return S3IterableDataset.from_manifest(
            manifest,
            format=KIND[name.partition(" ")[0]],
            transform=transform,
            shuffle=Shuffle(seed=4, streams=6),
            **options,
        )

    def test_pytorchs_with_the_number_of_batches(self, data: Any) -> None:
        whole = batches_of(DataLoader(self.dataset(data), batch_size=8))
        dataset = self.dataset(data, batch_size=8)
        taken = batches_of(torch.utils.data.DataLoader(dataset, batch_size=8, num_workers=2), 6)
        with pytest.raises(ValueError, match="StatefulDataLoader"):
            dataset.state_dict()
        state = dataset.state_dict(batches_consumed=6)
        other = self.dataset(data, batch_size=8)
        other.load_state_dict(state)
        rest = batches_of(torch.utils.data.DataLoader(other, batch_size=8, num_workers=3))
        assert taken + rest == whole
        with pytest.raises(ValueError, match="give the dataset batch_size="):
            self.dataset(data).state_dict(batches_consumed=1)

    def test_epochs_count_on_under_pytorchs(self, data: Any) -> None:
        ours = DataLoader(self.dataset(data), batch_size=8)
        expected = [batches_of(ours) for _ in range(3)]
        dataset = self.dataset(data, batch_size=8)
        theirs = torch.utils.data.DataLoader(dataset, batch_size=8, num_workers=2)
        assert [batches_of(theirs) for _ in range(3)] == expected
        dataset.set_epoch(1)
        assert batches_of(theirs) == expected[1]

    def test_a_bare_loop(self, data: Any) -> None:
        whole = list(self.dataset(data))
        dataset = self.dataset(data)
        samples = iter(dataset)
        taken = [next(samples) for _ in range(37)]
        with pytest.raises(RuntimeError, match="going on"):
            dataset.load_state_dict(dataset.state_dict())
        state = dataset.state_dict()
        other = self.dataset(data)
        other.load_state_dict(state)
        assert taken + list(other) == whole
        assert other.state_dict()["epoch"] == 1

    @pytest.mark.filterwarnings("ignore:.* is deprecated")
    @pytest.mark.parametrize("name", ["small", "small unindexed"])
    @pytest.mark.parametrize("workers", [0, 2])
    def test_stateful_data_loader(self, data: Any, name: str, workers: int) -> None:
        stateful = pytest.importorskip("torchdata.stateful_dataloader")

        def loader() -> Any:
            dataset = self.dataset(data, name, batch_size=8)
            return stateful.StatefulDataLoader(dataset, batch_size=8, num_workers=workers)

        first = loader()
        taken = batches_of(first, 5)
        state = first.state_dict()
        second = loader()
        second.load_state_dict(state)
        assert sorted(flat(taken + batches_of(second))) == EVERYTHING
        elastic = s3dataset.resume_state(state)
        ours = DataLoader(self.dataset(data, name), batch_size=8, num_workers=1)
        ours.load_state_dict(elastic)
        assert sorted(flat(taken + batches_of(ours))) == EVERYTHING


PROGRAM = """
import json, os, sys, time
import s3dataset
from tests.process.shard_world import number
uri, kind, place, workers = sys.argv[1:]
if __name__ == "__main__":
    manifest = s3dataset.Manifest.from_prefix(uri)
    if kind == "indexed":
        manifest = manifest.index("tar")
    dataset = s3dataset.S3IterableDataset.from_manifest(
        manifest, format="tar", transform=number, shuffle=s3dataset.Shuffle(seed=8, streams=6)
    )
    loader = s3dataset.DataLoader(dataset, batch_size=4, num_workers=int(workers))
    done = []
    if os.path.exists(place):
        saved = json.load(open(place))
        done = saved["done"]
        loader.load_state_dict(saved["state"])
    for batch in loader:
        done += [int(n) for n in batch]
        with open(place + ".new", "w") as file:
            json.dump({"done": done, "state": loader.state_dict()}, file)
        os.replace(place + ".new", place)
        print(len(done), flush=True)
        time.sleep(0.05)  # so that it is killed before it ends
"""


@pytest.mark.parametrize("kind", ["indexed", "unindexed"])
def test_killed_in_the_middle_it_goes_on(server: LocalS3, tmp_path: Path, kind: str) -> None:
    place = tmp_path / "state.json"
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": f"{root}/src:{root}", "PYTHONWARNINGS": "ignore"}
    for workers, kill in ((2, True), (2 if kind == "unindexed" else 0, True), (2 if kind == "unindexed" else 3, False)):
        command = [sys.executable, "-c", PROGRAM, "s3://bucket/small/", kind, str(place), str(workers)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        if kill:
            for _ in range(6):
                process.stdout.readline()
            time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert kill or process.returncode == 0
    assert sorted(json.loads(place.read_text())["done"]) == EVERYTHING


def test_model_and_data_come_back_together(data: Any, server: LocalS3) -> None:
    import torch

    with s3dataset.CheckpointManager("s3://bucket/run") as manager:
        loader = loader_of(data, "small", shuffle=True)
        taken = []
        for step, batch in enumerate(loader):
            taken += batch.tolist()
            if step == 5:
                manager.save(step, {"weight": torch.full((3,), 5.0)}, metadata={"data": loader.state_dict()})
                break
    with s3dataset.CheckpointManager("s3://bucket/run") as manager:
        restored = manager.restore()
    assert restored.state["weight"].tolist() == [5.0] * 3
    loader = loader_of(data, "small", shuffle=True)
    loader.load_state_dict(restored.metadata["data"])
    assert sorted(taken + flat(batches_of(loader))) == EVERYTHING
