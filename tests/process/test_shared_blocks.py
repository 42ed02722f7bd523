"""Shuffled shards with fewer blocks than streams: streams of a reader that take of one block fetch it once."""

import gc
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from tests.process.shard_world import batches_of, flat, number, put_shards

import s3dataset
from s3dataset._datasets._held import HeldBytes
from s3dataset.testing import LocalS3

COUNTS = [700, 1, 300, 0, 999]
TOTAL = sum(COUNTS)
KINDS = [("tar", None), ("jsonl", None), ("jsonl", "zst"), ("parquet", None)]

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    with LocalS3("bucket") as running:
        for kind, compression in KINDS:
            put_shards(running, f"{kind}-{compression}/", kind, COUNTS, compression=compression, nbytes=500)
        yield running


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0]}-{kind[1]}")
def manifest(request: pytest.FixtureRequest, server: LocalS3) -> s3dataset.Manifest:
    kind, compression = request.param
    return s3dataset.Manifest.from_prefix(f"s3://bucket/{kind}-{compression}/").index(kind)


def loader_of(manifest: s3dataset.Manifest, workers: int = 0, **shuffle: Any) -> s3dataset.DataLoader[Any]:
    options: Any = {"seed": 3, "streams": 12, **shuffle}
    dataset = s3dataset.S3IterableDataset.from_manifest(
        manifest, transform=number, shuffle=s3dataset.Shuffle(**options)
    )
    return s3dataset.DataLoader(dataset, batch_size=16, num_workers=workers)


def blocks(share: float) -> dict[str, int]:
    """Of so much of a shard that has a sample for every number."""
    return {"block_bytes": int(share * 500 * TOTAL)}


@pytest.mark.parametrize("share", [5.0, 0.4, 0.05])
@pytest.mark.parametrize("streams", [1, 12, 64])
def test_a_reader_fetches_a_block_once_for_all_streams_that_take_of_it(
    manifest: s3dataset.Manifest, streams: int, share: float
) -> None:
    loader = loader_of(manifest, streams=streams, **blocks(share))
    assert sorted(flat(batches_of(loader))) == list(range(TOTAL))
    stats = loader.stats()
    size = sum(manifest.size(shard) or 0 for shard in range(len(manifest)))
    parts = -(-manifest.num_bytes // max(1, blocks(share)["block_bytes"]))
    if streams == 1 or parts == 1:
        assert stats.bytes <= size
    elif parts <= streams:
        # Where two blocks meet in a stream, each of them is taken of twice; frames of both are fetched for each.
        assert stats.bytes <= 2.5 * size


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("share", [5.0, 0.4, 0.05])
def test_the_order_is_that_of_every_number_of_workers_and_goes_on_anywhere(
    manifest: s3dataset.Manifest, share: float, workers: int
) -> None:
    whole = batches_of(loader_of(manifest, **blocks(share)))
    assert batches_of(loader_of(manifest, workers, **blocks(share))) == whole
    for taken in (1, 13, 60):
        first = loader_of(manifest, **blocks(share))
        begun = batches_of(first, taken)
        then = loader_of(manifest, workers, **blocks(share))
        then.load_state_dict(first.state_dict())
        assert begun + batches_of(then) == whole


@pytest.mark.filterwarnings("ignore:This process .*multi-threaded:DeprecationWarning")
def test_a_forked_child_collects_an_iteration_of_its_parents(
    manifest: s3dataset.Manifest, capfd: pytest.CaptureFixture[str]
) -> None:
    dataset = s3dataset.S3IterableDataset.from_manifest(manifest, transform=number, shuffle=s3dataset.Shuffle(seed=1))
    iteration = iter(dataset)
    begun = [next(iteration) for _ in range(40)]
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        del iteration
        gc.collect()
        os._exit(HeldBytes.of_process().total() != 0)
    assert os.waitpid(pid, 0)[1] == 0
    assert dataset.stats().samples == 40
    assert sorted([*begun, *iteration]) == list(range(TOTAL))
    assert (dataset.stats().samples, HeldBytes.of_process().total()) == (TOTAL, 0)
    assert capfd.readouterr().err == ""
