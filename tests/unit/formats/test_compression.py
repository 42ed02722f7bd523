"""gzip, BGZF and zstd: other people's files, ours in other people's hands, and files made to harm."""

import gzip
import io
import shutil
import struct
import subprocess
import tracemalloc
import zlib
from array import array
from typing import Any

import pytest
import zstandard
from tests.shards import parsed, read, recorded, written

from s3dataset.errors import DecodeError, UnindexableError
from s3dataset.formats import JSONL, Cursor, Tar, Text, TFRecord

CONTENT = b"".join(b"line %d\n" % number * 3 for number in range(20_000))


def lines(data: bytes) -> list[str]:
    return [one["text"] for one in read(Text(), data)]


EXPECTED = lines(CONTENT)


def frames(content: bytes, size: int, **options: Any) -> bytes:
    compressor = zstandard.ZstdCompressor(**options)
    return b"".join(compressor.compress(content[at : at + size]) for at in range(0, len(content), size))


def test_ours_are_read_by_the_libraries() -> None:
    plain, _ = written("tar", 200)
    assert gzip.decompress(written("tar", 200, "gz")[0]) == plain
    packed = written("tar", 200, "zst")[0]
    with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as reader:
        assert reader.read() == plain


@pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd here")
def test_the_command_zstd() -> None:
    plain, _ = written("tar", 200)
    packed = written("tar", 200, "zst")[0]
    assert subprocess.run(["zstd", "-dc"], input=packed, capture_output=True, check=True).stdout == plain
    for options in (["-1"], ["-19", "--no-check"], ["--long=25"], ["-5", "--no-content-size"]):
        packed = subprocess.run(["zstd", "-c", *options], input=CONTENT, capture_output=True, check=True).stdout
        assert lines(packed) == EXPECTED
        assert lines(packed + packed) == EXPECTED * 2


def test_zstd_in_many_forms() -> None:
    for packed in (
        zstandard.compress(CONTENT),
        frames(CONTENT, 10_000),
        frames(CONTENT, 70_000, write_checksum=True, write_content_size=False),
        frames(CONTENT, 100_000, threads=2),
        struct.pack("<II", 0x184D2A53, 5) + b"hello" + frames(CONTENT, 100_000) + struct.pack("<II", 0x184D2A50, 0),
        zstandard.compress(b"") + zstandard.compress(CONTENT),
    ):
        assert lines(packed) == EXPECTED
        index = Text().scan(io.BytesIO(packed))
        assert recorded(Text(), packed) == index
        for number in (0, 1, 5000, len(index) - 1):
            assert parsed(Text(), packed, index, number)["text"] == EXPECTED[number]


def test_gzip_in_many_forms() -> None:
    with_name = io.BytesIO()
    with gzip.GzipFile("name.txt", "wb", fileobj=with_name) as file:
        file.write(CONTENT)
    for packed in (
        gzip.compress(CONTENT),
        gzip.compress(CONTENT[:1000]) + gzip.compress(b"") + gzip.compress(CONTENT[1000:]),
        gzip.compress(CONTENT) + bytes(700),
        with_name.getvalue(),
    ):
        assert lines(packed) == EXPECTED
        with pytest.raises(UnindexableError, match="gzip"):
            Text().scan(io.BytesIO(packed))


