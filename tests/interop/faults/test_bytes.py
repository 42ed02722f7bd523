"""Bodies that are not what was sent."""

import gzip
import zlib
from typing import Any

import pytest
from tests.interop.errors import refused
from tests.interop.wire import Wire

from s3dataset.testing import Fault, LocalS3

from . import DATA, get


def test_one_wrong_byte(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.corrupt(at=300, xor=1))
    body = get(wire).body
    assert [place for place in range(len(DATA)) if body[place] != DATA[place]] == [300]
    assert get(wire).body == DATA


def test_chunked(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.chunked(times=None))
    answer = get(wire)
    assert (answer.body, "content-length" in answer.headers) == (DATA, False)
    assert get(wire, Range="bytes=5-9").body == DATA[5:10]


@pytest.mark.parametrize("delta", [-1, 1])
def test_wrong_lengths(server: LocalS3, wire: Wire, delta: int) -> None:
    server.add_fault(Fault.wrong_length(delta))
    answer = get(wire)
    assert answer.headers["content-length"] == str(len(DATA) + delta)
    assert answer.short == (delta > 0)


@pytest.mark.parametrize("range_", ["bytes=0-399", "bytes=300-", "bytes=300-300", "bytes=100-10000"])
def test_one_wrong_byte_of_an_object_however_it_is_read(server: LocalS3, wire: Wire, range_: str) -> None:
    server.add_fault(Fault.corrupt(at=300, xor=4, of="object", times=None))
    wrong = bytearray(DATA)
    wrong[300] ^= 4
    start, end = range_.removeprefix("bytes=").split("-")
    assert get(wire, Range=range_).body == wrong[int(start) : int(end or len(DATA)) + 1]
    assert get(wire, Range="bytes=301-").body == DATA[301:]


def test_one_wrong_byte_of_an_upload(server: LocalS3, wire: Wire, s3: Any) -> None:
    server.add_fault(Fault.corrupt(at=3, of="upload", times=2))
    assert wire.request("PUT", "/bucket/k", b"0123456").status == 200
    assert server.get("bucket", "k") == b"012\xcc456"
    with refused(400, "XAmzContentSHA256Mismatch"):
        s3.put_object(Bucket="bucket", Key="k", Body=b"0123456")


def test_chunks_of_every_kind(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.chunked(chunk_bytes=1000, extensions=True, trailers=True))
    wire.send(wire.head("GET", "/bucket/k"))
    wire.head_of_answer()
    sizes = []
    body = b""
    while size := int(wire.line().partition(b";")[0], 16):
        sizes.append(size)
        body += wire.exactly(size)
        assert wire.line() == b""
    trailers = [wire.line(), wire.line(), wire.line()]
    assert (body, max(sizes)) == (DATA, 1000)
    assert trailers[0].startswith(b"x-amz-meta-late: ")
    assert trailers[2] == b""
    assert get(wire).body == DATA


def test_chunks_that_end_early(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.chunked(chunk_bytes=4000), Fault.truncate(at=5000))
    with pytest.raises(EOFError):
        get(wire)
    # The second chunk is shorter than it said.
    assert wire.received == DATA[4000:5000]


def test_chunks_that_take_a_rest(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.chunked(), Fault.stall(at=100, duration_s=0.1))
    assert get(wire).body == DATA
    assert get(wire).body == DATA


def test_compressed(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.compressed(times=4))
    answer = get(wire)
    assert (answer.headers["content-encoding"], gzip.decompress(answer.body)) == ("gzip", DATA)
    answer = get(wire, Range="bytes=10-19")
    assert (answer.status, zlib.decompress(answer.body, wbits=31)) == (206, DATA[10:20])
    assert b"<Code>NoSuchKey</Code>" in gzip.decompress(wire.request("GET", "/bucket/missing").body)
    assert wire.request("HEAD", "/bucket/k").headers["content-length"] != str(len(DATA))


def test_ranges_that_are_not_those_asked_for(server: LocalS3, wire: Wire) -> None:
    server.add_fault(Fault.ignore_range(), Fault.shift_range(5, after=1))
    whole, shifted = (get(wire, Range="bytes=10-19") for _ in range(2))
    assert (whole.status, whole.body) == (200, DATA)
    expected = (206, DATA[15:25], f"bytes 15-24/{len(DATA)}")
    assert (shifted.status, shifted.body, shifted.headers["content-range"]) == expected
