"""Services that send a head and its body apart, the second when the first was acknowledged (Nagle's algorithm)."""

import socket
import struct
import sys
import time

import pytest
from tests.network.peers import Peer

from s3dataset._client import Client
from s3dataset._config import S3ClientConfig

REQUESTS = 60
UNACKNOWLEDGED_AT = 24
"""Of struct tcp_info: segments on their way."""


def is_acknowledged(connection: socket.socket, within_s: float) -> bool:
    """Whether all that was sent is acknowledged so soon."""
    until = time.monotonic() + within_s
    while True:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 64)
        if not struct.unpack_from("I", info, UNACKNOWLEDGED_AT)[0]:
            return True
        if time.monotonic() > until:
            return False
        time.sleep(0.001)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody can ask for it")
def test_a_head_without_its_body_is_acknowledged_at_once() -> None:
    """Linux would put it off for 40 ms on a connection that asks and answers in turn."""
    soon: list[bool] = []

    def serve(connection: socket.socket) -> None:
        while True:
            asked = b""
            while b"\r\n\r\n" not in asked:
                piece = connection.recv(65536)
                if not piece:
                    return
                asked += piece
            connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\nETag: "e"\r\n\r\n')
            soon.append(is_acknowledged(connection, 0.03))
            connection.sendall(b"body")

    with Peer(serve) as peer:
        client = Client("us-east-1", endpoint=f"http://{peer.authority}", s3client_config=S3ClientConfig(unsigned=True))
        for _ in range(REQUESTS):
            assert bytes(client.get_range("bucket", "key", 0, 4)) == b"body"
        client.close()
    assert peer.connections == 1
    # The first ones are acknowledged at once anyway; a few of the others may be late where a machine is busy.
    assert soon[REQUESTS // 2 :].count(True) > REQUESTS // 4
