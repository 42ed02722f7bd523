"""Datasets under PyTorch's DataLoader and ours, with workers of every kind."""

import gc
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch.utils.data

import s3dataset
from s3dataset.errors import ObjectNotFoundError
from s3dataset.testing import LocalS3
from s3dataset.transforms import LabelFromKey, Pair

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process .*multi-threaded:DeprecationWarning"),
]

BUCKET = "bucket"
COUNT = 60
URI = f"s3://{BUCKET}/images/"


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    """60 objects "images/<label>/<number>" that hold their number, as often as it says."""
    with LocalS3(BUCKET) as server:
        for i in range(COUNT):
            server.put(BUCKET, f"images/{i % 3}/{i:03}", f"{i:03}".encode() * (i + 1))
        server.put(BUCKET, "large/1", bytes(range(256)) * (80 << 10))
        yield server


@pytest.fixture(autouse=True)
def fresh_counters(server: LocalS3) -> None:
    server.reset_stats()


def number(reader: s3dataset.S3Reader) -> int:
    data = reader.read()
    assert len(data) == 3 * (int(data[:3]) + 1)
    return int(data[:3])


def in_key_order() -> list[int]:
    return sorted(range(COUNT), key=lambda i: (i % 3, i))


def numbers(batches: Any) -> list[int]:
    return [int(i) for batch in batches for i in batch]


def gets(server: LocalS3) -> int:
    return server.stats()["operations"].get("GetObject", 0)


def lists(server: LocalS3) -> int:
    return server.stats()["operations"].get("ListObjectsV2", 0)


LOADERS: Any = [torch.utils.data.DataLoader, s3dataset.DataLoader]
WORKERS = [("fork", n) for n in range(5)] + [("spawn", 2), ("forkserver", 2)]


def options(method: str, num_workers: int) -> dict[str, Any]:
    return {"num_workers": num_workers, "multiprocessing_context": method if num_workers else None}


@pytest.mark.parametrize(("method", "num_workers"), WORKERS)
@pytest.mark.parametrize("loader", LOADERS, ids=["torch", "ours"])
def test_a_map_dataset_gives_every_sample_once(server: LocalS3, loader: Any, method: str, num_workers: int) -> None:
    dataset = s3dataset.S3MapDataset.from_prefix(URI, transform=number)
    in_order = loader(dataset, batch_size=7, **options(method, num_workers))
    assert numbers(in_order) == in_key_order()
    assert (lists(server), gets(server)) == (1, COUNT)
    shuffled = loader(dataset, batch_size=7, shuffle=True, **options(method, num_workers))
    if method == "fork":
        seen = numbers(shuffled)
        assert seen != in_key_order()
        assert Counter(seen) == Counter(range(COUNT))
        assert (lists(server), gets(server)) == (1, 2 * COUNT)
    assert len(in_order) == len(shuffled) == 9


@pytest.mark.parametrize(("method", "num_workers"), WORKERS)
@pytest.mark.parametrize("loader", LOADERS, ids=["torch", "ours"])
def test_an_iterable_dataset_gives_every_sample_once(
    server: LocalS3, loader: Any, method: str, num_workers: int
) -> None:
    dataset = s3dataset.S3IterableDataset.from_prefix(URI, transform=number)
    seen = numbers(loader(dataset, batch_size=7, **options(method, num_workers)))
    assert Counter(seen) == Counter(range(COUNT))
    assert (lists(server), gets(server)) == (1, COUNT)
    if loader is s3dataset.DataLoader or num_workers < 2:
        assert seen == in_key_order()
    assert dataset.stats().samples == COUNT


class Labelled(s3dataset.S3MapDataset[int]):
    """As programs derive one: a sample of their own around the base's."""

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(index), -index


