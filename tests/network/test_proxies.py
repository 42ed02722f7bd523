"""Proxies: which one is taken, what it is asked, and what a user reads when it does not help."""

import base64
import pickle
import socket
from collections.abc import Callable, Iterator

import pytest
from tests.network.peers import Peer, Proxy, read_head

from s3dataset import errors
from s3dataset._client import Client
from s3dataset._config import S3ClientConfig
from s3dataset.testing import LocalS3

BUCKET = "bucket"
PASSWORD = "p@ss word:/"
ESCAPED = "p%40ss%20word%3A%2F"
AUTHORIZATION = f"Basic {base64.b64encode(f'user:{PASSWORD}'.encode()).decode()}"


@pytest.fixture(scope="module", params=[False, True], ids=["http", "https"])
def server(request: pytest.FixtureRequest) -> Iterator[LocalS3]:
    with LocalS3(BUCKET, tls=request.param, activate=False) as server:
        server.put(BUCKET, "k/ä +", b"hello")
        yield server


def client_of(server: LocalS3, **settings: object) -> Client:
    config = S3ClientConfig(
        credentials=(server.access_key, server.secret_key), ca_bundle=server.ca_bundle, max_attempts=2, **settings
    )
    return Client(endpoint=server.endpoint, s3client_config=config)


def read(client: Client) -> bytes:
    return bytes(client.fetch(BUCKET, "k/ä +"))


def variable(server: LocalS3) -> str:
    return f"{server.endpoint.partition(':')[0].upper()}_PROXY"


def test_tunnels_for_tls_and_whole_urls_without(server: LocalS3) -> None:
    with Proxy() as proxy:
        client = client_of(server, proxy=f"http://127.0.0.1:{proxy.port}")
        assert [read(client) for _ in range(5)] == [b"hello"] * 5
        place = server.endpoint.partition("//")[2]
        if server.ca_bundle:
            assert proxy.asked == [f"CONNECT {place} HTTP/1.1"]
        else:
            # This proxy looks at the first request of a connection alone; the endpoint takes whole URLs, too.
            assert proxy.asked == [f"GET http://{place}/{BUCKET}/k/%C3%A4%20%2B HTTP/1.1"]
        client.close()


def test_uploads_and_listings_go_the_same_way(server: LocalS3) -> None:
    with Proxy() as proxy:
        client = client_of(server, proxy=f"127.0.0.1:{proxy.port}")
        data = bytes(range(256)) * 4096 * 12
        client.put_many([(BUCKET, "up", data)])
        assert bytes(client.fetch(BUCKET, "up")) == data
        assert {i.key for page in client.list_objects(BUCKET) for i in page.object_info} >= {"up"}
        assert proxy.connections >= 1
        client.close()


def test_credentials(server: LocalS3) -> None:
    with Proxy(authorization=AUTHORIZATION) as proxy:
        place = f"127.0.0.1:{proxy.port}"
        assert read(client_of(server, proxy=f"http://user:{ESCAPED}@{place}")) == b"hello"
        for url, said in ((place, "wants a user and a password"), (f"http://user:no@{place}", "does not take")):
            with pytest.raises(errors.TransportError, match=said) as caught:
                read(client_of(server, proxy=url))
            assert caught.value.attempts == 1
            assert f"proxy http://{place}" in str(caught.value)


