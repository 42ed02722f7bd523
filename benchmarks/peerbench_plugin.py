"""Our adapters for an outside harness called peerbench: `PEER_PLUGINS=peerbench_plugin` with this folder on PYTHONPATH.

Through the public API with default settings but the concurrency that the harness hands over, as a user would write it.
Importing it loads no torch, so that what the client takes is measured alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import s3dataset
from clients import BUCKET, Client, buffer, endpoint, sample

if TYPE_CHECKING:
    from collections.abc import Iterator

REGION = "us-east-1"


class Ours(Client):
    """The client."""

    name = "ours"

    def open(self) -> None:
        config = s3dataset.S3ClientConfig(max_connections=self.conc)
        self.client = s3dataset.S3Client(REGION, endpoint=self.url, s3client_config=config)

    def get(self, key: str) -> Any:
        return self.client.get_object(BUCKET, key).read()

    def get_many(self, keys: list[str]) -> int:
        return sum(len(body) for _, body in self.client.get_many((BUCKET, key) for key in keys))

    def get_many_into_list(self, keys: list[str]) -> Iterator[Any]:
        return (body for _, body in self.client.get_many(((BUCKET, key) for key in keys), ordered=True))

    def get_big(self, key: str, size: int) -> memoryview:
        view = buffer(size)
        self.client.read_into([(BUCKET, key, (0, size), view)])
        return view

    def put(self, key: str, data: Any) -> None:
        self.client.put_many([(BUCKET, key, data)])

    def put_many(self, keys: list[str], data: Any) -> None:
        self.client.put_many((BUCKET, key, data) for key in keys)

    def put_big(self, key: str, data: Any) -> None:
        with self.client.put_object(BUCKET, key) as writer:
            writer.write(data)

    def list(self, bucket: str) -> int:
        return len(s3dataset.Manifest.from_prefix(f"s3://{bucket}/", region=REGION, endpoint=self.url))


def read(reader: s3dataset.S3Reader) -> Any:
    return sample(reader.read())


def small(count: int) -> list[str]:
    return [f"s3://{BUCKET}/small/{number:05d}.bin" for number in range(count)]


def map_dataset(url: str, count: int) -> s3dataset.S3MapDataset[Any]:
    return s3dataset.S3MapDataset.from_objects(small(count), region=REGION, endpoint=url, transform=read)


def iterable_dataset(url: str, count: int) -> s3dataset.S3IterableDataset[Any]:
    return s3dataset.S3IterableDataset.from_objects(small(count), region=REGION, endpoint=url, transform=read)


def sample_of_shard(one: dict[str, Any]) -> Any:
    return sample(one["bin"])


def shards(url: str, count: int) -> s3dataset.S3IterableDataset[Any]:  # noqa: ARG001 - 40 shards of 100 samples
    uri = f"s3://{BUCKET}/shards/"
    return s3dataset.S3IterableDataset.from_prefix(
        uri, pattern="*.tar", format="tar", region=REGION, endpoint=url, transform=sample_of_shard
    )


def indexed(url: str) -> s3dataset.Manifest:
    # Made beforehand, as it is for training; it is the harness that leaves no place to keep it.
    manifest = s3dataset.Manifest.from_prefix(f"s3://{BUCKET}/shards/", pattern="*.tar", region=REGION, endpoint=url)
    return manifest.index("tar")


def shuffled_shards(url: str, count: int) -> s3dataset.S3IterableDataset[Any]:  # noqa: ARG001 - see above
    return s3dataset.S3IterableDataset.from_manifest(
        indexed(url), region=REGION, endpoint=url, transform=sample_of_shard, shuffle=True
    )


def shuffled_map(url: str, count: int) -> s3dataset.S3MapDataset[Any]:  # noqa: ARG001 - see above
    return s3dataset.S3MapDataset.from_manifest(indexed(url), region=REGION, endpoint=url, transform=sample_of_shard)


def stream_loader(dataset: Any, **options: Any) -> s3dataset.DataLoader[Any]:
    options.pop("shuffle", None)  # the dataset's matter
    return s3dataset.DataLoader(dataset, **options)


def look_ahead(dataset: Any, **options: Any) -> s3dataset.DataLoader[Any]:
    return s3dataset.DataLoader(dataset, **options)


class Stream:
    """torch.save and torch.load through a writer and a reader."""

    def __init__(self, port: int) -> None:
        self.checkpoint = s3dataset.S3Checkpoint(region=REGION, endpoint=endpoint(port, False))

    def save(self, state: Any) -> None:
        import torch

        with self.checkpoint.writer(f"s3://{BUCKET}/up/model.pt") as writer:
            torch.save(state, writer)

    def load(self) -> Any:
        import os

        import torch

        with self.checkpoint.reader(f"s3://{BUCKET}/ckpt/{os.environ.get('PEER_STATE', 'model')}.pt") as reader:
            return torch.load(reader)


CLIENTS = {"ours": Ours}
DATASETS = {
    "ours-map": (map_dataset, False),
    "ours-map-ahead": (map_dataset, False, look_ahead),
    "ours-iterable": (iterable_dataset, False),
    "tar-ours": (shards, False, stream_loader),
    "tar-ours-shuffled": (shuffled_shards, False, stream_loader),
    "tar-ours-map": (shuffled_map, False, look_ahead),
}


class Whole:
    """S3Checkpoint.save and load."""

    def __init__(self, port: int) -> None:
        self.checkpoint = s3dataset.S3Checkpoint(region=REGION, endpoint=endpoint(port, False))

    def save(self, state: Any) -> None:
        self.checkpoint.save(state, f"s3://{BUCKET}/up/model.pt")

    def load(self) -> Any:
        import os

        return self.checkpoint.load(f"s3://{BUCKET}/ckpt/{os.environ.get('PEER_STATE', 'model')}.pt")


class Distributed:
    """torch.distributed.checkpoint through s3dataset.dcp."""

    def __init__(self, port: int) -> None:
        self.endpoint = endpoint(port, False)

    def save(self, state: Any) -> None:
        import torch.distributed.checkpoint as dcp

        from s3dataset.dcp import S3StorageWriter

        dcp.save(state, storage_writer=S3StorageWriter(REGION, f"s3://{BUCKET}/up/dcp/", endpoint=self.endpoint))

    def load(self) -> Any:
        import torch
        import torch.distributed.checkpoint as dcp

        from s3dataset.dcp import S3StorageReader

        state = {f"layers.{number:03d}.weight": torch.empty(2_621_440) for number in range(200)}
        dcp.load(state, storage_reader=S3StorageReader(REGION, f"s3://{BUCKET}/dcp/", endpoint=self.endpoint))
        return state


CHECKPOINTS = {"ours": Whole, "ours-stream": Stream, "ours-dcp": Distributed}
