"""Whole objects are compared with the checksum that is stored with them: a flipped byte never reaches the program."""

import random
from collections.abc import Iterator

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


def test_it_can_be_switched_off(server: LocalS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
    server.add_fault(Fault.corrupt(at=0))
    client = Client()
    assert bytes(client.fetch(BUCKET, "1000", size=1000)) != DATA[:1000]
    assert client.stats()["reads_verified"] == 0
