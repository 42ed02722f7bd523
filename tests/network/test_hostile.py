"""Servers that answer without end, with wrong lengths, or with more than was asked: right errors, bounded memory."""

import gzip
import itertools
import re
import resource
import socket
import threading
from collections.abc import Callable

import pytest
from tests.network.peers import Peer, read_head

from s3dataset import errors
from s3dataset._client import Client
from s3dataset._config import S3ClientConfig

DATA = bytes(range(256)) * 40
MIB = 1 << 20

Conversation = Callable[[socket.socket], None]


def client_of(peer: Peer, **settings: object) -> Client:
    given = {"max_attempts": 2, "unsigned": True, "stall_timeout_s": 5.0} | settings
    return Client(endpoint=f"http://{peer.authority}", s3client_config=S3ClientConfig(**given))


def always(text: bytes) -> Conversation:
    def handler(connection: socket.socket) -> None:
        while read_head(connection):
            connection.sendall(text)

    return handler


def endless(begin: bytes, more: bytes) -> Conversation:
    """Until the client has enough of it; 4 GB at most."""

    def handler(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(begin)
        block = more * (MIB // len(more) + 1)
        for _ in range(4096):
            connection.sendall(block)

    return handler


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fails(client: Client, operation: Callable[[Client], object], said: str) -> errors.S3Exception:
    before = peak_bytes()
    with pytest.raises(errors.S3Exception, match=said) as caught:
        operation(client)
    client.close()
    assert peak_bytes() - before < 128 * MIB
    return caught.value


def fetch(client: Client) -> bytes:
    return bytes(client.fetch("bucket", "k"))


def head(client: Client) -> object:
    return client.head_object("bucket", "k")


def listing(client: Client) -> object:
    return sum(len(page.object_info) for page in client.list_objects("bucket"))


@pytest.mark.parametrize(
    ("handler", "operation", "said"),
    [
        (endless(b"HTTP/1.1 200 OK\r\n", b"x-a: b\r\n"), fetch, "more than 65536 bytes|no HTTP/1.1 response"),
        (endless(b"HTTP/1.1 200 OK\r\nx-a: ", b"a"), fetch, "more than 65536 bytes"),
        (endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), fetch, "No answer began|stalled|no answer"),
        (endless(b"HTTP/1.1 503 x\r\nContent-Length: 10000000000\r\n\r\n", b"a"), fetch, "more than 262144 bytes"),
        (endless(b"HTTP/1.1 404 x\r\n\r\n", b"a"), fetch, "more than 262144 bytes|does not exist"),
        (endless(b"HTTP/1.1 403 x\r\nTransfer-Encoding: chunked\r\n\r\n", b"8\r\naaaaaaaa\r\n"), fetch, "denied"),
        (endless(b"HTTP/1.1 403 x\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"), fetch, "endless line|denied"),
        (endless(b"HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n"), fetch, "endless trailers"),
        (endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1" * 70_000), listing, "endless line"),
        (endless(b"HTTP/1.1 200 OK\r\n\r\n<ListBucketResult>", b"<Contents>"), listing, "a response of more than"),
    ],
    ids=[
        "headers", "header", "interim answers", "error body", "error until close", "chunked error", "chunk line",
        "trailers", "chunked listing", "listing",
    ],
)  # fmt: skip
def test_answers_without_end(handler: Conversation, operation: Callable[[Client], object], said: str) -> None:
    with Peer(handler) as peer:
        fails(client_of(peer, first_byte_timeout_s=1.0, retry_max_elapsed_s=5.0), operation, said)


def put(client: Client) -> object:
    with client.queue() as queue:
        return queue.take(queue.put([("bucket", "k", b"data", ())])[0])


def first_error(failed: list[tuple[str, errors.S3Exception]]) -> object:
    raise failed[0][1]


HTML = b"<!DOCTYPE html><html><body>Please log in</body></html>"


@pytest.mark.parametrize(
    "operation",
    [
        listing,
        put,
        lambda client: client.delete_object("bucket", "k"),
        lambda client: first_error(client.delete_objects("bucket", ["k"])),
        lambda client: client.copy_object("bucket", "k", "bucket", "other"),
    ],
    ids=["list", "put", "delete", "delete many", "copy"],
)
def test_a_page_with_status_200_is_no_success(operation: Callable[[Client], object]) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %d\r\n\r\n" % len(HTML)
    with Peer(always(head + HTML)) as peer:
        fails(client_of(peer), operation, "is the endpoint an S3 service|no XML|malformed XML|document types")


def page(token: str, key: str = "k") -> bytes:
    body = (
        f"<ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>{key}</Key><Size>1</Size>"
        f"<NextContinuationToken>{token}</NextContinuationToken></Contents>"
        f"<NextContinuationToken>{token}</NextContinuationToken></ListBucketResult>"
    ).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def test_a_listing_that_comes_back_to_itself() -> None:
    with Peer(always(page("a/b+c=="))) as peer:
        fails(client_of(peer), listing, "does not go on")


def test_a_listing_that_goes_on_for_ever_is_read_page_by_page() -> None:
    numbers = itertools.count()

    def handler(connection: socket.socket) -> None:
        while read_head(connection):
            number = next(numbers)
            connection.sendall(page(f"t{number}", f"k{number:09}"))

    with Peer(handler) as peer:
        client = client_of(peer)
        pages = list(itertools.islice(client.list_objects("bucket"), 50))
        assert len(pages) == 50
        assert next(numbers) <= 60  # one is fetched ahead
        client.close()


RANGE = b"Content-Range: bytes 0-9/100\r\n"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 206 x\r\nContent-Length: 5\r\n" + RANGE + b"\r\n01234", ""),
        (b"HTTP/1.1 206 x\r\nContent-Length: 12\r\n" + RANGE + b"\r\n012345678901", ""),
        (b"HTTP/1.1 206 x\r\nContent-Length: 10\r\nContent-Range: bytes 5-14/100\r\n\r\n0123456789", ""),
        (b"HTTP/1.1 206 x\r\nContent-Length: 10\r\nContent-Range: bytes 0-9999999/3\r\n\r\n0123456789", ""),
        (b"HTTP/1.1 200 x\r\nContent-Length: -10\r\n\r\n0123456789", "Content-Length"),
        (b"HTTP/1.1 200 x\r\nContent-Length: +10\r\n\r\n0123456789", "Content-Length"),
        (b"HTTP/1.1 200 x\r\nContent-Length: 10\r\nContent-Length: 11\r\n\r\n0123456789", "two different"),
        (b"HTTP/1.1 200 x\r\nContent-Length: 99999999999999999999\r\n\r\n0123456789", "Content-Length"),
        (b"HTTP/1.1 200 x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\n01234\r\n0\r\n\r\n", "Transfer-Encoding"),
        (b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", "chunk"),
        (b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n01234\r\n0\r\n\r\n", "chunk"),
        (b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n01234\r\n0\r\n\r\n", "chunk"),
    ],
    ids=lambda value: re.sub(r"[^\w:-]+", " ", value[15:70].decode()) if isinstance(value, bytes) else "",
)
def test_lengths_that_cannot_be(answer: bytes, said: str) -> None:
    def handler(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(answer)

    def ranged(client: Client) -> object:
        return client.get_range("bucket", "k", 0, 10)

    with Peer(handler) as peer:
        error = fails(client_of(peer), ranged, said or ".")
        assert not isinstance(error, errors.InternalError)


def test_a_compressed_body_is_left_as_it_is() -> None:
    """Content-Encoding belongs to the object: its sizes, ranges and checksums are those of the stored bytes."""
    body = gzip.compress(DATA)
    text = b'HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nETag: "e"\r\nContent-Length: %d\r\n\r\n' % len(body)
    with Peer(always(text + body)) as peer:
        client = client_of(peer)
        assert fetch(client) == body
        client.close()


@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
def test_two_answers_to_one_request(apart: bool) -> None:
    """What nobody asked for is never the answer to the next request."""
    said = threading.Event()

    def answer(data: bytes) -> bytes:
        return b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: %d\r\n\r\n%s' % (len(data), data)

    def handler(connection: socket.socket) -> None:
        first = peer.connections == 1
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while read_head(connection):
            if first and not apart:
                connection.sendall(answer(DATA) + answer(DATA[::-1]))
            else:
                connection.sendall(answer(DATA))
                if first:
                    connection.sendall(answer(DATA[::-1]))
            said.set()

    with Peer(handler) as peer:
        client = client_of(peer)
        for _ in range(5):
            assert fetch(client) == DATA
            assert said.wait(30)
        assert peer.connections == 2
        client.close()
