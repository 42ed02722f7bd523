"""What a shuffle over blocks of small samples holds: within the byte budget, and in the same order whatever that is."""

import hashlib
import io
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import s3dataset
from s3dataset.formats import JSONL
from s3dataset.testing import LocalS3

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

MIB = 1 << 20
SHARDS, IN_SHARD = 8, 512
STREAMS = 32


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """64 MiB in samples of 16 KiB; 32 streams, so that every byte is in a block that is open from the beginning."""
    with LocalS3("bucket") as server:
        for shard in range(SHARDS):
            out = io.BytesIO()
            with JSONL().writer(out) as writer:
                for i in range(IN_SHARD):
                    writer.write({"n": IN_SHARD * shard + i, "text": "x" * 16350})
                writer.finish()
            server.put("bucket", f"shards/{shard}.jsonl", out.getvalue())
        path = str(tmp_path_factory.mktemp("block-memory") / "index.manifest")
        s3dataset.Manifest.from_prefix("s3://bucket/shards/").index("jsonl").save(path)
        yield path


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Watching:
    """A transform that notes how much memory its process has, beyond what it had at first."""

    base = peak = calls = 0

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(self, sample: Any) -> int:
        Watching.calls += 1
        if Watching.calls % 8 == 0:
            Watching.peak = max(Watching.peak, resident())
        if Watching.calls % 64 == 0:
            (self.directory / str(os.getpid())).write_text(str(Watching.peak - Watching.base))
        return int(sample["n"])


def begin(worker: int = 0) -> None:
    Watching.base = resident()
    Watching.peak = Watching.calls = 0


def epoch(path: str, directory: Path, budget: int, workers: int) -> None:
    """Notes the order and, by process, the peak. A program of its own, whose memory nobody used before."""
    config = s3dataset.S3ClientConfig(memory_limit_bytes=budget)
    dataset = s3dataset.S3IterableDataset.from_manifest(
        path,
        transform=Watching(directory),
        shuffle=s3dataset.Shuffle(seed=1, streams=STREAMS, block_bytes=2 * MIB),
        s3client_config=config,
    )
    loader = s3dataset.DataLoader(
        dataset,
        64,
        num_workers=workers,
        worker_init_fn=begin,
        multiprocessing_context="fork" if workers else None,
    )
    client = s3dataset.S3Client(s3client_config=config)
    client.get_range("bucket", dataset.manifest.key(0), 0, 1)  # engine, credentials, connections
    begin()
    order = hashlib.sha256()
    for batch in loader:
        order.update(batch.numpy().tobytes())
    (directory / "order").write_text(order.hexdigest())


def measured(path: str, directory: Path, budget: int, workers: int) -> tuple[str, list[int]]:
    directory.mkdir()
    process = multiprocessing.get_context("spawn").Process(target=epoch, args=(path, directory, budget, workers))
    process.start()
    process.join(240)
    assert process.exitcode == 0
    order = (directory / "order").read_text()
    return order, [int(file.read_text()) for file in directory.iterdir() if file.name != "order"]


@pytest.mark.parametrize("workers", [0, 2])
def test_blocks_stay_within_the_budget_in_the_same_order(saved: str, tmp_path: Path, workers: int) -> None:
    orders = set()
    for mebibytes in (16, 256):
        order, peaks = measured(saved, tmp_path / f"{mebibytes}-{workers}", mebibytes * MIB, workers)
        orders.add(order)
        assert len(peaks) == max(1, workers)
        # What Python and torch take on the way counts too; all data at once would be 64 MiB beside that.
        assert max(peaks) < (mebibytes + 32) * MIB
    assert len(orders) == 1


def test_two_iterations_at_a_time_share_the_budget_and_end(saved: str) -> None:
    config = s3dataset.S3ClientConfig(memory_limit_bytes=8 * MIB)
    streams = [
        iter(
            s3dataset.S3IterableDataset.from_manifest(
                saved,
                transform=lambda sample: sample["n"],
                shuffle=s3dataset.Shuffle(seed=seed, streams=8, block_bytes=2 * MIB),
                s3client_config=config,
            )
        )
        for seed in range(2)
    ]
    taken: list[set[int]] = [set(), set()]
    for pair in zip(*streams, strict=True):
        for mine, n in zip(taken, pair, strict=True):
            mine.add(n)
    assert taken == [set(range(SHARDS * IN_SHARD))] * 2


@pytest.mark.parametrize("batch_size", [64, 60, 1000])
def test_rows_repeat_where_blocks_come_in_pieces(saved: str, batch_size: int) -> None:
    """4,096 samples and a half more; the last batch of the row is filled with its first samples, which then come."""

    def taken(**options: Any) -> list[int]:
        dataset = s3dataset.S3IterableDataset.from_manifest(
            saved,
            transform=lambda sample: sample["n"],
            shuffle=s3dataset.Shuffle(seed=1, streams=STREAMS, block_bytes=2 * MIB),
            s3client_config=s3dataset.S3ClientConfig(memory_limit_bytes=8 * MIB),
            **options,
        )
        return [int(n) for batch in s3dataset.DataLoader(dataset, batch_size) for n in batch]

    row = taken()
    assert sorted(row) == list(range(SHARDS * IN_SHARD))
    filled = row + row[: -len(row) % batch_size]
    steps = 3 * len(filled) // 2 // batch_size
    assert taken(enable_sharding=s3dataset.Split(steps_per_epoch=steps)) == (2 * filled)[: steps * batch_size]
