"""What programs do with the library, each over the same objects, each checking what it got."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.utils.data import DataLoader

import s3dataset
from s3dataset.testing import LocalS3

__all__ = ["BUCKET", "CONFIG", "LARGE", "OLD", "SMALL", "USES", "Use", "World"]

BUCKET: Final = "bucket"
MIB: Final = 1 << 20
PART_BYTES: Final = 5 * MIB
# Patience that ends a cell within seconds where a fault stays.
CONFIG: Final = s3dataset.S3ClientConfig(
    part_size=PART_BYTES,
    max_attempts=3,
    connect_timeout_s=1.0,
    first_byte_timeout_s=0.6,
    stall_timeout_s=1.0,
    retry_max_elapsed_s=4.0,
)


def pattern(nbytes: int, seed: int) -> bytes:
    """Bytes that differ from place to place, so that a piece in a wrong place shows."""
    words = torch.arange(nbytes // 8 + 1, dtype=torch.int64) * 0x9E3779B97F4A7C15 % (1 << 62) + seed
    return words.numpy().tobytes()[:nbytes]


LARGE: Final = pattern(12 * MIB, 1)
OLD: Final = b"what stood here before"
NEW_SMALL: Final = pattern(3000, 2)
NEW_LARGE: Final = pattern(11 * MIB, 3)
SMALL: Final = {f"small/{i:02}": pattern(3000 + i, 10 + i) for i in range(20)}


@dataclass(frozen=True, slots=True)
class World:
    """A server with the objects that uses read and write."""

    server: LocalS3

    def restore(self) -> None:
        """Everything as it was before a use."""
        server = self.server
        server.clear_faults()
        for upload in server.uploads(BUCKET):
            server.boto3_client().abort_multipart_upload(Bucket=BUCKET, Key=upload["key"], UploadId=upload["upload_id"])
        for key in server.keys(BUCKET):
            if key not in SMALL and key not in {"large", "target"}:
                server.delete(BUCKET, key)
        for key, data in {**SMALL, "large": LARGE, "target": OLD}.items():
            if key not in server.keys(BUCKET, key) or server.get(BUCKET, key) != data:
                server.put(BUCKET, key, data)

    def client(self) -> s3dataset.S3Client:
        return s3dataset.S3Client(s3client_config=CONFIG)

    def one_version(self, key: str, data: bytes, was: bytes) -> None:
        """The bytes are those of one version of the object, whichever it is by now."""
        assert data == was or data == self.server.get(BUCKET, key), f"bytes of no version of {key} were read"


def _one(world: World) -> None:
    data = bytes(world.client().get_range(BUCKET, "small/07", 0, 5000))
    world.one_version("small/07", data, SMALL["small/07"])


def _into(world: World) -> None:
    into = bytearray(len(LARGE))
    world.client().read_into([(BUCKET, "large", None, into)])
    world.one_version("large", bytes(into), LARGE)


def _many(world: World) -> None:
    got = {i: bytes(body) for i, body in world.client().get_many([(BUCKET, key) for key in SMALL])}
    assert sorted(got) == list(range(len(SMALL)))
    for i, (key, was) in enumerate(SMALL.items()):
        world.one_version(key, got[i], was)


def _head(world: World) -> None:
    assert world.client().head_object(BUCKET, "large").size in {len(LARGE), len(world.server.get(BUCKET, "large"))}


def _list(world: World) -> None:
    manifest = s3dataset.Manifest.from_prefix(f"s3://{BUCKET}/small/", s3client_config=CONFIG)
    assert [manifest.key(i) for i in range(len(manifest))] == sorted(SMALL)


def _pages(world: World) -> None:
    pages = world.client().list_objects(BUCKET, "small/", max_keys=7)
    assert {info.key for page in pages for info in page.object_info} == set(SMALL)


def _put(world: World) -> None:
    world.client().put_many([(BUCKET, "target", NEW_SMALL)])
    assert world.server.get(BUCKET, "target") == NEW_SMALL


def _write_small(world: World) -> None:
    with s3dataset.S3Checkpoint(s3client_config=CONFIG).writer(f"s3://{BUCKET}/target") as writer:
        writer.write(NEW_SMALL)
    assert world.server.get(BUCKET, "target") == NEW_SMALL


def _write_large(world: World) -> None:
    with s3dataset.S3Checkpoint(s3client_config=CONFIG).writer(f"s3://{BUCKET}/target") as writer:
        for at in range(0, len(NEW_LARGE), MIB):
            writer.write(NEW_LARGE[at : at + MIB])
    assert world.server.get(BUCKET, "target") == NEW_LARGE


def _copy(world: World) -> None:
    world.client().copy_object(BUCKET, "small/03", BUCKET, "target")
    assert world.server.get(BUCKET, "target") == SMALL["small/03"]


def _delete(world: World) -> None:
    world.client().delete_object(BUCKET, "small/05")
    assert "small/05" not in world.server.keys(BUCKET)


def _delete_many(world: World) -> None:
    keys = list(SMALL)[:5]
    errors = world.client().delete_objects(BUCKET, keys)
    left = set(keys) & set(world.server.keys(BUCKET))
    assert len(errors) == len(left), (errors, left)
    if errors:
        raise s3dataset.S3Exception(f"s3://{BUCKET}: not deleted: {sorted(left)}")


def _reader(world: World) -> None:
    pieces = []
    with world.client().get_object(BUCKET, "large") as reader:
        while piece := reader.read(700_001):
            pieces.append(piece)
    world.one_version("large", b"".join(pieces), LARGE)


def _reader_seeks(world: World) -> None:
    with world.client().get_object(BUCKET, "large") as reader:
        now = None
        for offset in (-100, -3 * MIB, -8 * MIB):
            start = reader.seek(max(offset, -reader.size), io.SEEK_END)
            piece = reader.read(50_000)
            if piece != LARGE[start : start + 50_000]:
                now = now or world.server.get(BUCKET, "large")
                assert piece == now[start : start + 50_000]
        assert now is None or now != LARGE


def read_all(reader: s3dataset.S3Reader) -> tuple[str, bytes]:
    return reader.key, reader.read()


def _as_is(batch: list[Any]) -> list[Any]:
    return batch


def _samples(world: World, dataset: Any, workers: int) -> None:
    seen = [sample for batch in DataLoader(dataset, 3, num_workers=workers, collate_fn=_as_is) for sample in batch]
    assert sorted(key for key, _ in seen) == sorted(SMALL), "a sample twice, or missing"
    for key, data in seen:
        world.one_version(key, data, SMALL[key])


def _map(workers: int) -> Callable[[World], None]:
    def use(world: World) -> None:
        prefix = f"s3://{BUCKET}/small/"
        _samples(world, s3dataset.S3MapDataset.from_prefix(prefix, transform=read_all, s3client_config=CONFIG), workers)

    return use


def _iterable(workers: int) -> Callable[[World], None]:
    def use(world: World) -> None:
        prefix = f"s3://{BUCKET}/small/"
        dataset = s3dataset.S3IterableDataset.from_prefix(prefix, transform=read_all, s3client_config=CONFIG)
        _samples(world, dataset, workers)

    return use


def _checkpoint(world: World) -> None:
    state = {f"w{i}": torch.arange(300_000) + i for i in range(4)}
    checkpoint = s3dataset.S3Checkpoint(s3client_config=CONFIG)
    with checkpoint.writer(f"s3://{BUCKET}/target") as writer:
        torch.save(state, writer)
    with checkpoint.reader(f"s3://{BUCKET}/target") as reader:
        loaded = torch.load(reader)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


@dataclass(frozen=True, slots=True)
class Use:
    """A column of the matrix.

    Attributes:
        title: Its head.
        run: Does it; raises AssertionError where what it got is wrong.
        operation: Which requests meet the fault.
        writes: Whether it makes objects.
        written: What it makes of "target", where that is known beforehand: that or the old object is there afterwards.
        fetches: Whether it reads bytes of objects.
    """

    title: str
    run: Callable[[World], None]
    operation: str
    writes: bool = False
    fetches: bool = False
    written: bytes | None = None


USES: Final = (
    Use("get", _one, "GetObject", fetches=True),
    Use("get into memory", _into, "GetObject", fetches=True),
    Use("get many", _many, "GetObject", fetches=True),
    Use("head", _head, "HeadObject"),
    Use("manifest", _list, "ListObjectsV2"),
    Use("list pages", _pages, "ListObjectsV2"),
    Use("put", _put, "PutObject", writes=True, written=NEW_SMALL),
    Use("write small", _write_small, "PutObject", writes=True, written=NEW_SMALL),
    Use("create upload", _write_large, "CreateMultipartUpload", writes=True, written=NEW_LARGE),
    Use("upload part", _write_large, "UploadPart", writes=True, written=NEW_LARGE),
    Use("complete upload", _write_large, "CompleteMultipartUpload", writes=True, written=NEW_LARGE),
    Use("copy", _copy, "CopyObject", writes=True, written=SMALL["small/03"]),
    Use("delete", _delete, "DeleteObject"),
    Use("delete many", _delete_many, "DeleteObjects"),
    Use("reader", _reader, "GetObject", fetches=True),
    Use("reader, seeks", _reader_seeks, "GetObject", fetches=True),
    Use("map, here", _map(0), "GetObject", fetches=True),
    Use("map, workers", _map(2), "GetObject", fetches=True),
    Use("iterable, here", _iterable(0), "GetObject", fetches=True),
    Use("iterable, workers", _iterable(2), "GetObject", fetches=True),
    Use("any, checkpoint", _checkpoint, "*", writes=True, fetches=True),
)
