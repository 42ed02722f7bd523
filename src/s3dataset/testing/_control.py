"""The server's control API, by the standard library alone: it must work when the client under test does not."""

import http.client
import json
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

_TIMEOUT_S = 60.0


class ServerError(RuntimeError):
    """The server could not be started, or refused a command.

    Attributes:
        code: The server's error code, such as `NoSuchBucket`; empty when it did not start.
    """

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message, code)
        self.code = code

    def __str__(self) -> str:
        return str(self.args[0])


class Control:
    """Commands to one server. Each takes a connection of its own, so any thread may send one."""

    __slots__ = ("_host",)

    def __init__(self, url: str) -> None:
        self._host = urlsplit(url).netloc

    def transfer(
        self, method: str, *path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> bytes:
        """Sends a command; a path of several parts has them percent-encoded and joined by slashes."""
        target = "/_local/" + "/".join(quote(part, safe="" if number < 2 else "/") for number, part in enumerate(path))
        return self._send(method, target, body, headers or {})

    def call(self, method: str, *path: str, document: object = None, query: dict[str, str] | None = None) -> Any:
        """Sends a command with a document and reads the one that it answers with."""
        target = "/_local/" + "/".join(quote(part, safe="") for part in path)
        if query:
            target += "?" + urlencode(query)
        body = None if document is None else json.dumps(document).encode()
        return json.loads(self._send(method, target, body, {}))

    def _send(self, method: str, target: str, body: bytes | None, headers: dict[str, str]) -> bytes:
        connection = http.client.HTTPConnection(self._host, timeout=_TIMEOUT_S)
        try:
            connection.putrequest(method, target, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            if method in {"POST", "PUT"}:
                connection.putheader("Content-Length", str(len(body or b"")))
            connection.endheaders(body)
            response = connection.getresponse()
            answer = response.read()
        except OSError as error:
            raise ServerError(f"the local S3 at {self._host} does not answer: {error}") from error
        finally:
            connection.close()
        if response.status != 200:
            try:
                problem = json.loads(answer)
            except ValueError:
                problem = {"code": "", "message": answer[:200].decode(errors="replace")}
            message = f"the local S3 refused {method} {target}: {problem['code']}: {problem['message']}"
            raise ServerError(message, problem["code"])
        return answer
