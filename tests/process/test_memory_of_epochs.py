"""An epoch takes as much memory as its window, not as its data."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import psutil
import pytest
from tests.process.shard_world import number, put_shards

import s3dataset
from s3dataset import MixedDataset, S3ClientConfig, S3IterableDataset, S3MapDataset, Shuffle
from s3dataset.testing import LocalS3

MIB = 1 << 20
DATA_BYTES = 96 * MIB  # of each set of shards
SHARDS = 8
SIZES = {"large": 512 << 10, "small": 8 << 10}
CONFIG = S3ClientConfig(memory_limit_bytes=16 * MIB, max_connections=8)


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    with LocalS3("bucket") as running:
        for name, nbytes in SIZES.items():
            put_shards(running, f"{name}/", "tar", [DATA_BYTES // nbytes // SHARDS] * SHARDS, nbytes=nbytes)
        yield running


def listed(name: str) -> s3dataset.Manifest:
    return s3dataset.Manifest.from_prefix(f"s3://bucket/{name}/", pattern="*.tar", s3client_config=CONFIG)


def iterable(name: str, *, indexed: bool = True, **options: Any) -> S3IterableDataset[int]:
    manifest = listed(name).index("tar") if indexed else listed(name)
    options = {"format": "tar", "transform": number, "s3client_config": CONFIG, **options}
    return S3IterableDataset.from_manifest(manifest, **options)


EPOCHS: dict[str, Callable[[str], Iterable[int]]] = {
    "streamed": lambda name: iterable(name, indexed=False),
    "shuffled without an index": lambda name: iterable(name, indexed=False, shuffle=Shuffle(block_bytes=4 * MIB)),
    "in order": iterable,
    "shuffled": lambda name: iterable(name, shuffle=True),
    "map": lambda name: S3MapDataset.from_manifest(listed(name).index("tar"), transform=number, s3client_config=CONFIG),
    "mixed": lambda name: MixedDataset([iterable(name, shuffle=True), iterable(name, shuffle=True)], [1, 1]),
}


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("epoch", EPOCHS)
def test_what_was_taken_is_let_go_of(epoch: str, name: str) -> None:
    count = DATA_BYTES // SIZES[name]
    memory = psutil.Process().memory_info
    taken, before = 0, 0
    for _ in EPOCHS[epoch](name):
        taken += 1
        if taken == count // 8:
            before = memory().rss
    assert taken >= count
    assert memory().rss - before < 40 * MIB