def test_blocks_are_found_again() -> None:
    out = io.BytesIO()
    with Text().writer(out, compression="gz") as writer:
        for text in EXPECTED:
            writer.write({"text": text})
        index = writer.finish()
    packed = out.getvalue()
    assert packed.endswith(bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000"))
    assert index.frames is not None
    assert max(b - a for a, b in zip(index.frames.starts, index.frames.stops, strict=True)) <= 1 << 16
    assert lines(packed) == EXPECTED
    # Where a member of another kind follows, nothing behind it can be found.
    with pytest.raises(UnindexableError):
        Text().scan(io.BytesIO(gzip.compress(CONTENT) + packed))


def test_a_single_large_frame_has_no_index() -> None:
    content = CONTENT * 10
    packed = zstandard.compress(content)
    assert len(content) > 4 << 20
    with pytest.raises(UnindexableError, match="s3dataset pack"):
        Text().scan(io.BytesIO(packed), url="s3://b/x")
    cursor = Cursor(ends=array("Q"))
    assert sum(1 for _ in Text().read(io.BytesIO(packed), cursor=cursor)) == len(EXPECTED) * 10
    assert (cursor.ends, cursor.frames) == (None, None)
    assert len(Text().scan(io.BytesIO(packed + packed))) == len(EXPECTED) * 20


class Counting(io.BytesIO):
    read_bytes = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.read_bytes += len(data)
        return data


def test_reading_goes_on_in_the_frame_that_holds_the_place() -> None:
    import random

    words = [random.Random(number).randbytes(500).hex() for number in range(30_000)]
    for compression, by_table in (("zst", True), ("gz", False)):
        out = io.BytesIO()
        with Text().writer(out, compression=compression) as writer:
            for word in words:
                writer.write({"text": word})
            index = writer.finish()
        data = out.getvalue()
        at = 29_000
        for frames in [index.frames] + [None] * by_table:
            stream = Counting(data)
            cursor = Cursor(number=at, offset=index.ends[at - 1], frames=frames)
            assert [one["text"] for one in Text().read(stream, cursor=cursor)] == words[at:]
            assert stream.read_bytes < len(data) // 5


def test_a_table_of_frames_that_cannot_be_right_is_not_used() -> None:
    words = [f"{number:0900d}" for number in range(15_000)]
    out = io.BytesIO()
    with Text().writer(out, compression="zst") as writer:
        for word in words:
            writer.write({"text": word})
        index = writer.finish()
    data = bytearray(out.getvalue())
    data[-20] ^= 0xFF
    cursor = Cursor(number=14_000, offset=index.ends[13_999])
    assert [one["text"] for one in Text().read(io.BytesIO(bytes(data)), cursor=cursor)] == words[14_000:]


def test_a_frame_needs_the_dictionary_it_was_made_with() -> None:
    dictionary = zstandard.ZstdCompressionDict(CONTENT[:5000], dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    trained = zstandard.train_dictionary(2000, [b"line %d and so on %d" % (n, n * n) for n in range(4000)])
    packed = zstandard.ZstdCompressor(dict_data=trained).compress(CONTENT)
    with pytest.raises(DecodeError, match="dictionary"):
        lines(packed)
    with pytest.raises(DecodeError, match="zstd"):
        lines(zstandard.ZstdCompressor(dict_data=dictionary).compress(CONTENT[:3000]))


@pytest.mark.parametrize("kind", ["gz", "zst", "rle"])
def test_bombs_cost_no_memory(kind: str) -> None:
    size = 256 << 20
    if kind == "gz":
        deflater = zlib.compressobj(9, zlib.DEFLATED, 31)
        data = b"".join(deflater.compress(bytes(1 << 20)) for _ in range(size >> 20)) + deflater.flush()
    elif kind == "zst":
        data = zstandard.ZstdCompressor(level=1).compress(bytes(size))
    else:  # a block of four bytes for each 128 KiB
        block = lambda last: struct.pack("<I", last | 1 << 1 | (128 << 10) << 3)[:3] + b"\0"  # noqa: E731
        data = b"\x28\xb5\x2f\xfd" + b"\x00\x50" + block(0) * (size // (128 << 10)) + block(1)
    tracemalloc.start()
    try:
        assert read(Tar(), data) == []  # zeros are the end of an archive
        with pytest.raises(DecodeError, match="longer than"):
            read(JSONL(max_sample_bytes=1 << 20), data)
        for form in (Tar(), Text(max_sample_bytes=1 << 20)):
            with pytest.raises((DecodeError, UnindexableError)):
                form.scan(io.BytesIO(data))
        assert tracemalloc.get_traced_memory()[1] < 30 << 20
    finally:
        tracemalloc.stop()


def test_claims_of_size_cost_no_memory() -> None:
    huge = struct.pack("<Q", 2 << 30)
    from s3dataset.formats._tfrecord import masked_crc

    data = huge + struct.pack("<I", masked_crc(huge)) + b"few bytes"
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match="cut short"):
            read(TFRecord(), data)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_a_window_larger_than_what_is_let() -> None:
    with pytest.raises(DecodeError, match="zstd data cannot be decompressed"):
        read(Text(), b"\x28\xb5\x2f\xfd" + b"\x00\xa8" + bytes(20))


def test_what_follows_compressed_data_must_be_such() -> None:
    for data in (gzip.compress(CONTENT), zstandard.compress(CONTENT), written("tar", 5, "gz")[0]):
        with pytest.raises(DecodeError, match="followed by"):
            read(Text() if data[3] != 4 else Tar(), data + b"something else")


def test_a_length_of_tfrecord_that_looks_like_gzip() -> None:
    out = io.BytesIO()
    with TFRecord(example=False).writer(out) as writer:
        writer.write({"record": bytes(0x088B1F)})
    data = out.getvalue()
    assert data.startswith(b"\x1f\x8b\x08")
    assert len(read(TFRecord(example=False), data)) == 1
    assert len(TFRecord(example=False).scan(io.BytesIO(data))) == 1
    assert len(read(TFRecord(example=False), gzip.compress(data))) == 1


def test_frames_that_are_none() -> None:
    for form in (Tar(), Text()):
        with pytest.raises(DecodeError, match="Index the shard anew"):
            form.decode(memoryview(b"no frame"))


def test_an_unknown_compression() -> None:
    with pytest.raises(ValueError, match="compression='xz'"):
        Text().writer(io.BytesIO(), compression="xz")  # type: ignore[arg-type]
