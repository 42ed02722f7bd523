"""Whole objects are compared with the checksum that is stored with them: a flipped byte never reaches the program."""

import dataclasses
import random
from collections.abc import Iterator
from typing import Any

import pytest

import s3dataset
from s3dataset import errors
from s3dataset._client import Client, GetRequest
from s3dataset.testing import Fault, LocalS3

BUCKET = "bucket"
MIB = 1 << 20
DATA = random.Random(11).randbytes(3 * MIB)
SIZES = (1, 1000, 100 << 10, 3 * MIB)


@pytest.fixture(scope="module")
def running() -> Iterator[LocalS3]:
    with LocalS3(BUCKET) as server:
        for size in SIZES:
            Client().put_many([(BUCKET, f"{size}", DATA[:size])])
        yield server


@pytest.fixture
def server(running: LocalS3) -> Iterator[LocalS3]:
    yield running
    running.clear_faults()


def readings(size: int) -> dict[str, bytes]:
    """The object, in each way in which its size is known and it comes with one answer."""
    key = f"{size}"
    client = s3dataset.S3Client()
    info = client.head_object(BUCKET, key)
    map_dataset = s3dataset.S3MapDataset.from_prefix(f"s3://{BUCKET}/", transform=read, pattern=key)
    iterable = s3dataset.S3IterableDataset.from_prefix(f"s3://{BUCKET}/", transform=read, pattern=key)
    request = GetRequest(BUCKET, key, size=size)
    ways = {
        "get_many": lambda: bytes(next(client.get_many([request]))[1]),
        "batch": lambda: map_dataset.__getitems__([0])[0],
        "iterable": lambda: next(iter(iterable)),
        "buffer": lambda: bytes(client.get_object(BUCKET, key, object_info=info).getbuffer()),
    }
    if size <= 2 * MIB:  # larger ones a reader fetches in parallel ranges
        ways["reader"] = lambda: client.get_object(BUCKET, key, object_info=info).read()
        ways["index"] = lambda: map_dataset[0]
    return {name: way() for name, way in ways.items()}


def read(reader: s3dataset.S3Reader) -> bytes:
    return reader.read()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("nth", range(4))
def test_a_flipped_byte_is_fetched_again(server: LocalS3, size: int, nth: int) -> None:
    server.add_fault(Fault.corrupt(at=random.Random(nth).randrange(size), after=nth, operation="GetObject"))
    for name, data in readings(size).items():
        assert data == DATA[:size], name
    assert sum(server.fault_counts().values()) == 1


def test_bytes_that_stay_wrong_are_an_error(server: LocalS3) -> None:
    server.add_fault(Fault.corrupt(at=500, times=None, operation="GetObject"))
    client = s3dataset.S3Client(s3client_config=s3dataset.S3ClientConfig(max_attempts=2))
    with pytest.raises(errors.ChecksumMismatchError, match=rf"s3://{BUCKET}/1000.*CRC64NVME") as caught:
        list(client.get_many([GetRequest(BUCKET, "1000", size=1000)]))
    assert caught.value.attempts == 2


def test_a_chunked_body_is_compared_too(server: LocalS3) -> None:
    server.add_fault(Fault.chunked(times=2), Fault.corrupt(at=999))
    assert bytes(Client().fetch(BUCKET, "1000", size=1000)) == DATA[:1000]


def test_statistics_tell_what_was_compared(server: LocalS3) -> None:
    server.boto3_client().put_object(Bucket=BUCKET, Key="sha", Body=b"x", ChecksumAlgorithm="SHA256")
    client = Client()
    client.fetch(BUCKET, "1000", size=1000)
    client.fetch(BUCKET, "sha", size=1)
    client.fetch(BUCKET, "1000", 0, 10)  # a part cannot be compared
    stats = client.stats()
    assert (stats["reads_verified"], stats["reads_unverified"]) == (1, 1)


