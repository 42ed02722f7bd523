"""Services on loopback that give keys, as EC2's metadata service and containers' agents do."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from s3dataset.testing import LocalS3


def key(number: int, *, expired: bool = False) -> dict[str, Any]:
    """The n-th keys, as LocalS3 is told of them."""
    return {
        "access_key": f"KEY{number}",
        "secret_key": f"the-secret-{number}",
        "session_token": f"the-token-{number}",
        "expired": expired,
    }


class KeyService(ThreadingHTTPServer):
    """Gives KEY1, then KEY2, and so on; answers both as an agent of containers and as a metadata service.

    Attributes:
        given: How often keys were asked for.
        lifetime_s: Of the keys given from now on.
        status: Of the answers from now on; None: none comes.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.given = 0
        self.lifetime_s = 21600.0
        self.status: int | None = 200
        self.delay_s = 0.0
        self.over = threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """By which containers find their agent."""
        return {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{self.url}/keys"}

    @property
    def metadata_environment(self) -> dict[str, str]:
        """By which EC2's metadata service is found elsewhere."""
        return {"AWS_EC2_METADATA_SERVICE_ENDPOINT": self.url}

    def keys(self) -> str:
        with self.lock:
            self.given += 1
            given = key(self.given)
        expiry = datetime.now(UTC) + timedelta(seconds=self.lifetime_s)
        return json.dumps(
            {
                "Code": "Success",
                "AccessKeyId": given["access_key"],
                "SecretAccessKey": given["secret_key"],
                "Token": given["session_token"],
                "Expiration": expiry.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
        )


class _Handler(BaseHTTPRequestHandler):
    server: KeyService

    def do_PUT(self) -> None:
        self._answer("a token of the metadata service")

    def do_GET(self) -> None:
        if self.path.endswith("/security-credentials/"):
            self._answer("role")
        else:
            self._answer(None)

    def _answer(self, text: str | None) -> None:
        service = self.server
        if service.status is None:
            service.over.wait(60)
            return
        service.over.wait(service.delay_s)
        if service.status == 200:
            body = (service.keys() if text is None else text).encode()
        else:
            body = b"busy"
        self.send_response(service.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def key_service() -> Iterator[KeyService]:
    service = KeyService()
    thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield service
    finally:
        service.over.set()
        service.shutdown()
        thread.join()
        service.server_close()


@contextmanager
def store() -> Iterator[LocalS3]:
    """A store that takes the keys of a `KeyService`, and has the object s3://bucket/k."""
    server = LocalS3("bucket", activate=False)
    server._config["credentials"] += [key(number) for number in range(1, 10)]
    with server:
        server.put("bucket", "k", b"hello")
        yield server
