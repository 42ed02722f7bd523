"""HTTP by hand, for what no client library sends."""

import hashlib
import hmac
import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Self
from urllib.parse import quote

from s3dataset.testing import LocalS3


@dataclass
class Answer:
    """An answer as it came in."""

    status: int
    headers: dict[str, str]
    body: bytes
    #: The connection ended before the body did.
    short: bool = False


class Wire:
    """One connection to a server."""

    def __init__(self, server: LocalS3) -> None:
        self.server = server
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        self._input = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        self.send(self.head(method, path, Content_Length=str(len(body)), **headers) + body)
        return self.answer(method == "HEAD")

    def head(self, method: str, path: str, **headers: str) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def _more(self) -> bool:
        data = self.socket.recv(65536)
        self._input += data
        return bool(data)

    def head_of_answer(self) -> tuple[int, dict[str, str]]:
        """Raises EOFError when there is none."""
        while b"\r\n\r\n" not in self._input:
            if not self._more():
                raise EOFError(self._input)
        head, self._input = self._input.split(b"\r\n\r\n", 1)
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        return int(first.split(" ")[1]), headers

    def answer(self, bodyless: bool = False) -> Answer:
        status, headers = self.head_of_answer()
        if bodyless or status in {204, 304}:
            return Answer(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            return Answer(status, headers, self._chunks())
        length = int(headers["content-length"])
        while len(self._input) < length:
            if not self._more():
                return Answer(status, headers, self._input, short=True)
        body, self._input = self._input[:length], self._input[length:]
        return Answer(status, headers, body)

    @property
    def received(self) -> bytes:
        """What came and was not taken."""
        return self._input

    def exactly(self, length: int) -> bytes:
        while len(self._input) < length:
            if not self._more():
                raise EOFError(self._input)
        data, self._input = self._input[:length], self._input[length:]
        return data

    def line(self) -> bytes:
        """The next line, without its end."""
        while b"\r\n" not in self._input:
            if not self._more():
                raise EOFError(self._input)
        line, self._input = self._input.split(b"\r\n", 1)
        return line

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.line(), 16):
            body += self.exactly(size)
            self.line()
        self.line()
        return body

    def ended(self) -> bool:
        """Whether the server has closed the connection."""
        return not self._input and self.socket.recv(1) == b""


@dataclass
class Signer:
    """Signature Version 4, for bodies in signed chunks, which no Python library sends."""

    server: LocalS3
    moment: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def date(self) -> str:
        return f"{self.moment:%Y%m%dT%H%M%SZ}"

    @property
    def scope(self) -> str:
        return f"{self.moment:%Y%m%d}/{self.server.region}/s3/aws4_request"

    def _sign(self, text: str) -> str:
        key = f"AWS4{self.server.secret_key}".encode()
        for part in self.scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        return hmac.digest(key, text.encode(), "sha256").hex()

    def authorize(self, method: str, path: str, headers: dict[str, str]) -> tuple[dict[str, str], str]:
        """The headers to send, and the signature that the first chunk goes on from."""
        headers = {"host": "localhost", "x-amz-date": self.date, **{name.lower(): v for name, v in headers.items()}}
        names = ";".join(sorted(headers))
        canonical = [method, quote(path), "", *(f"{name}:{headers[name]}" for name in sorted(headers)), "", names]
        text = "\n".join([*canonical, headers["x-amz-content-sha256"]])
        digest = hashlib.sha256(text.encode()).hexdigest()
        signature = self._sign(f"AWS4-HMAC-SHA256\n{self.date}\n{self.scope}\n{digest}")
        credential = f"{self.server.access_key}/{self.scope}"
        value = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
        del headers["host"]
        return headers | {"authorization": value}, signature

    def chunk(self, previous: str, data: bytes) -> str:
        empty, digest = hashlib.sha256(b"").hexdigest(), hashlib.sha256(data).hexdigest()
        return self._sign(f"AWS4-HMAC-SHA256-PAYLOAD\n{self.date}\n{self.scope}\n{previous}\n{empty}\n{digest}")

    def trailer(self, previous: str, lines: str) -> str:
        digest = hashlib.sha256(lines.encode()).hexdigest()
        return self._sign(f"AWS4-HMAC-SHA256-TRAILER\n{self.date}\n{self.scope}\n{previous}\n{digest}")
