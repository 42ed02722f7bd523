"""A real DataLoader over the same objects, with more and more workers."""

import os
import random
import resource
import time
import warnings
from collections.abc import Callable
from typing import Any, Final

from s3dataset._bench._objects import Stored
from s3dataset._bench._result import WorkerStep
from s3dataset._bench._steps import Allowance
from s3dataset._client import Client
from s3dataset._manifest import manifest_of_objects
from s3dataset.errors import S3Exception

__all__ = ["TransformFailedError", "run_workers", "usable_cores"]

_MOST_BATCH_BYTES: Final = 32 << 20
_MOST_SAMPLES: Final = 500_000
_AHEAD_BATCHES: Final = 4
_FEW_BATCHES: Final = 8
"""For each worker, twice as many as it makes ahead, and those of the epoch's end."""
_PATIENCE_S: Final = 20.0
"""For the first batch: workers have to start, and import what their transform needs."""


def count_all(sample: Any) -> int:
    """The same for a sample of a shard."""
    return len(sample)


class TransformFailedError(Exception):
    """A function of the user's did not work."""


def read_all(reader: Any) -> int:
    """The transform of those who gave none: the bytes, counted, so that nothing but reading is measured."""
    return len(reader.read())


def run_workers(
    client: Client,
    objects: list[Stored],
    workers: int,
    limit: Allowance,
    *,
    transform: Callable[[Any], Any] | None,
    batch_size: int,
    format: str | None = None,  # noqa: A002 - the name that datasets have
) -> tuple[WorkerStep | None, Allowance]:
    """Iterates a shuffled DataLoader for as long as `limit` allows, from its first batch on.

    With `format` the objects are shards, which are streamed, as many as `limit` allows to read in full.

    Returns:
        What was measured, None where the objects are too large for the limit; what it cost.

    Raises:
        S3Exception: An object could not be read.
        TransformFailedError: The transform raised something, or batches cannot be made of what it returns.
    """
    import s3dataset  # noqa: PLC0415 - datasets load torch

    mean = max(1, sum(stored.size for stored in objects) // len(objects))
    most = min(limit.bytes // mean, limit.requests, _MOST_SAMPLES)
    if format is None:
        batch_size = max(1, min(batch_size, _MOST_BATCH_BYTES // mean))
    if most < max(workers, 1) * (1 if format else 2 * batch_size):
        return None, Allowance(0.0, 0, 0)
    chosen = random.Random(workers).choices(objects, k=most)
    manifest = manifest_of_objects(((one.bucket, one.key, one.size, one.etag) for one in chosen), client.ref)
    dataset: Any
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        if format is None:
            dataset = s3dataset.S3MapDataset.from_manifest(manifest, transform=transform or read_all)
            loader = s3dataset.DataLoader(
                dataset, batch_size=batch_size, shuffle=True, num_workers=workers, drop_last=True
            )
        else:
            dataset = s3dataset.S3IterableDataset.from_manifest(
                manifest, format=format, shuffle=True, transform=transform or count_all
            )
            loader = s3dataset.DataLoader(dataset, batch_size=batch_size, num_workers=workers, drop_last=True)
        cpu = _cpu_seconds()
        start = time.perf_counter()
        batches = 0
        first = last = start
        is_cut = False
        iterator = iter(loader)
        try:
            for batches, _ in enumerate(iterator, 1):
                last = time.perf_counter()
                if batches == 1:
                    first = last
                if last - first >= limit.seconds or last - start >= limit.seconds + _PATIENCE_S:
                    is_cut = True
                    break
        except S3Exception:
            raise
        except Exception as error:
            if transform is None:
                raise
            raise TransformFailedError(f"--transform raised {type(error).__name__}: {error}") from error
        del iterator  # ends the workers, whose CPU time counts then
    # What was read ahead for batches that nobody took counts as read, too; of shards all that could be read does.
    read = most
    if format is None:
        taken = max(dataset.stats().samples, batches * batch_size)
        read = min(most, taken + _AHEAD_BATCHES * batch_size * max(workers, 1))
    spent = Allowance(time.perf_counter() - start, read * mean, read)
    # Workers make batches ahead while the first one is waited for: where all of them came, too few would come at once.
    if batches < 2 or last <= first or not (is_cut or format or batches >= _FEW_BATCHES * max(workers, 1)):
        return None, spent
    samples = (batches - 1) * batch_size
    return (
        WorkerStep(
            workers=workers,
            seconds=last - first,
            samples=samples,
            bytes=samples * mean if format is None else dataset.stats().bytes,
            first_batch_s=first - start,
            cpu_seconds=_cpu_seconds() - cpu,
        ),
        spent,
    )


def _cpu_seconds() -> float:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
