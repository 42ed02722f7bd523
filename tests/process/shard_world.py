"""Shards for tests: what is in them, and how a run over them looks."""

import io
from typing import Any

import s3dataset
from s3dataset.formats import JSONL, Parquet, Tar

COUNTS = [31, 8, 50, 1, 20, 33]
"""Samples of the shards that the fixtures `listed` and `indexed` have."""

FORMATS: dict[str, Any] = {"tar": Tar(), "jsonl": JSONL(), "parquet": Parquet(row_group_bytes=2000)}


def shard_of(kind: str, numbers: range, *, compression: Any = None, nbytes: int = 50) -> bytes:
    """A shard whose samples hold these numbers."""
    file = io.BytesIO()
    with FORMATS[kind].writer(file, compression=compression) as writer:
        for number in numbers:
            if kind == "tar":
                writer.write({"__key__": f"{number:06}", "n": str(number), "bin": bytes(nbytes)})
            else:
                writer.write({"n": number, "text": "x" * nbytes})
        writer.finish()
    return file.getvalue()


def number(sample: Any) -> int:
    """The transform: the number of a sample."""
    return int(sample["n"])


def put_shards(server: Any, prefix: str, kind: str, counts: list[int], **options: Any) -> int:
    """Puts shards with so many samples; -> samples in all."""
    first = 0
    for shard, count in enumerate(counts):
        body = shard_of(kind, range(first, first + count), **options)
        server.put("bucket", f"{prefix}{shard:03}.{kind}", body)
        first += count
    return first


def batches_of(loader: Any, most: int | None = None) -> list[list[int]]:
    """The batches that a loop takes, at most so many, as lists."""
    taken: list[list[int]] = []
    if most == 0:
        return taken
    for batch in loader:
        taken.append([int(n) for n in batch])
        if len(taken) == most:
            break
    return taken


def flat(batches: list[list[int]]) -> list[int]:
    """The samples of batches."""
    return [n for batch in batches for n in batch]


def split(rank: int, world_size: int, **options: Any) -> s3dataset.Split:
    """The split of a rank that says so itself."""
    return s3dataset.Split(rank=rank, world_size=world_size, tail="exact", **options)