@pytest.mark.parametrize("size", SIZES)
def test_objects_of_unknown_size_are_compared_where_that_is_asked_for(server: LocalS3, size: int) -> None:
    """An answer to a range, which is how they are asked for, tells no checksum."""
    server.add_fault(Fault.corrupt(at=size // 2, operation="GetObject", times=2))
    client = s3dataset.S3Client()
    ((_, unverified),) = client.get_many([(BUCKET, f"{size}")])
    assert bytes(unverified) != DATA[:size]
    ((_, verified),) = client.get_many([(BUCKET, f"{size}")], verify=True)
    assert bytes(verified) == DATA[:size]
    stats = client.stats()
    assert (stats["reads_verified"], stats["reads_unverified"]) == (1, 0)


def test_objects_of_unknown_size_that_stay_wrong_are_an_error(server: LocalS3) -> None:
    server.add_fault(Fault.corrupt(at=500, times=None, operation="GetObject"))
    client = s3dataset.S3Client(s3client_config=s3dataset.S3ClientConfig(max_attempts=2))
    with pytest.raises(errors.ChecksumMismatchError, match=rf"s3://{BUCKET}/1000.*CRC64NVME"):
        list(client.get_many([(BUCKET, "1000")], verify=True))


def test_it_can_be_switched_off(server: LocalS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
    server.add_fault(Fault.corrupt(at=0))
    client = Client()
    assert bytes(client.fetch(BUCKET, "1000", size=1000)) != DATA[:1000]
    assert client.stats()["reads_verified"] == 0


# -- Whole objects that come in parallel ranges

LARGE = random.Random(12).randbytes(41 * MIB + 5)
SPLIT = s3dataset.S3ClientConfig(part_size=5 * MIB, max_attempts=3)


def same(body: Any, data: bytes = LARGE) -> bool:
    return memoryview(body) == data


@pytest.fixture(scope="module")
def large(running: LocalS3) -> str:
    s3 = s3dataset.S3Client(s3client_config=SPLIT)
    with s3.put_object(BUCKET, "large") as writer:
        writer.write(LARGE)
    return "large"


@pytest.mark.parametrize("size", [None, len(LARGE)])
def test_ranges_are_compared_with_one_more_request(server: LocalS3, large: str, size: int | None) -> None:
    client = Client(s3client_config=SPLIT)
    before = len(server.requests("GetObject")), len(server.requests("HeadObject"))
    ((_, body),) = client.get_many([GetRequest(BUCKET, large, size=size)], verify=True)
    assert same(body)
    stats = client.stats()
    assert (stats["reads_verified"], stats["reads_unverified"]) == (1, 0)
    assert (len(server.requests("GetObject")), len(server.requests("HeadObject"))) == (before[0] + 9, before[1] + 1)
    assert same(client.fetch(BUCKET, large, size=size))
    assert same(client.fetch(BUCKET, large, 5, 30 * MIB, verify=True), LARGE[5 : 30 * MIB])
    assert len(server.requests("HeadObject")) == before[1] + 1, "unasked, and parts of an object, are not compared"


@pytest.mark.parametrize("size", [None, len(LARGE)])
@pytest.mark.parametrize("nth", range(9))
def test_a_flipped_byte_in_any_range_is_found(server: LocalS3, large: str, size: int | None, nth: int) -> None:
    at = random.Random(nth).randrange(MIB)  # of the range
    server.add_fault(Fault.corrupt(at=at, after=nth, operation="GetObject"))
    client = Client(s3client_config=SPLIT)
    assert same(client.fetch(BUCKET, large, size=size, verify=True))
    assert sum(server.fault_counts().values()) == 1
    assert client.stats()["retries"] == 1


def test_a_flipped_byte_in_ranges_that_stays_is_an_error(server: LocalS3, large: str) -> None:
    server.add_fault(Fault.corrupt(at=17, times=None, operation="GetObject"))
    with pytest.raises(errors.ChecksumMismatchError, match=rf"s3://{BUCKET}/{large}.*CRC64NVME"):
        Client(s3client_config=SPLIT).fetch(BUCKET, large, verify=True)


@pytest.mark.parametrize("name", ["CRC32", "CRC32C"])
def test_ranges_are_compared_with_other_checksums_too(server: LocalS3, name: Any) -> None:
    Client(s3client_config=s3dataset.S3ClientConfig(checksum=name)).put_many([(BUCKET, name, LARGE)])
    client = Client(s3client_config=SPLIT)
    assert same(client.fetch(BUCKET, name, verify=True))
    assert client.stats()["reads_verified"] == 1
    server.add_fault(Fault.corrupt(at=3, after=4, operation="GetObject"))
    assert same(client.fetch(BUCKET, name, verify=True))
    assert client.stats()["retries"] == 1


@pytest.mark.parametrize("fault", [Fault.status(403, times=None), Fault.headers({"x-amz-checksum-crc64nvme": None})])
def test_ranges_are_unverified_where_nothing_can_be_compared(server: LocalS3, large: str, fault: Fault) -> None:
    server.add_fault(dataclasses.replace(fault, operation="HeadObject"))
    client = Client(s3client_config=SPLIT)
    assert same(client.fetch(BUCKET, large, verify=True))
    assert (client.stats()["reads_verified"], client.stats()["reads_unverified"]) == (0, 1)


def test_ranges_are_compared_beside_many_others(server: LocalS3, large: str) -> None:
    server.add_fault(Fault.corrupt(at=500_000, every=7, times=5, operation="GetObject"))
    client = Client(s3client_config=SPLIT)
    requests = [GetRequest(BUCKET, large, size=len(LARGE) if number % 2 else None) for number in range(12)]
    for _, body in client.get_many(requests, verify=True):
        assert same(body)
    assert client.stats()["reads_verified"] == 12
