"""What packs in tests begin with, and what becomes of it."""

from collections.abc import Iterator
from typing import Any

from s3dataset import S3IterableDataset
from s3dataset.testing import LocalS3

COUNT = 60
SOURCE, DEST = "s3://source/data/", "s3://dest/packed/"
SMALL = 20_000


def text(number: int) -> bytes:
    return f"text {number} ".encode() * (50 + number)


def filled() -> Iterator[LocalS3]:
    """A server with the source, for a fixture."""
    with LocalS3("source", "dest") as server:
        for number in range(COUNT):
            server.put("source", f"data/{'cat' if number < 20 else 'dog'}/{number:03d}.txt", text(number))
            server.put("source", f"data/{'cat' if number < 20 else 'dog'}/{number:03d}.JSON", b'{"n": %d}' % number)
        yield server


def expected(**more: Any) -> list[dict[str, Any]]:
    return [
        {
            "__key__": f"{'cat' if number < 20 else 'dog'}/{number:03d}",
            "json": b'{"n": %d}' % number,
            "txt": text(number),
            **more,
        }
        for number in range(COUNT)
    ]


def streamed(format_name: str = "tar", dest: str = DEST) -> list[dict[str, Any]]:
    dataset = S3IterableDataset.from_prefix(dest, format=format_name)
    return [{name: value for name, value in sample.items() if name != "__url__"} for sample in dataset]


def shards(server: LocalS3) -> list[str]:
    return [key for key in server.keys("dest", "packed/") if ".s3dataset/" not in key]


def writes(server: LocalS3, part: str = "shard-") -> list[str]:
    return [
        record.key
        for record in server.requests()
        if record.operation in {"PutObject", "CompleteMultipartUpload"} and part in record.key and record.status == 200
    ]
