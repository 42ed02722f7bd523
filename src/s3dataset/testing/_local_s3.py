"""`LocalS3`: the server and what can be asked of it."""

import importlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from s3dataset.testing._control import Control, ServerError
from s3dataset.testing._environment import point_at, point_away
from s3dataset.testing._faults import Fault
from s3dataset.testing._process import Process
from s3dataset.testing._records import RequestRecord
from s3dataset.testing._variants import StoreName, Variant

_ACCESS_KEY = "LOCALS3ACCESSKEY"
_SECRET_KEY = "local-s3-secret-key"  # noqa: S105 - opens nothing but a server on loopback


class LocalS3:
    """An S3 server on loopback, in a process of its own.

    ```python
    with LocalS3("bucket") as s3:
        s3.put("bucket", "key", b"bytes")
        ...  # any S3 client of this process finds it through AWS_ENDPOINT_URL
    ```

    Thread-safe once started. A forked child may use it but never ends it. The process ends with `stop()`, with the
    interpreter, or when the interpreter dies in any way. Objects in memory are gone then; those under `directory` stay.

    Args:
        *buckets: Buckets to make.
        directory: Keep objects as plain files `<directory>/<bucket>/<key>`; what is there already is served. By
            default objects are in memory.
        faults: The fault plan to begin with.
        activate: Point this process (and the processes that it starts) at the server, through the environment
            variables that every AWS library reads, for as long as it lives.
        region: The region of the buckets.
        wrong_region: What a request signed for another region gets: it is served ("accept"), or answered with 400
            AuthorizationHeaderMalformed, 301 or 307. Served by default, so that examples run with any region.
        port: 0 takes a free one.
        tls: Serve HTTPS with a certificate authority made for the occasion, whose certificate is `ca_bundle`.
        public: Allow unsigned reads of `buckets`.
        anonymous_writes: Allow unsigned writes to public buckets.
        sinks: More buckets, whose uploads are verified and counted but not kept.
        access_key: The access key that signatures must be made with.
        secret_key: The secret key that belongs to it.
        session_token: When given, requests must carry it.
        latency_s: From the end of a request to the first byte of its answer.
        tail_latency_s: Added to a share `tail_probability` of the requests.
        tail_probability: See `tail_latency_s`.
        bandwidth_bytes_s: Of one connection, each way; 0 is unlimited.
        threads: Threads of the server; 0 takes half of the cores, because the client needs the others.
        min_part_bytes: The smallest part but the last of a multipart upload; S3's 5 MiB by default.
        session_lifetime_s: Of the sessions of directory buckets (those named `base--zone--x-s3`).
        etag: "md5" as S3; "opaque" saves the server 1.5 CPU seconds a GB of uploads, for benchmarks.
        variant: Another store's ways: "minio", "r2", "gcs" or "b2", or single behaviours; see `Variant`.
        traffic: More of the traffic model by name: tail_exponent, reads_per_s, writes_per_s (a prefix),
            max_requests_per_connection, idle_timeout_s.
        log_capacity: Requests that `requests()` goes back.
    """

    def __init__(
        self,
        *buckets: str,
        directory: str | os.PathLike[str] | None = None,
        faults: Iterable[Fault] = (),
        activate: bool = True,
        region: str = "us-east-1",
        wrong_region: Literal["accept", "400", "301", "307"] = "accept",
        port: int = 0,
        tls: bool = False,
        public: bool = False,
        anonymous_writes: bool = False,
        sinks: Iterable[str] = (),
        access_key: str = _ACCESS_KEY,
        secret_key: str = _SECRET_KEY,
        session_token: str | None = None,
        latency_s: float = 0.0,
        tail_latency_s: float = 0.0,
        tail_probability: float = 0.0,
        bandwidth_bytes_s: float = 0.0,
        threads: int = 0,
        min_part_bytes: int = 5 << 20,
        session_lifetime_s: int = 300,
        etag: Literal["md5", "opaque"] = "md5",
        variant: StoreName | Variant = "s3",
        traffic: Mapping[str, float] | None = None,
        log_capacity: int = 20_000,
    ) -> None:
        self._activate = activate
        self._tls = tls
        self._session_token = session_token
        self._traffic: dict[str, float] = {
            "latency_s": latency_s,
            "tail_latency_s": tail_latency_s,
            "tail_probability": tail_probability,
            "bandwidth_bytes_s": bandwidth_bytes_s,
        } | dict(traffic or {})
        if directory is not None:
            Path(directory).mkdir(parents=True, exist_ok=True)
        self._config: dict[str, object] = {
            "port": port,
            "threads": threads,
            "region": region,
            "wrong_region": wrong_region,
            "credentials": [{"access_key": access_key, "secret_key": secret_key, "session_token": session_token}],
            "anonymous_writes": anonymous_writes,
            "buckets": [
                *({"name": name, "public": public} for name in buckets),
                *({"name": name, "public": public, "sink": True} for name in sinks),
            ],
            "directory": None if directory is None else os.fspath(directory),
            "etag": etag,
            "min_part_bytes": min_part_bytes,
            "session_lifetime_s": session_lifetime_s,
            "traffic": self._traffic,
            "variant": variant if isinstance(variant, str) else dict(variant),
            "faults": [fault.as_json() for fault in faults],
            "log_capacity": log_capacity,
            "tls": tls,
        }
        self._process: Process | None = None

    # -- Life ----------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Starts the server and, with `activate`, sets the environment variables. Does nothing when it runs.

        Raises:
            ServerError: It did not start: the port is taken, the directory cannot be written, or the like.
        """
        if self._process is None:
            self._process = Process(self._config)
            if self._activate:
                point_at(self, self.environment)
        return self

    def stop(self) -> None:
        """Ends the server and restores the environment variables. Does nothing when it does not run."""
        process, self._process = self._process, None
        if process is not None:
            point_away(self)
            process.end()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "not running" if self._process is None else f"at {self.endpoint}"
        return f"<LocalS3 {state}>"

    @property
    def _running(self) -> Process:
        if self._process is None:
            raise ServerError("the local S3 is not running; use it in a `with` block or call start()")
        return self._process

    @property
    def _control(self) -> Control:
        return self._running.control

    @property
    def endpoint(self) -> str:
        """The URL to give to a client."""
        return str(self._running.ready["endpoint"])

    @property
    def port(self) -> int:
        """The port of the endpoint."""
        return int(self._running.ready["port"])

    @property
    def region(self) -> str:
        """The region of the buckets."""
        return str(self._config["region"])

    @property
    def access_key(self) -> str:
        """The access key that opens the server."""
        return str(self._running.ready["access_key"])

    @property
    def secret_key(self) -> str:
        """The secret key that belongs to `access_key`."""
        return str(self._running.ready["secret_key"])

    @property
    def ca_bundle(self) -> str | None:
        """Path of the CA certificate, with `tls`."""
        path = self._running.ready["ca_bundle"]
        return None if path is None else str(path)

    @property
    def pid(self) -> int:
        """The server's process."""
        return int(self._running.ready["pid"])

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that point an AWS library at the server."""
        values = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        if self._session_token is not None:
            values["AWS_SESSION_TOKEN"] = self._session_token
        if self.ca_bundle is not None:
            values["AWS_CA_BUNDLE"] = self.ca_bundle
        return values

    # -- Objects -------------------------------------------------------------------------------------------------------

    def create_bucket(
        self,
        name: str,
        *,
        region: str | None = None,
        public: bool = False,
        sink: bool = False,
        requester_pays: bool = False,
        versioned: bool = False,
    ) -> None:
        """Makes a bucket, or gives an existing one these properties.

        Args:
            name: Its name.
            region: By default the server's.
            public: Allow unsigned reads.
            sink: Do not keep the bytes of uploads.
            requester_pays: Refuse requests that do not say that whoever signs pays.
            versioned: Keep what is overwritten and deleted; not in a directory.
        """
        flags = {"public": public, "sink": sink, "requester_pays": requester_pays, "versioned": versioned}
        document = {"name": name, "region": region} | {flag: True for flag, is_set in flags.items() if is_set}
        self._control.call("POST", "buckets", document=document)

    def buckets(self) -> list[str]:
        """The names of all buckets."""
        names: list[str] = self._control.call("GET", "buckets")
        return names

    def put(self, bucket: str, key: str, data: bytes, **headers: str) -> str:
        """Puts an object in place and returns its ETag.

        Args:
            bucket: Must exist.
            key: Any UTF-8.
            data: The bytes.
            **headers: `content_type="image/png"`, `x_amz_meta_label="7"` and the like.
        """
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = json.loads(self._control.transfer("PUT", "objects", bucket, key, body=data, headers=named))
        return str(answer["etag"])

    def get(self, bucket: str, key: str) -> bytes:
        """The bytes of an object.

        Raises:
            KeyError: There is no such object.
        """
        try:
            return self._control.transfer("GET", "objects", bucket, key)
        except ServerError as error:
            if error.code == "NoSuchKey":
                raise KeyError(f"s3://{bucket}/{key}") from None
            raise

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """All keys, in UTF-8 byte order."""
        keys: list[str] = self._control.call("GET", "keys", bucket, query={"prefix": prefix})
        return keys

    def delete(self, bucket: str, key: str) -> None:
        """Removes an object; nothing happens when there is none."""
        self._control.transfer("DELETE", "objects", bucket, key)

    def add_synthetic(
        self,
        bucket: str,
        key: str,
        *,
        size_bytes: int,
        count: int = 1,
        max_size_bytes: int = 0,
        seed: int = 0,
    ) -> None:
        """Adds objects that take no memory: their bytes are computed when they are read, see `synthetic_bytes`.

        Args:
            bucket: Must exist.
            key: The key or, with a count, a pattern with one of `{}` (a number of at least eight digits), `{uuid}` and
                `{date}`.
            size_bytes: Of each object.
            count: How many; tens of millions are fine.
            max_size_bytes: When greater than `size_bytes`, sizes are spread evenly between the two.
            seed: Object `i` has the bytes of seed `seed + i`.
        """
        document = {"key": key, "count": count, "size_bytes": size_bytes}
        document |= {"max_size_bytes": max_size_bytes, "seed": seed}
        self._control.call("POST", "synthetic", bucket, document=document)

    def uploads(self, bucket: str) -> list[dict[str, Any]]:
        """The multipart uploads in progress: key, upload_id, parts, bytes."""
        uploads: list[dict[str, Any]] = self._control.call("GET", "uploads", bucket)
        return uploads

    def versions(self, bucket: str, prefix: str = "") -> list[dict[str, Any]]:
        """All versions by key, the newest first: key, version_id, is_latest, is_delete_marker, size."""
        versions: list[dict[str, Any]] = self._control.call("GET", "versions", bucket, query={"prefix": prefix})
        return versions

    # -- What the client did -------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Counters since the start or the last `reset_stats`.

        requests, operations (by name), statuses, in_flight, max_in_flight, connections, open_connections,
        max_open_connections, bytes_in and bytes_out (of bodies), faults.
        """
        stats: dict[str, Any] = self._control.call("GET", "stats")
        return stats

    def reset_stats(self) -> None:
        """Sets the counters to zero and empties the log."""
        self._control.call("POST", "reset")

    def requests(self, operation: str | None = None, *, after: int = 0) -> list[RequestRecord]:
        """The log of requests, in the order in which they ended.

        Args:
            operation: Only those of this operation, such as `GetObject`.
            after: Only those with a greater number.
        """
        entries = self._control.call("GET", "log", query={"after": str(after)})
        records = (RequestRecord(**entry) for entry in entries)
        return [record for record in records if operation is None or record.operation == operation]

    # -- What goes wrong -----------------------------------------------------------------------------------------------

    def add_fault(self, *faults: Fault) -> list[int]:
        """Adds rules to the fault plan and returns their numbers."""
        answer = self._control.call("POST", "faults", document=[fault.as_json() for fault in faults])
        ids: list[int] = answer["ids"]
        return ids

    def clear_faults(self, *numbers: int) -> None:
        """Removes rules by their numbers, or all of them."""
        if not numbers:
            self._control.call("DELETE", "faults")
        for number in numbers:
            self._control.call("DELETE", "faults", str(number))

    def fault_counts(self) -> dict[int, int]:
        """How many requests each rule has picked, by the rule's number."""
        return {rule["id"]: rule["picked"] for rule in self._control.call("GET", "faults")}

    def set_traffic(self, **traffic: float) -> None:
        """Changes the traffic model: latency_s, bandwidth_bytes_s and the others; what is not named stays."""
        self._control.call("POST", "config", document={"traffic": self._traffic | traffic})
        self._traffic |= traffic

    def configure(self, **changes: object) -> None:
        """Changes other settings while the server runs.

        Args:
            **changes: variant, credentials, check_signatures, anonymous_writes, clock_offset_s, max_skew_s,
                wrong_region, min_part_bytes, etag, restore_s (how long a RestoreObject takes): as the server's
                configuration has them.
        """
        self._control.call("POST", "config", document=changes)

    def outage(self, duration_s: float, *, silent: bool = False) -> None:
        """Resets every connection and accepts none for so long; objects stay.

        Args:
            duration_s: How long.
            silent: Like a server that hangs instead of one that is gone: connections stay, new ones can be made, and
                nothing comes; in the end the old ones are reset.
        """
        self._control.call("POST", "outage", document={"duration_s": duration_s, "silent": silent})

    # -- Other clients -------------------------------------------------------------------------------------------------

    def boto3_client(self, **options: object) -> Any:
        """A boto3 S3 client of this server.

        Args:
            **options: Of `boto3.client`.

        Raises:
            ModuleNotFoundError: boto3 is not installed.
        """
        # By name: neither the package nor its types are needed by the rest.
        boto3: Any = importlib.import_module("boto3")
        settings: dict[str, object] = {
            "endpoint_url": self.endpoint,
            "region_name": self.region,
            "aws_access_key_id": self.access_key,
            "aws_secret_access_key": self.secret_key,
            "aws_session_token": self._session_token,
        }
        if self.ca_bundle is not None:
            settings["verify"] = self.ca_bundle
        return boto3.session.Session().client("s3", **(settings | options))
