"""How a scan fetches shards: the right bytes, each once, and few where members are hopped over."""

import io
import os
import random
import tarfile
from collections.abc import Iterator

import pytest

from s3dataset import Manifest
from s3dataset._client import get_client
from s3dataset._manifest._shard_stream import Pace, ShardStream
from s3dataset.errors import ObjectChangedError
from s3dataset.testing import LocalS3

DATA = os.urandom(5 << 20) * 3


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    with LocalS3("bucket") as server:
        server.put("bucket", "shards/1", DATA)
        yield server


def stream(pace: Pace | None = None) -> ShardStream:
    (row,) = Manifest.from_prefix("s3://bucket/shards/").rows([0])
    return ShardStream(get_client(), row, pace or Pace(get_client(), 4))


@pytest.mark.parametrize("seed", range(6))
def test_it_is_a_file(server: LocalS3, seed: int) -> None:
    choose = random.Random(seed)
    file = io.BytesIO(DATA)
    forwards = seed % 2 == 0
    with stream() as shard:
        for _ in range(60):
            what = choose.choice(("read", "view", "seek", "hop", "read"))
            length = choose.choice((0, 1, 512, 100_000, 1 << 20, 3 << 20))
            if what == "read":
                assert shard.read(length) == file.read(length)
            elif what == "view":
                view = shard.read_view(length)
                assert view == file.read(len(view))
                assert len(view) or not length or file.tell() == len(DATA)
            else:
                target = file.tell() + choose.randrange(length + 1) * (1 if what == "hop" or forwards else -1)
                target = min(max(target, 0), len(DATA))
                assert shard.seek(target) == file.seek(target)
            assert shard.tell() == shard.position == file.tell()
        assert shard.seek(-100, 2) == len(DATA) - 100
        assert shard.read() == DATA[-100:]
        assert shard.read_view(10) == b""


def test_every_byte_comes_once_and_far_ahead(server: LocalS3) -> None:
    server.reset_stats()
    pace = Pace(get_client(), 4)
    with stream(pace) as shard:
        server.set_traffic(latency_s=0.02)
        assert shard.read() == DATA
    server.set_traffic(latency_s=0)
    stats = server.stats()
    assert stats["bytes_out"] < 1.01 * len(DATA) + 20_000
    assert stats["max_in_flight"] >= 3
    assert pace.in_full  # the next shard begins with all of its window
    server.reset_stats()
    with stream(pace) as shard:
        assert shard.read_view(10) == DATA[:10]
    assert server.stats()["requests"] - 1 == -(-len(DATA) // pace.part_bytes)  # one is the listing


def test_an_object_that_is_replaced(server: LocalS3) -> None:
    with stream() as shard:
        assert shard.read(10) == DATA[:10]
        server.put("bucket", "shards/1", DATA[::-1])
        try:
            with pytest.raises(ObjectChangedError):
                shard.read()
        finally:
            server.put("bucket", "shards/1", DATA)


def test_small_members_behind_large_ones_take_what_they_need(server: LocalS3) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for number in range(6):
            for suffix, nbytes in (("mp4", 8 << 20), ("jpg", 100 << 10), ("json", 1 << 10)):
                member = tarfile.TarInfo(f"{number:04d}.{suffix}")
                member.size = nbytes
                tar.addfile(member, io.BytesIO(bytes(nbytes)))
    server.put("bucket", "mixed/1.tar", archive.getvalue())
    listed = Manifest.from_prefix("s3://bucket/mixed/")
    server.reset_stats()
    assert listed.index("tar").num_samples == 6
    stats = server.stats()
    assert stats["bytes_out"] < 0.03 * listed.num_bytes
    assert stats["requests"] <= 2 * 6 + 2
