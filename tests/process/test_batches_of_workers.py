"""How large batches come from workers to the loop: tensors through shared memory, bytes through a pipe."""

import fcntl
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.utils.data
from torch.utils.data._utils.collate import collate_tensor_fn, default_collate_fn_map

import s3dataset
from s3dataset.testing import LocalS3

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process .*multi-threaded:DeprecationWarning"),
    pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has both"),
]

COUNT, NBYTES = 12, 150_000


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[LocalS3]:
    with LocalS3("bucket") as server:
        for i in range(COUNT):
            server.put("bucket", f"{i:02}", bytes([i]) * NBYTES)
        yield server


def as_tensor(reader: s3dataset.S3Reader) -> tuple[torch.Tensor, str]:
    stack = default_collate_fn_map[torch.Tensor]
    return torch.frombuffer(bytearray(reader.read()), dtype=torch.uint8), stack.__module__


def as_bytes(reader: s3dataset.S3Reader) -> bytes:
    return reader.read()


def keep(samples: list[Any]) -> list[Any]:
    return samples


LOADERS = [s3dataset.DataLoader, torch.utils.data.DataLoader]


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("dataset", [s3dataset.S3MapDataset, s3dataset.S3IterableDataset])
def test_workers_write_their_tensors_and_nobody_else_does(dataset: Any, loader: Any, method: str) -> None:
    options = {} if dataset is s3dataset.S3MapDataset else {"enable_sharding": True}
    samples = dataset.from_prefix("s3://bucket/", transform=as_tensor, **options)
    numbers = []
    for batch, stacks in loader(samples, batch_size=4, num_workers=2, multiprocessing_context=method):
        assert set(stacks) == {"s3dataset._datasets._stack"}
        assert batch.is_shared()
        assert batch.shape == (len(stacks), NBYTES)
        assert bool((batch == batch[:, :1]).all())
        numbers += batch[:, 0].tolist()
    assert sorted(numbers) == list(range(COUNT))
    assert default_collate_fn_map[torch.Tensor] is collate_tensor_fn
    _, (stack, *_) = next(iter(loader(samples, batch_size=4)))
    assert stack == collate_tensor_fn.__module__


@pytest.mark.parametrize("persistent_workers", [False, True])
def test_bytes_come_through_a_wide_pipe(persistent_workers: bool) -> None:
    dataset = s3dataset.S3MapDataset.from_prefix("s3://bucket/", transform=as_bytes)
    loader = s3dataset.DataLoader(
        dataset, batch_size=4, num_workers=2, collate_fn=keep, persistent_workers=persistent_workers
    )
    for _ in range(2):
        batches = iter(loader)
        assert fcntl.fcntl(batches._worker_result_queue._reader, fcntl.F_GETPIPE_SZ) == 1 << 20
        taken = [sample for batch in batches for sample in batch]
        assert taken == [bytes([i]) * NBYTES for i in range(COUNT)]
