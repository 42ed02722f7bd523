"""The servers: nginx with a small configuration for plain reads where it is installed, the local S3 for the rest."""

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.cases import CONNECTION_BYTES_S, LATENCY_S, LISTED_KEYS, Case
from benchmarks.data import BUCKET

NGINX_CONFIG = """
worker_processes auto;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
events {{ worker_connections 4096; }}
http {{
  access_log off; sendfile on; tcp_nodelay on; keepalive_requests 10000000; default_type binary/octet-stream;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port} reuseport backlog=4096;
    root {data};
    location = /_status {{ stub_status; }}
  }}
}}
"""
WRITING = ("put-large", "put-small", "save", "save-direct")
REGION = "us-east-1"
KEYS = {
    "AWS_ACCESS_KEY_ID": "benchmark",
    "AWS_SECRET_ACCESS_KEY": "benchmark",
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True, slots=True)
class Server:
    """One that runs. `environment` is what clients need to reach it: keys, and the CA for TLS."""

    name: str
    endpoint: str
    stats_url: str
    environment: dict[str, str] = field(default_factory=dict)
    ca_bundle: str | None = None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def nginx(data: Path) -> Iterator[Server | None]:
    """Nginx over the plain files, or None where it is not installed."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        yield None
        return
    for path in [data, *data.rglob("*")]:  # nginx's workers may run as another user
        path.chmod(0o755 if path.is_dir() else 0o644)
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        folder.chmod(0o755)
        config = folder / "nginx.conf"
        config.write_text(NGINX_CONFIG.format(folder=folder, port=port, data=data))
        process = subprocess.Popen(
            [program, "-c", config, "-g", "daemon off;"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            endpoint = f"http://127.0.0.1:{port}"
            yield Server("nginx", endpoint, f"{endpoint}/_status", KEYS) if answers(process, port) else None
        finally:
            process.terminate()
            process.wait(10)


def answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether the server came up within five seconds."""
    for _ in range(100):
        if process.poll() is not None:
            return False
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.05)
    return False


@dataclass(frozen=True, slots=True)
class Running:
    """The servers of a run. `nginx` only reads."""

    nginx: Server | None
    plain: Server
    sink: Server
    latency: Server
    tls: Server

    def choose(self, case: Case) -> Server:
        if case.server == "latency":
            return self.latency
        if case.server == "tls":
            return self.tls
        if case.name in WRITING:
            return self.sink
        reads_only = case.kind == "client" and case.name.startswith("get-")
        return self.nginx if self.nginx is not None and reads_only else self.plain


def start_all(stack: ExitStack, data: Path, *, use_nginx: bool) -> Running:
    latency = {"latency_s": LATENCY_S, "bandwidth_bytes_s": CONNECTION_BYTES_S}
    return Running(
        nginx=stack.enter_context(nginx(data)) if use_nginx else None,
        plain=stack.enter_context(local_s3(data)),
        sink=stack.enter_context(local_s3(None)),
        latency=stack.enter_context(local_s3(data, traffic=latency)),
        tls=stack.enter_context(local_s3(data, tls=True)),
    )


def describe(running: Running) -> str:
    return "nginx for plain reads, the local S3 for the rest" if running.nginx else "the local S3"


@contextmanager
def local_s3(data: Path | None, **settings: Any) -> Iterator[Server]:
    """The local S3 over the plain files (None: in memory), with a sink for uploads and computed keys for listings.

    It neither checks signatures nor hashes what it receives: the client is what is measured, on the same cores.
    """
    keys = {
        "numbers": {"images/{}.jpg": LISTED_KEYS},
        "uuids": {"images/{uuid}.jpg": LISTED_KEYS},
        "dates": {"logs/{date}.json": LISTED_KEYS},
        "hot": {
            **{f"{letter}/{{}}": 10 for letter in "abcdefghij"},
            "team/projects/vision/2026/raw/hot/{}.jpg": LISTED_KEYS - 100,
        },
    }
    # Public, as some clients read over plain HTTP.
    buckets: list[dict[str, Any]] = [{"name": BUCKET, "public": True}, {"name": "sink", "sink": True}]
    for name, patterns in keys.items():
        objects = [{"key": key, "count": count, "size_bytes": 100_000} for key, count in patterns.items()]
        buckets.append({"name": name, "synthetic": objects})
    config = {
        "buckets": buckets,
        "directory": data and str(data),
        "region": REGION,
        "check_signatures": False,
        "etag": "opaque",
        "log_capacity": 0,
        **settings,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "s3dataset.testing", json.dumps(config)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        ready = json.loads(process.stdout.readline() if process.stdout else "")
        environment = {
            "AWS_ACCESS_KEY_ID": ready["access_key"],
            "AWS_SECRET_ACCESS_KEY": ready["secret_key"],
            "AWS_REGION": ready["region"],
            "AWS_DEFAULT_REGION": ready["region"],
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        ca_bundle = ready.get("ca_bundle")
        if ca_bundle:
            environment |= {"AWS_CA_BUNDLE": ca_bundle, "SSL_CERT_FILE": ca_bundle}
        yield Server("local S3", ready["endpoint"], f"{ready['control']}/_local/stats", environment, ca_bundle)
    finally:
        process.terminate()
        process.wait(10)