@pytest.mark.parametrize(("method", "num_workers"), [("fork", 0), ("fork", 2), ("spawn", 1)])
@pytest.mark.parametrize("loader", LOADERS, ids=["torch", "ours"])
def test_what_a_derived_class_makes_is_what_a_loader_gives(
    server: LocalS3, loader: Any, method: str, num_workers: int
) -> None:
    dataset = Labelled.from_prefix(URI, transform=number)
    expected = [(value, -index) for index, value in enumerate(in_key_order())]

    def samples(data: Any) -> list[tuple[int, int]]:
        batches = loader(data, batch_size=7, **options(method, num_workers))
        return [(int(a), int(b)) for values, labels in batches for a, b in zip(values, labels, strict=True)]

    assert samples(dataset) == expected
    assert samples(torch.utils.data.Subset(dataset, [5, 3, 8])) == [expected[i] for i in (5, 3, 8)]  # type: ignore[arg-type]
    assert list(dataset) == dataset.__getitems__(range(COUNT)) == expected


def test_a_derived_class_may_ask_the_base_for_a_slice(server: LocalS3) -> None:
    class Pairs(s3dataset.S3MapDataset[int]):
        def __getitem__(self, index: Any) -> Any:
            return super().__getitem__(slice(2 * index, 2 * index + 2))

        def __len__(self) -> int:
            return super().__len__() // 2

    dataset = Pairs.from_prefix(URI, transform=number)
    assert numbers(dataset) == in_key_order()
    assert numbers(s3dataset.DataLoader(dataset, batch_size=None)) == in_key_order()


def test_with_its_batch_size_pytorchs_loader_keeps_the_listings_order(server: LocalS3) -> None:
    dataset = s3dataset.S3IterableDataset.from_prefix(URI, transform=number, batch_size=7)
    loader: Any = torch.utils.data.DataLoader(dataset, batch_size=7, num_workers=3)
    assert numbers(loader) == in_key_order()


def test_without_sharding_every_worker_sees_everything(server: LocalS3) -> None:
    dataset = s3dataset.S3IterableDataset.from_prefix(URI, transform=number, enable_sharding=False)
    loader = s3dataset.DataLoader(dataset, batch_size=10, num_workers=2)
    assert Counter(numbers(loader)) == Counter(list(range(COUNT)) * 2)
    assert len(loader) == 12


