"""HTTP of the local S3: framing, codings of bodies, connections."""

import base64
import zlib
from collections.abc import Iterator

import pytest

from s3dataset.testing import LocalS3

from .wire import Signer, Wire


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    with LocalS3("bucket", public=True, anonymous_writes=True, activate=False) as server:
        yield server


@pytest.fixture
def wire(server: LocalS3) -> Iterator[Wire]:
    server.reset_stats()
    with Wire(server) as wire:
        yield wire


def test_a_connection_serves_many_requests(server: LocalS3, wire: Wire) -> None:
    for number in range(5):
        body = str(number).encode()
        assert wire.request("PUT", "/bucket/k", body).status == 200
        assert wire.request("GET", "/bucket/k").body == body
        assert wire.request("HEAD", "/bucket/k").headers["content-length"] == "1"
        assert wire.request("GET", "/bucket/missing").status == 404
        assert wire.request("DELETE", "/bucket/k").status == 204
    assert server.stats()["connections"] == 1


def test_requests_may_come_in_any_pieces_and_before_the_answer(wire: Wire) -> None:
    put = wire.head("PUT", "/bucket/k", Content_Length="5") + b"bytes"
    for byte in put:
        wire.send(bytes([byte]))
    assert wire.answer().status == 200
    wire.send(wire.head("GET", "/bucket/k") * 3)
    assert [wire.answer().body for _ in range(3)] == [b"bytes"] * 3


def test_chunked_bodies(server: LocalS3, wire: Wire) -> None:
    wire.send(wire.head("PUT", "/bucket/chunked", Transfer_Encoding="chunked"))
    wire.send(b"5\r\nhello\r\n7;ext=1\r\n, world\r\n0\r\nTrailer: x\r\n\r\n")
    assert wire.answer().status == 200
    assert server.get("bucket", "chunked") == b"hello, world"
    assert wire.request("GET", "/bucket/chunked").body == b"hello, world"


def test_a_body_is_asked_for_only_when_it_is_wanted(wire: Wire) -> None:
    wire.send(wire.head("PUT", "/bucket/k", Content_Length="5", Expect="100-continue"))
    assert wire.head_of_answer()[0] == 100
    wire.send(b"bytes")
    assert wire.answer().status == 200
    wire.send(wire.head("PUT", "/no-such-bucket/k", Content_Length="5", Expect="100-continue"))
    assert wire.answer().status == 403
    assert wire.ended()


def test_a_put_needs_a_length(wire: Wire) -> None:
    wire.send(wire.head("PUT", "/bucket/k"))
    answer = wire.answer()
    assert (answer.status, b"MissingContentLength" in answer.body) == (411, True)


def test_what_is_no_http_is_refused(wire: Wire) -> None:
    wire.send(b"\x16\x03\x01 not HTTP\r\n\r\n")
    assert wire.answer().status == 400
    assert wire.ended()


def test_endless_heads_are_refused(wire: Wire) -> None:
    wire.send(b"GET / HTTP/1.1\r\n" + b"x-a: b\r\n" * 20_000)
    assert wire.head_of_answer()[0] == 400


def test_broken_escapes_are_refused(wire: Wire) -> None:
    for path in ("/bucket/%zz", "/bucket/%ff", "/bucket?prefix=%"):
        assert wire.request("GET", path).status == 400


def test_a_head_has_no_body(server: LocalS3, wire: Wire) -> None:
    server.put("bucket", "k", b"12345")
    answer = wire.request("HEAD", "/bucket/k")
    assert (answer.status, answer.headers["content-length"]) == (200, "5")
    assert wire.request("HEAD", "/bucket/missing").status == 404
    assert wire.request("GET", "/bucket/k").body == b"12345"


def test_close_is_obeyed(wire: Wire) -> None:
    assert wire.request("GET", "/bucket/missing", Connection="close").status == 404
    assert wire.ended()


class TestAwsChunked:
    """Bodies in S3's own coding, below which the signature of each chunk covers the one before."""

    PIECES = (b"a" * 70_000, b"b" * 8, b"")

    def put(self, wire: Wire, pieces: tuple[bytes, ...], *, spoil: bool = False, trailer: bytes | None = None) -> int:
        kind = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
        headers = {"content-encoding": "aws-chunked", "x-amz-decoded-content-length": str(sum(map(len, pieces)))}
        if trailer is not None:
            kind += "-TRAILER"
            headers["x-amz-trailer"] = "x-amz-checksum-crc32"
        headers["x-amz-content-sha256"] = kind
        signer = Signer(wire.server)
        headers, signature = signer.authorize("PUT", "/bucket/coded", headers)
        body = b""
        for piece in pieces:
            signature = signer.chunk(signature, piece)
            body += f"{len(piece):x};chunk-signature={signature}\r\n".encode()
            body += piece + (b"\r\n" if piece or trailer is None else b"")
        if trailer is not None:
            line = b"x-amz-checksum-crc32:" + base64.b64encode(zlib.crc32(trailer).to_bytes(4, "big"))
            signature = signer.trailer(signature, line.decode() + "\n")
            body += line + b"\r\nx-amz-trailer-signature:" + signature.encode() + b"\r\n\r\n"
        if spoil:
            body = body.replace(b"aa", b"ac", 1)
        return wire.request("PUT", "/bucket/coded", body, **headers).status

    def test_signed_chunks(self, server: LocalS3, wire: Wire) -> None:
        assert self.put(wire, self.PIECES) == 200
        assert server.get("bucket", "coded") == b"".join(self.PIECES)
        assert "content-encoding" not in wire.request("HEAD", "/bucket/coded").headers

    def test_a_changed_chunk_is_refused(self, server: LocalS3, wire: Wire) -> None:
        server.delete("bucket", "coded")
        assert self.put(wire, self.PIECES, spoil=True) == 403
        assert "coded" not in server.keys("bucket")

    def test_signed_trailers(self, server: LocalS3, wire: Wire) -> None:
        assert self.put(wire, self.PIECES, trailer=b"".join(self.PIECES)) == 200
        assert self.put(wire, self.PIECES, trailer=b"other") == 400