def test_environment(server: LocalS3, monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy() as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        monkeypatch.setenv(variable(server), url)
        assert read(client_of(server)) == b"hello"
        assert proxy.connections == 1
        assert read(client_of(server, proxy="")) == b"hello"
        monkeypatch.setenv("NO_PROXY", "example.com, 127.0.0.0/8")
        assert read(client_of(server)) == b"hello"
        assert proxy.connections == 1
        assert read(client_of(server, proxy=url)) == b"hello"
        assert proxy.connections == 2
        # Lower case goes before upper.
        monkeypatch.setenv("no_proxy", "example.com")
        assert read(client_of(server)) == b"hello"
        assert proxy.connections == 3
        monkeypatch.setenv(variable(server).lower(), "")
        assert read(client_of(server)) == b"hello"
        assert proxy.connections == 3


def test_the_variable_of_the_other_scheme_is_nothing_to_us(server: LocalS3, monkeypatch: pytest.MonkeyPatch) -> None:
    other = "HTTP_PROXY" if server.ca_bundle else "HTTPS_PROXY"
    monkeypatch.setenv(other, "socks5://nonsense")
    monkeypatch.setenv("ALL_PROXY", "socks5://nonsense")
    assert read(client_of(server)) == b"hello"


def answers(text: bytes) -> Callable[[socket.socket], None]:
    def handler(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(text)

    return handler


def waits(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


PAGE = b"Content-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>"


@pytest.mark.parametrize(
    ("handler", "said", "attempts"),
    [
        (answers(b"HTTP/1.1 403 Forbidden\r\n" + PAGE), "403 Forbidden", 1),
        (answers(b"HTTP/1.1 502 Bad Gateway\r\n" + PAGE), "502 Bad Gateway", 2),
        (answers(b"HTTP/1.1 407 Authentication\r\n" + PAGE), "407 Authentication", 1),
        (answers(b"SSH-2.0-OpenSSH\r\n\r\n"), "no HTTP/1.1 response", 2),
        (answers(b""), "closed without an answer", 2),
        (answers(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000), "more than 65536 bytes", 2),
        (waits, "no (connection|answer) within", 2),
    ],
    ids=["403", "502", "407", "nonsense", "closes", "endless", "hangs"],
)
def test_proxies_that_are_of_no_use(
    server: LocalS3, handler: Callable[[socket.socket], None], said: str, attempts: int
) -> None:
    with Peer(handler) as peer:
        url = f"http://user:{ESCAPED}@127.0.0.1:{peer.port}"
        client = client_of(server, proxy=url, connect_timeout_s=0.3, first_byte_timeout_s=0.3)
        with pytest.raises(errors.TransportError, match=said) as caught:
            read(client)
        text = str(caught.value)
        assert caught.value.attempts == attempts
        tunnel = server.ca_bundle is not None
        if tunnel or said.startswith(("40", "50")):
            assert f"proxy http://127.0.0.1:{peer.port}" in text
        for secret in (PASSWORD, ESCAPED, AUTHORIZATION.split()[1]):
            assert secret not in text + repr(client.config)
        client.close()


def test_a_proxy_that_speaks_for_the_endpoint() -> None:
    with (
        LocalS3(BUCKET, tls=True, activate=False) as server,
        Peer(answers(b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")) as peer,
        pytest.raises(errors.TransportError, match="more bytes than its answer"),
    ):
        read(client_of(server, proxy=f"127.0.0.1:{peer.port}"))


def test_no_proxy_there(server: LocalS3) -> None:
    with Peer(waits) as peer:
        port = peer.port
    with pytest.raises(errors.TransportError, match=rf"proxy http://127.0.0.1:{port}: .*refused.*NO_PROXY"):
        read(client_of(server, proxy=f"http://127.0.0.1:{port}"))
    with pytest.raises(errors.TransportError, match=r"proxy http://no-such-host.invalid:80: no address"):
        read(client_of(server, proxy="no-such-host.invalid"))


def test_an_endpoint_that_the_proxy_cannot_reach(server: LocalS3) -> None:
    with Peer(waits) as peer:
        port = peer.port
    with Proxy(target=("127.0.0.1", port)) as proxy, pytest.raises(errors.S3Exception, match="502") as caught:
        read(client_of(server, proxy=f"http://127.0.0.1:{proxy.port}"))
    assert caught.value.attempts == 2


def test_the_proxys_own_certificate_is_no_matter_but_the_endpoints_is() -> None:
    with LocalS3(BUCKET, tls=True, activate=False) as server, Proxy() as proxy:
        config = S3ClientConfig(unsigned=True, proxy=f"127.0.0.1:{proxy.port}", max_attempts=1)
        with pytest.raises(errors.TransportError, match="ca_bundle"):
            Client(endpoint=server.endpoint, s3client_config=config).head_object(BUCKET, "k")


def test_a_configuration_travels_without_the_password() -> None:
    config = S3ClientConfig(proxy=f"http://user:{ESCAPED}@proxy:3128")
    travelling = pickle.dumps(config)
    for secret in (PASSWORD, ESCAPED, AUTHORIZATION.split()[1]):
        assert secret.encode() not in travelling
    assert pickle.loads(travelling) == config  # in this process, which knows it