@pytest.mark.parametrize("loader", LOADERS, ids=["torch", "ours"])
def test_persistent_workers_list_once_and_read_each_epoch_anew(server: LocalS3, loader: Any) -> None:
    dataset = s3dataset.S3MapDataset.from_prefix(URI, transform=number)
    batches = loader(dataset, batch_size=8, shuffle=True, num_workers=2, persistent_workers=True)
    epochs = [numbers(batches) for _ in range(4)]
    assert all(Counter(epoch) == Counter(range(COUNT)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 4
    assert (lists(server), gets(server)) == (1, 4 * COUNT)
    stats = dataset.stats()
    assert (stats.samples, stats.bytes) == (4 * COUNT, 4 * sum(3 * (i + 1) for i in range(COUNT)))
    assert stats.requests >= 4 * COUNT
    if loader is s3dataset.DataLoader:
        batches.set_epoch(1)
        assert numbers(batches) == epochs[1]
        assert batches.stats().samples == 5 * COUNT


def test_an_epoch_that_is_left_early_costs_a_window_and_the_next_one_is_whole(server: LocalS3) -> None:
    for kind in (s3dataset.S3MapDataset, s3dataset.S3IterableDataset):
        dataset: Any = kind.from_prefix(URI, transform=number)
        loader = s3dataset.DataLoader(dataset, batch_size=2, num_workers=2, persistent_workers=True)
        next(iter(loader))
        assert numbers(loader) == in_key_order()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_readers_cross_to_the_main_process_with_what_was_fetched(server: LocalS3, method: str) -> None:
    dataset = s3dataset.S3MapDataset.from_prefix(URI)
    loader: Any = torch.utils.data.DataLoader(dataset, batch_size=4, num_workers=2, multiprocessing_context=method)
    batches = list(loader)
    assert gets(server) == COUNT
    assert all(isinstance(batch, list) and isinstance(batch[0], s3dataset.S3Reader) for batch in batches)
    assert [number(reader) for batch in batches for reader in batch] == in_key_order()
    assert gets(server) == COUNT
    assert repr(batches[0][1]) == f"<SequentialS3Reader s3://{BUCKET}/images/0/003 (12 bytes)>"


def test_readers_of_an_iterable_dataset_cross_too(server: LocalS3) -> None:
    dataset = s3dataset.S3IterableDataset.from_prefix(URI)
    loader: Any = torch.utils.data.DataLoader(dataset, batch_size=4, num_workers=2)
    batches = list(loader)
    assert Counter(number(reader) for batch in batches for reader in batch) == Counter(range(COUNT))
    assert gets(server) == COUNT


def test_a_large_reader_crosses_by_reference(server: LocalS3) -> None:
    dataset = s3dataset.S3MapDataset.from_objects(f"s3://{BUCKET}/large/1")
    loader: Any = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=1)
    (reader,) = loader
    assert len(pickle.dumps(reader)) < 9 << 20
    assert reader.read() == server.get(BUCKET, "large/1")


def test_a_reader_beside_a_label_is_collated(server: LocalS3) -> None:
    dataset = s3dataset.S3MapDataset.from_prefix(
        URI, transform=Pair(lambda r: r, LabelFromKey(classes=["0", "1", "2"]))
    )
    loader: Any = torch.utils.data.DataLoader(dataset, batch_size=COUNT, num_workers=1)
    ((readers, labels),) = loader
    assert labels.tolist() == [i % 3 for i in in_key_order()]
    assert [number(reader) for reader in readers] == in_key_order()


def test_the_getting_started_statements(server: LocalS3, capsys: pytest.CaptureFixture[str]) -> None:
    server.create_bucket("s3torchconnector-demo")
    for i in range(6):
        server.put("s3torchconnector-demo", f"images/{i}.png", b"png" * i)
    dataset = s3dataset.S3MapDataset.from_prefix("s3://s3torchconnector-demo/images/", region="us-west-2")
    dataset[0]
    for object in dataset:  # noqa: A001 - the documentation's own words
        print(object)  # noqa: T201 - likewise
    loader: Any = torch.utils.data.DataLoader(dataset, batch_size=2)
    assert [[reader.key for reader in batch] for batch in loader][2] == ["images/4.png", "images/5.png"]
    loader = torch.utils.data.DataLoader(dataset, batch_size=4, num_workers=4)
    assert [reader.read() for batch in loader for reader in batch] == [b"png" * i for i in range(6)]
    printed = capsys.readouterr().out.splitlines()
    assert printed[2] == "<SequentialS3Reader s3://s3torchconnector-demo/images/2.png (6 bytes)>"


@pytest.mark.parametrize("make", ["objects", "manifest", "large manifest"])
def test_spawned_workers_map_what_was_given(server: LocalS3, make: str) -> None:
    uris = [f"{URI}{i % 3}/{i:03}" for i in in_key_order()]
    if make == "objects":
        dataset: Any = s3dataset.S3MapDataset.from_objects(uris, transform=number)
    else:
        padding = 100_000 if make == "large manifest" else 0
        manifest = s3dataset.Manifest.from_objects([*uris, *(f"s3://{BUCKET}/none/{i}" for i in range(padding))])
        dataset = s3dataset.S3MapDataset.from_manifest(manifest, transform=number)
    loader: Any = torch.utils.data.DataLoader(
        dataset, batch_size=7, sampler=range(COUNT), num_workers=1, multiprocessing_context="spawn"
    )
    assert numbers(loader) == in_key_order()
    assert lists(server) == 0


# -- What goes wrong


def broken(reader: s3dataset.S3Reader) -> int:
    if number(reader) == 31:
        raise LookupError("no such label")
    return 0


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("kind", [s3dataset.S3MapDataset, s3dataset.S3IterableDataset])
def test_a_transform_that_raises_reaches_the_user_with_the_uri(server: LocalS3, kind: Any, num_workers: int) -> None:
    loader: Any = torch.utils.data.DataLoader(kind.from_prefix(URI, transform=broken), num_workers=num_workers)
    with pytest.raises(LookupError) as caught:
        list(loader)
    told = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())])
    assert "no such label" in told
    assert f"s3://{BUCKET}/images/1/031" in told


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_missing_object_is_named_across_processes(server: LocalS3, num_workers: int) -> None:
    uris = [f"{URI}0/000", f"s3://{BUCKET}/gone"]
    dataset = s3dataset.S3MapDataset.from_objects(uris, transform=number)
    with pytest.raises(ObjectNotFoundError, match=f"s3://{BUCKET}/gone"):
        list(s3dataset.DataLoader(dataset, num_workers=num_workers))


