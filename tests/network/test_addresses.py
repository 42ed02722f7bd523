"""IPv6, and names with several addresses of which some are dead."""

import contextlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.network.peers import TIME_LIMIT_S, Peer, relay

from s3dataset import errors
from s3dataset._client import Client
from s3dataset._config import S3ClientConfig
from s3dataset.testing import LocalS3

BUCKET = "bucket"

# By RFC 6761 it has both of loopback's addresses, whether a resolver says so or the engine does.
NAME = "s3.localhost"


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


pytestmark = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@pytest.fixture(scope="module", params=[False, True], ids=["http", "https"])
def server(request: pytest.FixtureRequest) -> Iterator[LocalS3]:
    with LocalS3(BUCKET, tls=request.param, activate=False) as server:
        server.put(BUCKET, "k", b"hello")
        yield server


def client_of(server: LocalS3, authority: str, **settings: object) -> Client:
    scheme = "https" if server.ca_bundle else "http"
    keys = (server.access_key, server.secret_key)
    config = S3ClientConfig(credentials=keys, ca_bundle=server.ca_bundle, **settings)
    return Client(endpoint=f"{scheme}://{authority}", s3client_config=config)


def relay_to(server: LocalS3, host: str, port: int = 0) -> Peer:
    def handler(connection: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", server.port), timeout=TIME_LIMIT_S) as there:
            relay(connection, there)

    return Peer(handler, host=host, port=port)


def read_often(client: Client, times: int = 20) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: bytes(client.fetch(BUCKET, "k")), range(times))) == [b"hello"] * times


def test_an_address_in_brackets(server: LocalS3) -> None:
    with relay_to(server, "::1") as peer:
        client = client_of(server, peer.authority)
        assert peer.authority.startswith("[::1]:")
        assert bytes(client.fetch(BUCKET, "k")) == b"hello"
        assert client.head_object(BUCKET, "k").size == 5
        client.close()


def test_a_name_whose_first_address_refuses(server: LocalS3) -> None:
    client = client_of(server, f"{NAME}:{server.port}", max_attempts=1)
    read_often(client)
    client.close()


def test_a_name_whose_first_address_is_silent(server: LocalS3) -> None:
    with contextlib.ExitStack() as stack:
        silent = socket.create_server(("::1", server.port), family=socket.AF_INET6, backlog=0)
        stack.enter_context(silent)
        for _ in range(8):  # until its backlog is full
            waiting = stack.enter_context(socket.socket(socket.AF_INET6))
            waiting.settimeout(0.05)
            with contextlib.suppress(OSError):
                waiting.connect(("::1", server.port))
        client = client_of(server, f"{NAME}:{server.port}", max_attempts=1)
        read_often(client)
        client.close()


def test_connections_spread_over_all_addresses(server: LocalS3) -> None:
    with relay_to(server, "::1") as six, relay_to(server, "127.0.0.1", six.port) as four:
        for _ in range(4):
            client = client_of(server, f"{NAME}:{six.port}")
            read_often(client, 8)
            client.close()
        assert six.connections > 0
        assert four.connections > 0


def test_all_addresses_dead(server: LocalS3) -> None:
    with relay_to(server, "127.0.0.1") as peer:
        port = peer.port
    client = client_of(server, f"{NAME}:{port}", max_attempts=2)
    with pytest.raises(errors.TransportError, match=rf"{NAME}:{port}: .*refused"):
        client.head_object(BUCKET, "k")
