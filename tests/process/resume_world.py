"""Runs over real loaders for tests of resuming: what is read, with which loader, and where it stands."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch.utils.data
from tests.process.shard_world import batches_of, number, put_shards

import s3dataset
from s3dataset import BatchSampler, DataLoader, Manifest, MixedDataset, S3IterableDataset, S3MapDataset, Shuffle, Split

LAYOUTS = {"uneven": [31, 8, 50, 1, 20, 33], "even": [12] * 6, "one": [40], "few": [1, 2, 1]}
FORMATS = {"tar": None, "jsonl": "zst", "parquet": None}
STREAMS = 12

Batches = list[list[int]]


def read(reader: Any) -> int:
    """The transform of objects: the number in one."""
    return int(reader.read())


def put_all(server: Any) -> dict[tuple[str, str], Manifest]:
    """Puts every layout in every format; -> manifests by (format, layout), without an index."""
    found = {}
    for layout, counts in LAYOUTS.items():
        for kind, compression in FORMATS.items():
            put_shards(server, f"{layout}-{kind}/", kind, counts, compression=compression)
            found[kind, layout] = Manifest.from_prefix(f"s3://bucket/{layout}-{kind}/")
        for n in range(sum(counts)):
            server.put("bucket", f"{layout}-objects/{n:04}", str(n).encode())
        found["objects", layout] = Manifest.from_prefix(f"s3://bucket/{layout}-objects/")
    return found


@dataclass(frozen=True)
class Run:
    """What is read, and how.

    Attributes:
        data: "indexed", "unindexed", "map", "mixed", "staged".
        loader: "ours", "torch" or "stateful".
    """

    manifest: Manifest
    format: str
    data: str
    loader: str = "ours"
    seed: int | None = None
    batch: int = 8
    rank: int = 0
    world: int = 1
    workers: int = 0
    method: str | None = None
    persistent: bool = False
    ahead: bool = False

    def of(self, rank: int, world: int, workers: int) -> "Run":
        """The same on another rank, or with other workers."""
        return replace(self, rank=rank, world=world, workers=workers)

    @property
    def split(self) -> Split:
        """Who shares."""
        return Split(rank=self.rank, world_size=self.world, tail="exact")

    def stream(self, seed_shift: int = 0) -> S3IterableDataset[int]:
        """The samples as a stream."""
        shuffle: Any = False if self.seed is None else Shuffle(seed=self.seed + seed_shift, streams=STREAMS)
        if self.data == "unindexed":
            shuffle = (
                Shuffle(streams=STREAMS, open_shards=2, block_bytes=900, seed=self.seed)
                if self.seed is not None
                else False
            )
        return S3IterableDataset.from_manifest(
            self.manifest,
            format=None if self.format == "objects" else self.format,
            transform=read if self.format == "objects" else number,
            enable_sharding=self.split,
            shuffle=shuffle,
            batch_size=None if self.loader == "ours" else self.batch,
        )

    def begin(self) -> "Begun":
        """Makes dataset and loader."""
        options: dict[str, Any] = {"num_workers": self.workers}
        if self.workers:
            options |= {"multiprocessing_context": self.method or "fork", "persistent_workers": self.persistent}
        dataset: Any
        sampler = None
        if self.data == "map":
            transform: Any = read if self.format == "objects" else number
            dataset = S3MapDataset.from_manifest(self.manifest, transform=transform)
            if self.loader == "ours":
                options |= {"shuffle": self.seed is not None, "seed": self.seed, "split": self.split}
                options["batch_size"] = self.batch
            else:
                sampler = BatchSampler(
                    dataset,
                    self.batch,
                    shuffle=self.seed is not None,
                    seed=self.seed or 0,
                    split=self.split,
                    num_workers=self.workers if self.ahead else None,
                )
                options["batch_sampler"] = sampler
        else:
            dataset = self.stream()
            if self.data == "staged":
                dataset = dataset.filter(keep)
            if self.data == "mixed":
                dataset = MixedDataset([dataset, self.stream(seed_shift=1)], [2, 1])
            options["batch_size"] = self.batch
        if self.loader == "ours":
            return Begun(self, dataset, sampler, DataLoader(dataset, **options))
        if self.loader == "torch":
            return Begun(self, dataset, sampler, torch.utils.data.DataLoader(dataset, **options))
        from torchdata.stateful_dataloader import StatefulDataLoader

        return Begun(self, dataset, sampler, StatefulDataLoader(dataset, **options))


def keep(n: int) -> bool:
    """A filter."""
    return n % 7 != 3


@dataclass
class Begun:
    """A run with its loader."""

    run: Run
    dataset: Any
    sampler: Any
    loader: Any

    @property
    def holder(self) -> Any:
        """What knows of epochs and elastic states."""
        if self.run.loader == "ours":
            return self.loader
        return self.dataset if self.sampler is None else self.sampler

    def set_epoch(self, epoch: int) -> None:
        """Names the epoch that comes next."""
        self.holder.set_epoch(epoch)

    def take(self, most: int | None = None) -> Batches:
        """Takes batches of one epoch."""
        return batches_of(self.loader, most)

    def stopped(self, steps: int) -> tuple[Batches, dict[str, Any]]:
        """Takes so many batches of an epoch, and tells where the loop is then; the iterator lives that long."""
        batches = iter(self.loader)
        taken = [[int(n) for n in next(batches)] for _ in range(steps)]
        return taken, self.state(steps)

    def state(self, steps: int) -> dict[str, Any]:
        """Where it is, elastic where it can be, and through JSON."""
        if self.run.loader == "ours":
            state = self.loader.state_dict()
        elif self.run.loader == "stateful":
            state = s3dataset.resume_state(self.loader.state_dict())
        else:
            state = self.holder.state_dict(batches_consumed=steps) if self.run.workers else self.holder.state_dict()
        through: dict[str, Any] = json.loads(json.dumps(state))
        return through

    def load(self, state: dict[str, Any]) -> None:
        """Goes on from an elastic state."""
        self.holder.load_state_dict(state)


def interleaved(ranks: list[Batches]) -> Batches:
    """The global sequence of what each rank took."""
    return [rank[step] for step in range(max(map(len, ranks), default=0)) for rank in ranks if step < len(rank)]


def epochs_of(run: Run, first: int, count: int) -> Iterator[Batches]:
    """The epochs of a run that is not interrupted."""
    begun = run.begin()
    begun.set_epoch(first)
    for _ in range(count):
        yield begun.take()
