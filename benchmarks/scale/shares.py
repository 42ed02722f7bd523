"""What falls to each of many ranks and workers of a large dataset, and what finding it out costs.

No process stands for a rank: who reads what is arithmetic, so one process asks it for all of them. Batches go to the
workers of a rank in turn, as a DataLoader deals them.
"""

import itertools
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from s3dataset import BatchSampler, Manifest, S3IterableDataset, S3MapDataset, Split

RANKS = 1024
WORKERS = 8
BATCH_SIZE = 32
RANK, WORKER = 517, 3  # whose cost is measured

Kind = Literal["map", "iterable"]
Tail = Literal["exact", "drop", "pad"]


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """Whose shares are looked at."""

    kind: Kind
    samples: int
    tail: Tail
    ranks: int = RANKS
    workers: int = WORKERS
    batch_size: int = BATCH_SIZE


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How often the samples occur in all shares together."""

    epoch: Epoch
    once: int
    never: int
    more: int
    """Samples that occur twice or more."""
    repeats: int
    """Occurrences beyond the first of a sample."""
    shortest: int
    longest: int
    """Samples of a rank."""
    seconds: float

    def check(self) -> None:
        """Raises AssertionError unless it is what the tail's policy says."""
        epoch = self.epoch
        step = epoch.ranks * epoch.batch_size
        if epoch.tail == "exact":
            assert (self.never, self.more) == (0, 0), self
            assert self.longest - self.shortest <= epoch.batch_size, self
        elif epoch.tail == "drop":
            assert self.more == 0, self
            assert self.never == epoch.samples % step, self
            assert self.shortest == self.longest, self
        else:
            assert self.never == 0, self
            assert self.repeats == -(epoch.samples % step) % epoch.ranks, self
            assert self.shortest == self.longest, self


def shares_of(epoch: Epoch, rank: int) -> Iterator[tuple[int, Sequence[int]]]:
    """Samples of one rank, in pieces, each with its worker."""
    split = Split(rank=rank, world_size=epoch.ranks, tail=epoch.tail)
    if epoch.kind == "map":
        sampler = BatchSampler(epoch.samples, epoch.batch_size, seed=1, split=split, num_workers=epoch.workers, ahead=0)
        for k, batch in enumerate(sampler):
            yield k % epoch.workers, batch
        return
    from s3dataset._order import BatchPlan, reader_positions

    # As S3IterableDataset makes it, which looks for worker and rank in the process that it runs in.
    plan = BatchPlan(epoch.samples, epoch.batch_size, epoch.ranks, split.resolved_tail(epoch.ranks))
    for worker in range(epoch.workers):
        for piece in reader_positions(plan, rank=rank, worker=worker, num_workers=epoch.workers):
            yield worker, piece


def cover(epoch: Epoch) -> Coverage:
    """Goes through the shares of all workers of all ranks and counts each sample."""
    began = time.perf_counter()
    counts = array("H", bytes(2 * epoch.samples))
    sizes = []
    for rank in range(epoch.ranks):
        of_workers = [0] * epoch.workers
        for worker, piece in shares_of(epoch, rank):
            of_workers[worker] += len(piece)
            for index in piece:
                counts[index] += 1
        sizes.append(sum(of_workers))
    never, once = counts.count(0), counts.count(1)
    return Coverage(
        epoch=epoch,
        once=once,
        never=never,
        more=epoch.samples - never - once,
        repeats=sum(sizes) - (epoch.samples - never),
        shortest=min(sizes),
        longest=max(sizes),
        seconds=time.perf_counter() - began,
    )


# -- What one process pays: each a process of its own, see benchmarks.manifest ----------------------------------------


def _sampler(path: str, ranks: int = RANKS, rank: int = RANK) -> tuple[S3MapDataset[Any], BatchSampler]:
    dataset = S3MapDataset.from_manifest(path)
    split = Split(rank=rank, world_size=ranks) if ranks > 1 else Split(ranks=False)
    return dataset, BatchSampler(dataset, BATCH_SIZE, seed=1, split=split, num_workers=WORKERS)


def first_batch(path: str) -> str:
    dataset, sampler = _sampler(path)
    batch = next(iter(sampler))
    return f"{len(batch)} samples, the first of them {dataset.manifest.key(batch[0])}"


def batches_of_rank(path: str) -> str:
    return f"{sum(map(len, _sampler(path)[1])):,} samples"


def rows_of_worker(path: str) -> str:
    dataset, sampler = _sampler(path)
    batches = itertools.islice(sampler, WORKER, None, WORKERS)
    return f"{sum(len(dataset.manifest.rows(batch)) for batch in batches):,} samples"


def batches_of_all(path: str) -> str:
    return f"{sum(map(len, _sampler(path, ranks=1)[1])):,} samples"


def first_of_stream(path: str) -> str:
    return f"{len(next(_stream(path)))} samples"


def all_of_stream(path: str) -> str:
    return f"{sum(map(len, _stream(path))):,} samples"


def _stream(path: str) -> Iterator[Sequence[object]]:
    from s3dataset._order import reader_positions

    split = Split(rank=RANK, world_size=RANKS)
    dataset = S3IterableDataset.from_manifest(path, enable_sharding=split, batch_size=BATCH_SIZE)
    plan = dataset._plan(dataset._part())
    return dataset._row_chunks(reader_positions(plan, rank=RANK, worker=WORKER, num_workers=WORKERS))


def opened(path: str) -> str:
    return f"{len(Manifest.load(path)):,} objects"


STEPS: dict[str, Callable[[str], str]] = {
    "open the manifest": opened,
    "map dataset: the first batch of a rank": first_batch,
    "map dataset: all batches of a rank": batches_of_rank,
    "map dataset: keys and sizes of all samples of a worker": rows_of_worker,
    "map dataset: all batches, one rank alone": batches_of_all,
    "iterable dataset: keys and sizes of the first samples of a worker": first_of_stream,
    "iterable dataset: keys and sizes of all samples of a worker": all_of_stream,
}
