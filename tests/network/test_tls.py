"""TLS: whose certificates are believed, and what servers do to a handshake or a transfer."""

import contextlib
import datetime as dt
import ipaddress
import re
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.network.peers import Peer, read_head

from s3dataset import errors
from s3dataset._client import Client
from s3dataset._config import S3ClientConfig

DATA = bytes(range(256)) * 40
DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Signed:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def sign(name: str, *, by: Signed | None = None, begins: dt.timedelta = -DAY, ends: dt.timedelta = DAY) -> Signed:
    """A certificate for this host, or an authority's own where nobody signs."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if by is None else by.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
    )
    if by is not None:
        is_address = re.fullmatch(r"[\d.]+", name)
        general = x509.IPAddress(ipaddress.ip_address(name)) if is_address else x509.DNSName(name)
        builder = builder.add_extension(x509.SubjectAlternativeName([general]), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    return Signed(builder.sign((by or Signed(None, key)).key, hashes.SHA256()), key)  # type: ignore[arg-type]


AUTHORITY = sign("authority")
STRANGER = sign("stranger")
GOOD = sign("localhost", by=AUTHORITY)


def context_of(signed: Signed, folder: Path) -> ssl.SSLContext:
    file = folder / f"{signed.certificate.serial_number}.pem"
    key = signed.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(signed.pem + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def answer_to(head: bytes) -> bytes:
    """Serves one object, or the range of it that is asked for."""
    first, last, status = 0, len(DATA) - 1, "200 OK"
    if found := re.search(rb"(?i)range: bytes=(\d+)-(\d*)", head):
        first, last, status = int(found[1]), min(int(found[2] or last), last), "206 Partial Content"
    body = DATA[first : last + 1]
    return (
        f'HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nETag: "e"\r\n'
        f"Content-Range: bytes {first}-{last}/{len(DATA)}\r\n\r\n"
    ).encode() + body


Conversation = Callable[[ssl.SSLSocket, int], None]


def serve(connection: ssl.SSLSocket, number: int) -> None:
    while head := read_head(connection):
        connection.sendall(answer_to(head))


@contextlib.contextmanager
def https(
    folder: Path, conversation: Conversation = serve, *, signed: Signed = GOOD, context: ssl.SSLContext | None = None
) -> Iterator[Peer]:
    """`conversation` is told which connection it is, from 1 on."""
    context = context or context_of(signed, folder)

    def handler(connection: socket.socket) -> None:
        number = peer.connections
        with context.wrap_socket(connection, server_side=True) as wrapped:
            conversation(wrapped, number)

    with Peer(handler) as peer:
        yield peer


def client_of(peer: Peer, host: str = "localhost", **settings: object) -> Client:
    given = {"ca_bundle": AUTHORITY.pem, "max_attempts": 3, "unsigned": True} | settings
    return Client(endpoint=f"https://{host}:{peer.port}", s3client_config=S3ClientConfig(**given))


def read(client: Client) -> bytes:
    try:
        return bytes(client.fetch("bucket", "k"))
    finally:
        client.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions(tmp_path: Path, version: ssl.TLSVersion) -> None:
    context = context_of(GOOD, tmp_path)
    context.minimum_version = context.maximum_version = version
    with https(tmp_path, context=context) as peer:
        assert read(client_of(peer)) == DATA


def test_an_address_in_the_certificate(tmp_path: Path) -> None:
    with https(tmp_path, signed=sign("127.0.0.1", by=AUTHORITY)) as peer:
        assert read(client_of(peer, "127.0.0.1")) == DATA


@pytest.mark.parametrize(
    ("signed", "said"),
    [
        (sign("other.example", by=AUTHORITY), "not valid for name.*endpoint's name"),
        (sign("localhost", by=AUTHORITY, begins=-2 * DAY, ends=-DAY), "expired.*clock"),
        (sign("localhost", by=AUTHORITY, begins=DAY, ends=2 * DAY), "not valid yet.*clock"),
        (sign("localhost", by=STRANGER), "UnknownIssuer.*ca_bundle"),
        (sign("localhost"), "ca_bundle"),
    ],
    ids=["other host", "expired", "not yet valid", "unknown authority", "self-signed"],
)
def test_certificates_that_are_not_believed(tmp_path: Path, signed: Signed, said: str) -> None:
    with https(tmp_path, signed=signed) as peer:
        with pytest.raises(errors.TransportError, match=f"(?i)TLS failed.*{said}") as caught:
            read(client_of(peer))
        assert (caught.value.attempts, peer.connections) == (1, 1)


def test_where_authorities_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, wrong = tmp_path / "bundle.pem", tmp_path / "wrong.pem"
    bundle.write_bytes(STRANGER.pem + AUTHORITY.pem)
    wrong.write_bytes(STRANGER.pem)
    with https(tmp_path) as peer:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
        assert read(client_of(peer, ca_bundle=None)) == DATA
        monkeypatch.setenv("AWS_CA_BUNDLE", str(wrong))
        with pytest.raises(errors.TransportError, match="ca_bundle"):
            read(client_of(peer, ca_bundle=None))
        assert read(client_of(peer, ca_bundle=bundle)) == DATA


def test_tls_1_1(tmp_path: Path) -> None:
    context = context_of(GOOD, tmp_path)
    with warnings.catch_warnings(action="ignore"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with https(tmp_path, context=context) as peer:
        with pytest.raises(errors.TransportError, match=r"must speak TLS 1\.2 or 1\.3") as caught:
            read(client_of(peer))
        assert caught.value.attempts == 1


def floods(record: bytes) -> Callable[[socket.socket], None]:
    def handler(connection: socket.socket) -> None:
        connection.recv(65536)
        for _ in range(20_000):
            connection.sendall(record * 16)

    return handler


def says(text: bytes) -> Callable[[socket.socket], None]:
    def handler(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(text)

    return handler


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (says(b""), "closed during the TLS handshake"),
        (says(b"\x15\x03\x03\x00\x02\x02\x28"), "HandshakeFailure"),
        (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "endpoint for http"),
        (says(bytes(range(100))), "TLS failed|InvalidContentType"),
        (floods(b"\x16\x03\x03\x40\x00\x02\xff\xff\xff" + b"\0" * 16380), "TLS failed"),
        (floods(b"\x14\x03\x03\x00\x01\x01"), "TLS failed|No connection in time"),
        (floods(b"\x15\x03\x03\x00\x02\x01\x70"), "TLS failed|No connection in time"),
        (lambda connection: [None for _ in iter(lambda: connection.recv(1024), b"")], "no connection within 0.5 s"),
    ],
    ids=["closes", "alert", "http", "garbage", "endless message", "endless changes", "endless warnings", "silent"],
)
def test_handshakes_that_come_to_nothing(handler: Callable[[socket.socket], None], said: str) -> None:
    with Peer(handler) as peer:
        with pytest.raises(errors.TransportError, match=said) as caught:
            read(client_of(peer, connect_timeout_s=0.5, max_attempts=2))
        assert caught.value.attempts == peer.connections == 2


def cut(connection: ssl.SSLSocket, *, politely: bool) -> None:
    answer = answer_to(read_head(connection))
    connection.sendall(answer[: len(answer) - 5000])
    if politely:
        with contextlib.suppress(OSError):
            connection.unwrap()


@pytest.mark.parametrize("politely", [True, False])
def test_a_body_that_is_cut_is_read_on(tmp_path: Path, politely: bool) -> None:
    def conversation(connection: ssl.SSLSocket, number: int) -> None:
        if number == 1:
            cut(connection, politely=politely)
        else:
            serve(connection, number)

    with https(tmp_path, conversation) as peer:
        assert read(client_of(peer)) == DATA
        assert peer.connections == 2
    with (
        https(tmp_path, lambda connection, _: cut(connection, politely=politely)) as peer,
        pytest.raises(errors.TransportError, match="early"),
    ):
        read(client_of(peer, max_attempts=1))


def test_a_body_without_a_length_must_end_as_tls_ends(tmp_path: Path) -> None:
    """Whoever can cut the connection could else cut the object."""

    def conversation(connection: ssl.SSLSocket, number: int) -> None:
        read_head(connection)
        connection.sendall(b'HTTP/1.1 200 OK\r\nETag: "e"\r\n\r\n' + DATA)
        if number > 1:
            with contextlib.suppress(OSError):
                connection.unwrap()

    with https(tmp_path, conversation) as peer:
        assert read(client_of(peer)) == DATA
        assert peer.connections == 2
    with (
        https(tmp_path, lambda connection, _: conversation(connection, 1)) as peer,
        pytest.raises(errors.TransportError, match="cut short"),
    ):
        read(client_of(peer, max_attempts=2))


def test_an_alert_in_the_middle(tmp_path: Path) -> None:
    def conversation(connection: ssl.SSLSocket, number: int) -> None:
        if number > 1:
            return serve(connection, number)
        answer = answer_to(read_head(connection))
        connection.sendall(answer[:3000])
        with socket.socket(fileno=connection.fileno()) as plain:
            try:
                plain.sendall(b"\x15\x03\x03\x00\x02\x02\x50")
            finally:
                plain.detach()
        connection.recv(1)
        return None

    with https(tmp_path, conversation) as peer:
        assert read(client_of(peer)) == DATA
        assert peer.connections == 2


def test_records_of_one_byte(tmp_path: Path) -> None:
    def conversation(connection: ssl.SSLSocket, _: int) -> None:
        answer = answer_to(read_head(connection))
        for i in range(len(answer)):
            connection.sendall(answer[i : i + 1])
        read_head(connection)

    with https(tmp_path, conversation) as peer:
        assert read(client_of(peer, max_attempts=1)) == DATA


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed(tmp_path: Path, version: ssl.TLSVersion) -> None:
    resumed = []

    def conversation(connection: ssl.SSLSocket, _: int) -> None:
        connection.sendall(answer_to(read_head(connection)).replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        resumed.append(connection.session_reused)

    context = context_of(GOOD, tmp_path)
    context.minimum_version = context.maximum_version = version
    with https(tmp_path, conversation, context=context) as peer:
        client = client_of(peer)
        for _ in range(3):
            assert bytes(client.fetch("bucket", "k")) == DATA
        client.close()
    assert resumed == [False, True, True]


def test_what_nobody_asked_for_is_no_answer(tmp_path: Path) -> None:
    """A second answer to one request, in a record of its own, is not the answer to the next request."""
    said = threading.Event()

    def conversation(connection: ssl.SSLSocket, number: int) -> None:
        answer = answer_to(read_head(connection))
        connection.sendall(answer)
        if number == 1:
            connection.sendall(answer.replace(DATA, DATA[::-1]))
        said.set()
        serve(connection, number)

    with https(tmp_path, conversation) as peer:
        client = client_of(peer)
        for _ in range(4):
            assert bytes(client.fetch("bucket", "k")) == DATA
            assert said.wait(30)
        assert peer.connections == 2
        client.close()
