"""Small servers on loopback: whatever a test makes them, and a proxy."""

import contextlib
import select
import socket
import threading
from collections.abc import Callable
from typing import Self

Handler = Callable[[socket.socket], None]

TIME_LIMIT_S = 30.0
"""No socket of a test waits longer."""


class Peer:
    """Serves each connection with `handler` on a thread of its own; closed and joined at the end of the block.

    Args:
        handler: Called with the connected socket. What it raises of OSError ends its connection.
        host: Where to listen.
        port: Likewise; 0 takes a free one.
    """

    def __init__(self, handler: Handler, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._handler = handler
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family)
        self.host = host
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._ended = False

    @property
    def authority(self) -> str:
        """Host and port as a URL has them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._sockets):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(TIME_LIMIT_S)
        for connection in self._sockets:
            connection.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ended:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(TIME_LIMIT_S)
            self.connections += 1
            self._sockets.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._handler(connection)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()


def read_head(connection: socket.socket) -> bytes:
    """Up to the empty line, and what came with it; b"" when the peer closed before."""
    head = b""
    while b"\r\n\r\n" not in head:
        got = connection.recv(65536)
        if not got:
            return b""
        head += got
    return head


def relay(a: socket.socket, b: socket.socket) -> None:
    """Carries bytes both ways until one side closes."""
    other = {a: b, b: a}
    while True:
        ready, _, _ = select.select([a, b], [], [], TIME_LIMIT_S)
        if not ready:
            return
        for one in ready:
            data = one.recv(65536)
            if not data:
                return
            other[one].sendall(data)


class Proxy(Peer):
    """A proxy for CONNECT and for whole URLs, of one request a connection unless it is a tunnel.

    Args:
        target: Where everything goes, whatever was asked for; by default where it says.
        authorization: The value of Proxy-Authorization that it wants.
        host: Where to listen.
    """

    def __init__(
        self, *, target: tuple[str, int] | None = None, authorization: str | None = None, host: str = "127.0.0.1"
    ) -> None:
        super().__init__(self._pass_on, host=host)
        self._target = target
        self._authorization = authorization
        self.asked: list[str] = []

    def _pass_on(self, connection: socket.socket) -> None:
        head = read_head(connection)
        if not head:
            return
        head, _, body = head.partition(b"\r\n\r\n")
        line, *headers = head.decode("latin-1").split("\r\n")
        self.asked.append(line)
        method, url, _ = line.split(" ")
        given = [h.partition(": ")[2] for h in headers if h.lower().startswith("proxy-authorization:")]
        if self._authorization is not None and given != [self._authorization]:
            connection.sendall(
                b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=x\r\n"
                b"Content-Type: text/html\r\nContent-Length: 0\r\n\r\n"
            )
            return
        place, path = (url, "") if method == "CONNECT" else url.removeprefix("http://").split("/", 1)
        name, _, port = place.rpartition(":")
        target = self._target or (name.strip("[]"), int(port))
        try:
            there = socket.create_connection(target, timeout=TIME_LIMIT_S)
        except OSError:
            connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            return
        with there:
            if method == "CONNECT":
                connection.sendall(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
            else:
                kept = [h for h in headers if not h.lower().startswith("proxy-")]
                there.sendall("\r\n".join([f"{method} /{path} HTTP/1.1", *kept, "", ""]).encode("latin-1") + body)
            relay(connection, there)