KILL = """
import os, signal, time
import s3dataset

def slow(reader):
    time.sleep(0.01)
    return int(reader.read()[:3])

dataset = s3dataset.S3MapDataset.from_prefix("{uri}", transform=slow)
batches = iter(s3dataset.DataLoader(dataset, batch_size=1, num_workers=2, collate_fn=list))
next(batches)
try:
    os.kill(batches._workers[1].pid, signal.SIGKILL)
    list(batches)
except RuntimeError as error:
    print(error, flush=True)
os._exit(0)  # PyTorch's signal handler raises wherever the program happens to be
"""


def test_a_worker_that_is_killed_is_an_error_and_no_hang(server: LocalS3) -> None:
    done = subprocess.run([sys.executable, "-c", KILL.format(uri=URI)], capture_output=True, text=True, timeout=60)
    assert re.search("killed by signal|exited unexpectedly", done.stdout), done.stdout + done.stderr


def test_a_lister_that_is_killed_leaves_the_listing_to_others(server: LocalS3) -> None:
    dataset = s3dataset.S3MapDataset.from_prefix(URI, transform=number)
    loader: Any = torch.utils.data.DataLoader(dataset, batch_size=5, num_workers=2)
    server.set_traffic(latency_s=0.5)
    child = os.fork()
    if child == 0:
        try:
            len(dataset)
        finally:
            os._exit(0)
    time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    server.set_traffic(latency_s=0.0)
    assert numbers(loader) == in_key_order()


def test_a_transform_that_does_not_pickle_is_named_where_it_has_to(server: LocalS3) -> None:
    dataset = s3dataset.S3MapDataset.from_prefix(URI, transform=lambda reader: 0 + number(reader))
    fork: Any = torch.utils.data.DataLoader(dataset, num_workers=1, multiprocessing_context="fork")
    assert numbers(fork) == in_key_order()
    spawn: Any = torch.utils.data.DataLoader(dataset, num_workers=1, multiprocessing_context="spawn")
    with (
        pytest.warns(UserWarning, match="Got pickle error"),
        pytest.raises(pickle.PicklingError, match=r"transform=.*<lambda> \(.*test_dataloader.py:\d+\)"),
    ):
        list(spawn)
    with pytest.raises(pickle.PicklingError, match="transform="):
        pickle.dumps(dataset)


# -- Over many epochs


@pytest.mark.parametrize("persistent", [True, False])
@pytest.mark.parametrize("kind", [s3dataset.S3MapDataset, s3dataset.S3IterableDataset])
def test_many_epochs_leave_nothing_behind(server: LocalS3, kind: Any, persistent: bool) -> None:
    loader = s3dataset.DataLoader(
        kind.from_prefix(URI, transform=number), batch_size=6, num_workers=2, persistent_workers=persistent
    )
    me = psutil.Process()

    def epoch_and_count() -> tuple[int, int, int]:
        assert Counter(numbers(loader)) == Counter(range(COUNT))
        gc.collect()
        return me.num_threads(), me.num_fds(), len(me.children())

    for _ in range(3):
        settled = epoch_and_count()
    for _ in range(7):
        last = epoch_and_count()
    # A thread of torch's may just be going; what an epoch leaves behind would be there seven times.
    assert all(b <= a + 3 for a, b in zip(settled, last, strict=True)), f"{settled} became {last}"


def test_datasets_that_are_dropped_leave_no_files(server: LocalS3, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for kind in (s3dataset.S3MapDataset, s3dataset.S3IterableDataset):
        dataset: Any = kind.from_prefix(URI, transform=number)
        loader = s3dataset.DataLoader(dataset, batch_size=6, num_workers=2)
        assert Counter(numbers(loader)) == Counter(range(COUNT))
        assert list(tmp_path.iterdir())
        del loader, dataset
        gc.collect()
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith("s3dataset-")] == []
