"""Writing: single PUTs, multipart uploads, conditions, copies, deletes."""

import time

import pytest

from s3dataset._io import S3Client, S3Writer
from s3dataset.errors import ObjectNotFoundError, PreconditionFailedError
from s3dataset.testing.conformance._data import MIB, make, write
from s3dataset.testing.conformance._keys import ODD_KEYS
from s3dataset.testing.conformance._suite import Suite

__all__ = ["WritingSemantics"]


class WritingSemantics(Suite):
    """What writing leaves behind."""

    @pytest.mark.parametrize("size", [0, 1, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 20 * MIB])
    def test_a_written_object_is_whole(self, client: S3Client, bucket: str, prefix: str, size: int) -> None:
        before = time.time()
        data = make(size)
        with client.put_object(bucket, f"{prefix}k") as writer:
            for start in range(0, size, 3_000_000):
                writer.write(data[start : start + 3_000_000])
            with pytest.raises(ObjectNotFoundError):
                client.head_object(bucket, f"{prefix}k")
        info = client.head_object(bucket, f"{prefix}k")
        assert info.size == size
        if "etags_of_uploads" not in self.lacks:
            assert writer.result.etag == info.etag
        # Clocks of machines differ.
        assert abs(info.last_modified - before) < 900
        assert client.get_object(bucket, f"{prefix}k").read() == data

    @pytest.mark.parametrize("checksum", ["CRC64NVME", "CRC32C", "CRC32", None])
    def test_any_checksum(self, bucket: str, prefix: str, checksum: str | None) -> None:
        if checksum == "CRC64NVME" and "crc64nvme" in self.lacks:
            pytest.skip("this store lacks crc64nvme")
        client = self.client_with(checksum=checksum, part_size=5 * MIB)
        client.put_many([(bucket, f"{prefix}small", b"small")])
        data = write(client, bucket, f"{prefix}large", 12 * MIB)
        assert bytes(client.get_range(bucket, f"{prefix}small", 0, 10)) == b"small"
        assert client.get_object(bucket, f"{prefix}large").read() == data
        client.close()

    def test_a_second_write_replaces_the_first(self, client: S3Client, bucket: str, prefix: str) -> None:
        write(client, bucket, f"{prefix}k", 9 * MIB)
        first = client.head_object(bucket, f"{prefix}k").etag
        data = write(client, bucket, f"{prefix}k", 100, salt=1)
        assert client.head_object(bucket, f"{prefix}k").etag != first
        assert client.get_object(bucket, f"{prefix}k").read() == data

    @pytest.mark.parametrize("size", [1000, 20 * MIB])
    def test_an_exception_publishes_nothing(self, client: S3Client, bucket: str, prefix: str, size: int) -> None:
        old = write(client, bucket, f"{prefix}k", 10)

        def fail() -> None:
            with client.put_object(bucket, f"{prefix}k") as writer:
                writer.write(make(size))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert client.get_object(bucket, f"{prefix}k").read() == old

    def test_writes_many_at_once(self, client: S3Client, bucket: str, prefix: str) -> None:
        objects = [(bucket, f"{prefix}{number:03}", make(number)) for number in range(120)]
        infos = client.put_many(objects)
        assert [(info.key, info.size) for info in infos] == [(key, len(data)) for _, key, data in objects]
        found = client.get_many([(bucket, key) for _, key, _ in objects], ordered=True)
        assert [bytes(body) for _, body in found] == [data for _, _, data in objects]

    @pytest.mark.parametrize("key", ODD_KEYS)
    def test_any_key(self, client: S3Client, bucket: str, prefix: str, key: str) -> None:
        self.skip_unless_possible(key)
        key = prefix + key
        client.put_many([(bucket, key, b"bytes")])
        assert bytes(client.get_range(bucket, key, 0, 5)) == b"bytes"
        assert client.head_object(bucket, key).size == 5
        assert [entry.key for page in client.list_objects(bucket, prefix) for entry in page.object_info] == [key]
        if "copy" not in self.lacks:
            client.copy_object(bucket, key, bucket, f"{prefix}copy")
            assert bytes(client.get_range(bucket, f"{prefix}copy", 0, 5)) == b"bytes"
        assert client.delete_objects(bucket, [key]) == []
        with pytest.raises(ObjectNotFoundError):
            client.head_object(bucket, key)

    @pytest.mark.needs("conditional_writes")
    def test_conditional_puts(self, client: S3Client, bucket: str, prefix: str) -> None:
        new = [("if-none-match", "*")]
        (info,) = client.put_many([(bucket, f"{prefix}k", b"first", new)])
        with pytest.raises(PreconditionFailedError):
            client.put_many([(bucket, f"{prefix}k", b"second", new)])
        client.put_many([(bucket, f"{prefix}k", b"third", [("if-match", info.etag)])])
        with pytest.raises(PreconditionFailedError):
            client.put_many([(bucket, f"{prefix}k", b"fourth", [("if-match", info.etag)])])
        assert bytes(client.get_range(bucket, f"{prefix}k", 0, 10)) == b"third"

    @pytest.mark.needs("conditional_completion")
    def test_conditional_uploads(self, client: S3Client, bucket: str, prefix: str) -> None:
        data = write(client, bucket, f"{prefix}k", 10 * MIB)
        writer = S3Writer(client, bucket, f"{prefix}k", if_none_match=True)
        writer.write(make(10 * MIB, salt=1))
        with pytest.raises(PreconditionFailedError):
            writer.close()
        assert client.get_object(bucket, f"{prefix}k").read() == data
        with S3Writer(client, bucket, f"{prefix}k", if_match=client.head_object(bucket, f"{prefix}k").etag) as writer:
            writer.write(make(10 * MIB, salt=2))
        assert client.get_object(bucket, f"{prefix}k").read() == make(10 * MIB, salt=2)

    @pytest.mark.needs("storage_classes")
    def test_storage_classes(self, client: S3Client, bucket: str, prefix: str) -> None:
        with client.put_object(bucket, f"{prefix}k", storage_class="STANDARD_IA") as writer:
            writer.write(b"x")
        (page,) = client.list_objects(bucket, prefix)
        assert page.object_info[0].storage_class == "STANDARD_IA"

    def test_deleting(self, client: S3Client, bucket: str, prefix: str) -> None:
        write(client, bucket, f"{prefix}k", 1)
        for _ in range(2):
            client.delete_object(bucket, f"{prefix}k")
        with pytest.raises(ObjectNotFoundError):
            client.head_object(bucket, f"{prefix}k")

    def test_deleting_more_than_one_request_takes(self, client: S3Client, bucket: str, prefix: str) -> None:
        keys = [f"{prefix}{number}" for number in range(1100)]
        client.put_many((bucket, key, b"") for key in keys[:50])
        assert client.delete_objects(bucket, keys) == []
        assert [page.object_info for page in client.list_objects(bucket, prefix)] == [[]]

    @pytest.mark.needs("copy")
    @pytest.mark.parametrize("size", [0, 1000, 10 * MIB])
    def test_copying(self, client: S3Client, bucket: str, prefix: str, size: int) -> None:
        data = write(client, bucket, f"{prefix}k", size)
        client.copy_object(bucket, f"{prefix}k", bucket, f"{prefix}copy")
        assert client.get_object(bucket, f"{prefix}copy").read() == data

    @pytest.mark.needs("copy")
    def test_copying_what_is_not_there(self, client: S3Client, bucket: str, prefix: str) -> None:
        with pytest.raises(ObjectNotFoundError):
            client.copy_object(bucket, f"{prefix}missing", bucket, f"{prefix}copy")
