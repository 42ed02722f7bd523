"""Reading: whole objects, ranges, many at once, into memory of the caller's."""

import io
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from s3dataset._client import GetRequest
from s3dataset._io import S3Client, S3ReaderConstructor
from s3dataset.errors import BucketNotFoundError, ObjectChangedError, ObjectNotFoundError, S3Exception
from s3dataset.testing.conformance._data import MIB, write
from s3dataset.testing.conformance._suite import Suite

__all__ = ["ReadingSemantics"]

READERS = {
    "sequential": S3ReaderConstructor.sequential(),
    "range_based": S3ReaderConstructor.range_based(),
    "unbuffered": S3ReaderConstructor.range_based(buffer_size=0),
    "dcp_optimized": S3ReaderConstructor.dcp_optimized(),
}


class ReadingSemantics(Suite):
    """What reading gives."""

    @pytest.mark.parametrize("size", [0, 1, 1000, 100 << 10, MIB, 8 * MIB, 8 * MIB + 1, 21 * MIB])
    def test_reads_what_was_written(self, client: S3Client, bucket: str, prefix: str, size: int) -> None:
        data = write(client, bucket, f"{prefix}k", size)
        assert client.get_object(bucket, f"{prefix}k").read() == data
        ((_, body),) = client.get_many([(bucket, f"{prefix}k")])
        assert bytes(body) == data
        memory = bytearray(size)
        client.read_into([(bucket, f"{prefix}k", (0, size), memory)])
        assert memory == data

    def test_ranges(self, client: S3Client, bucket: str, prefix: str) -> None:
        data = write(client, bucket, f"{prefix}k", 5000)
        for start, end in ((0, 1), (0, 5000), (4999, 5000), (17, 4000), (100, 100), (4000, 9000)):
            assert bytes(client.get_range(bucket, f"{prefix}k", start, end)) == data[start:end]

    def test_ranges_of_an_empty_object_are_empty(self, client: S3Client, bucket: str, prefix: str) -> None:
        write(client, bucket, f"{prefix}k", 0)
        assert bytes(client.get_range(bucket, f"{prefix}k", 0, 10)) == b""
        assert client.get_object(bucket, f"{prefix}k").read() == b""
        for reader_constructor in READERS.values():
            reader = client.get_object(bucket, f"{prefix}k", reader_constructor=reader_constructor)
            assert reader.seek(0, io.SEEK_END) == 0

    @pytest.mark.parametrize("kind", list(READERS))
    def test_a_reader_is_a_file(self, client: S3Client, bucket: str, prefix: str, kind: str) -> None:
        data = write(client, bucket, f"{prefix}k", 3 * MIB + 11)
        reader = client.get_object(bucket, f"{prefix}k", reader_constructor=READERS[kind])
        model = io.BytesIO(data)
        choose = random.Random(len(kind))
        for _ in range(60):
            match choose.randrange(4):
                case 0:
                    size = choose.choice([0, 1, 1000, 300_000])
                    assert reader.read(size) == model.read(size)
                case 1:
                    target = choose.randrange(len(data))
                    assert reader.seek(target) == model.seek(target)
                case 2:
                    back = choose.randrange(100_000)
                    assert reader.seek(-back, io.SEEK_END) == model.seek(-back, io.SEEK_END)
                case _:
                    ours, theirs = bytearray(70_000), bytearray(70_000)
                    assert reader.readinto(ours) == model.readinto(theirs)
                    assert ours == theirs
            assert reader.tell() == model.tell()
        assert reader.read() == model.read()
        reader.close()

    @pytest.mark.parametrize("ordered", [False, True])
    def test_reads_many_at_once(self, client: S3Client, bucket: str, prefix: str, ordered: bool) -> None:
        keys = [f"{prefix}{number:03}" for number in range(150)]
        client.put_many((bucket, key, key.encode() * 50) for key in keys)
        found = [(index, bytes(body)) for index, body in client.get_many([(bucket, k) for k in keys], ordered=ordered)]
        assert dict(found) == {index: key.encode() * 50 for index, key in enumerate(keys)}
        assert len(found) == len(keys)
        if ordered:
            assert [index for index, _ in found] == list(range(len(keys)))

    def test_threads_share_a_client(self, client: S3Client, bucket: str, prefix: str) -> None:
        data = write(client, bucket, f"{prefix}k", 200_000)

        def read(number: int) -> bool:
            body = client.get_range(bucket, f"{prefix}k", number, number + 100_000)
            return bytes(body) == data[number : number + 100_000]

        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(read, range(64)))

    def test_missing_objects_are_told_by_name(self, client: S3Client, bucket: str, prefix: str) -> None:
        with pytest.raises(ObjectNotFoundError, match=r"^Service error: The key does not exist") as caught:
            client.get_object(bucket, f"{prefix}missing").read()
        assert caught.value.uri == f"s3://{bucket}/{prefix}missing"
        assert (caught.value.status, caught.value.code) == (404, "NoSuchKey")
        with pytest.raises(ObjectNotFoundError) as caught:
            client.head_object(bucket, f"{prefix}missing")
        assert str(caught.value) == "Service error: The object was not found"
        assert f"s3://{bucket}/{prefix}missing (HeadObject" in caught.value.__notes__[0]
        results = dict(client.get_many([(bucket, f"{prefix}missing")] * 3, on_error="return"))
        assert all(isinstance(results[index], ObjectNotFoundError) for index in range(3))

    @pytest.mark.needs("missing_buckets")
    def test_missing_buckets_are_told_by_name(self, client: S3Client) -> None:
        missing = "s3dataset-no-such-bucket-0f7e"
        with pytest.raises(BucketNotFoundError, match=r"^Service error: The bucket does not exist"):
            client.get_object(missing, "k").read()
        with pytest.raises(BucketNotFoundError):
            next(iter(client.list_objects(missing)))

    def test_an_etag_pins_the_version(self, client: S3Client, bucket: str, prefix: str) -> None:
        write(client, bucket, f"{prefix}k", 1000)
        etag = client.head_object(bucket, f"{prefix}k").etag
        assert len(client.get_range(bucket, f"{prefix}k", 0, 10, etag=etag)) == 10
        write(client, bucket, f"{prefix}k", 1000, salt=1)
        with pytest.raises(ObjectChangedError):
            client.get_range(bucket, f"{prefix}k", 0, 10, etag=etag)
        with pytest.raises(ObjectChangedError):
            list(client.get_many([GetRequest(bucket, f"{prefix}k", etag=etag)]))

    def test_a_reader_never_mixes_versions(self, client: S3Client, bucket: str, prefix: str) -> None:
        data = write(client, bucket, f"{prefix}k", 24 * MIB)
        reader = client.get_object(bucket, f"{prefix}k", reader_constructor=S3ReaderConstructor.range_based())
        assert reader.read(1000) == data[:1000]
        write(client, bucket, f"{prefix}k", 24 * MIB, salt=1)
        reader.seek(20 * MIB)
        with pytest.raises(ObjectChangedError, match=f"{prefix}k"):
            reader.read(1000)
        reader.close()

    @pytest.mark.needs("signatures")
    def test_wrong_keys_are_refused(self, bucket: str, prefix: str) -> None:
        client = self.client_with(credentials=("WRONGKEYWRONGKEYWRON", "wrong"), max_attempts=1)
        with pytest.raises(S3Exception) as caught:
            client.head_object(bucket, f"{prefix}k")
        assert caught.value.status == 403
        client.close()
