"""One adapter a client, each written as its documentation advises and given the same concurrency.

An adapter defines what the client can do; a case that needs something else leaves it out.
"""

import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from benchmarks.data import BUCKET, MIB

PART_BYTES = 8 * MIB
PARTS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Target:
    """Where the server is. `ca_bundle` is a file, for TLS."""

    endpoint: str
    region: str
    concurrency: int
    ca_bundle: str | None = None


def new_buffer(size: int) -> memoryview:
    """Private memory; in huge pages where there are such, as a careful user would ask for."""
    area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        area.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(area)


def ranges(size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, size, PART_BYTES):
        yield start, min(start + PART_BYTES, size)


class Client:
    """Blocking calls for one object; a pool of threads for many."""

    name: str
    package: str
    get_one: Callable[[str], Any]
    put_one: Callable[[str, str, Any], None]

    def __init__(self, target: Target) -> None:
        self.target = target
        self.pool = ThreadPoolExecutor(max(target.concurrency, PARTS_AT_ONCE))
        self.open()

    def open(self) -> None: ...

    def get_many(self, keys: list[str]) -> Iterable[tuple[str, Any]]:
        return zip(keys, self.pool.map(self.get_one, keys), strict=True)

    def put_many(self, bucket: str, keys: list[str], data: bytes) -> None:
        for _ in self.pool.map(lambda key: self.put_one(bucket, key, data), keys):
            pass


class Ours(Client):
    name, package = "s3dataset", "s3dataset"

    def open(self) -> None:
        import s3dataset

        config = s3dataset.S3ClientConfig(max_connections=max(self.target.concurrency, 1))
        self.client = s3dataset.S3Client(self.target.region, endpoint=self.target.endpoint, s3client_config=config)

    def get_one(self, key: str) -> Any:
        return self.client.get_object(BUCKET, key).read()

    def get_many(self, keys: list[str]) -> Iterable[tuple[str, Any]]:
        for index, body in self.client.get_many((BUCKET, key) for key in keys):
            yield keys[index], body

    def get_large(self, key: str, size: int) -> Any:
        buffer = new_buffer(size)
        self.client.read_into([(BUCKET, key, (0, size), buffer)])
        return buffer

    def put_many(self, bucket: str, keys: list[str], data: bytes) -> None:
        self.client.put_many((bucket, key, data) for key in keys)

    def put_large(self, bucket: str, key: str, data: Any) -> None:
        with self.client.put_object(bucket, key) as writer:
            writer.write(data)

    def list_keys(self, bucket: str) -> int:
        import s3dataset

        listing = s3dataset.Manifest.from_prefix(
            f"s3://{bucket}/", region=self.target.region, endpoint=self.target.endpoint
        )
        return len(listing)


class S3torchconnector(Client):
    name, package = "s3torchconnector", "s3torchconnector"
    no_private_ca = True

    def open(self) -> None:
        from s3torchconnector import S3ClientConfig
        from s3torchconnector._s3client import S3Client

        config = S3ClientConfig(force_path_style=True, throughput_target_gbps=100.0)
        self.client = S3Client(self.target.region, endpoint=self.target.endpoint, s3client_config=config)

    def get_one(self, key: str) -> Any:
        return self.client.get_object(BUCKET, key).read()

    def get_large(self, key: str, size: int) -> Any:
        from s3torchconnector import S3ReaderConstructor

        unbuffered = S3ReaderConstructor.range_based(buffer_size=0)
        reader = self.client.get_object(BUCKET, key, reader_constructor=unbuffered)
        buffer, at = new_buffer(size), 0
        while at < size:
            at += reader.readinto(buffer[at:])
        return buffer

    def put_one(self, bucket: str, key: str, data: Any) -> None:
        with self.client.put_object(bucket, key) as writer:
            writer.write(data)

    put_large = put_one

    def list_keys(self, bucket: str) -> int:
        return sum(len(page.object_info) for page in self.client.list_objects(bucket))


class Obstore(Client):
    name, package = "obstore", "obstore"

    def open(self) -> None:
        self.stores: dict[str, Any] = {}

    def store(self, bucket: str) -> Any:
        from obstore.store import S3Store

        if bucket not in self.stores:
            self.stores[bucket] = S3Store(
                bucket,
                endpoint=self.target.endpoint,
                region=self.target.region,
                virtual_hosted_style_request=False,
                client_options={"allow_http": True},
            )
        return self.stores[bucket]

    def get_one(self, key: str) -> Any:
        return self.store(BUCKET).get(key).bytes()

    def get_large(self, key: str, size: int) -> Any:
        return self.get_into(key, new_buffer(size))

    def get_into(self, key: str, buffer: memoryview) -> memoryview:
        store = self.store(BUCKET)

        def fetch(part: tuple[int, int]) -> None:
            buffer[part[0] : part[1]] = memoryview(store.get_range(key, start=part[0], end=part[1])).cast("B")

        with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
            list(pool.map(fetch, ranges(len(buffer))))
        return buffer

    def put_one(self, bucket: str, key: str, data: Any) -> None:
        self.store(bucket).put(key, data)

    def put_large(self, bucket: str, key: str, data: Any) -> None:
        self.store(bucket).put(key, data, use_multipart=True, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)

    def list_keys(self, bucket: str) -> int:
        return sum(len(chunk) for chunk in self.store(bucket).list(chunk_size=1000))


class Boto3(Client):
    name, package = "boto3", "boto3"

    def open(self) -> None:
        import boto3
        from boto3.s3.transfer import TransferConfig
        from botocore.config import Config

        connections = max(self.target.concurrency, PARTS_AT_ONCE)
        config = Config(s3={"addressing_style": "path"}, max_pool_connections=connections)
        self.client = boto3.client(
            "s3", endpoint_url=self.target.endpoint, region_name=self.target.region, config=config
        )
        self.transfer = TransferConfig(max_concurrency=PARTS_AT_ONCE)

    def get_one(self, key: str) -> Any:
        return self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def get_large(self, key: str, size: int) -> Any:
        import io

        file = io.BytesIO(bytes(size))
        self.client.download_fileobj(BUCKET, key, file, Config=self.transfer)
        return file.getbuffer()

    def put_one(self, bucket: str, key: str, data: Any) -> None:
        self.client.put_object(Bucket=bucket, Key=key, Body=data)

    def put_large(self, bucket: str, key: str, data: Any) -> None:
        import io

        self.client.upload_fileobj(io.BytesIO(data), bucket, key, Config=self.transfer)

    def list_keys(self, bucket: str) -> int:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return sum(len(page.get("Contents", ())) for page in pages)


class Awscrt(Client):
    """The C library below s3torchconnector, from its own Python bindings; bodies arrive by callback."""

    name, package = "awscrt", "awscrt"

    def open(self) -> None:
        from awscrt import auth, io, s3

        provider = auth.AwsCredentialsProvider.new_static(
            os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
        )
        bootstrap = io.ClientBootstrap.get_or_create_static_default()
        secure = self.target.endpoint.startswith("https")
        tls = None
        if secure:
            options = io.TlsContextOptions()
            options.override_default_trust_store_from_path(None, self.target.ca_bundle)
            tls = io.ClientTlsContext(options).new_connection_options()
        self.client = s3.S3Client(
            bootstrap=bootstrap,
            region=self.target.region,
            signing_config=s3.create_default_s3_signing_config(region=self.target.region, credential_provider=provider),
            tls_mode=s3.S3RequestTlsMode.ENABLED if secure else s3.S3RequestTlsMode.DISABLED,
            tls_connection_options=tls,
            part_size=PART_BYTES,
            throughput_target_gbps=100.0,
        )

    def start(self, method: str, bucket: str, key: str, on_body: Any = None, data: Any = None) -> Any:
        import io

        from awscrt import http, s3

        headers = [("host", self.target.endpoint.partition("://")[2])]
        if data is not None:
            headers += [("content-length", str(len(data))), ("content-type", "application/octet-stream")]
        stream = None if data is None else io.BytesIO(data)
        request = http.HttpRequest(method, f"/{bucket}/{key}", http.HttpHeaders(headers), stream)
        kind = s3.S3RequestType.GET_OBJECT if method == "GET" else s3.S3RequestType.PUT_OBJECT
        return self.client.make_request(type=kind, request=request, on_body=on_body)

    def get_one(self, key: str) -> Any:
        chunks: list[bytes] = []
        done = self.start("GET", BUCKET, key, lambda chunk, **_: chunks.append(chunk))
        done.finished_future.result()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def get_large(self, key: str, size: int) -> Any:
        buffer = new_buffer(size)

        def place(chunk: bytes, offset: int, **_: Any) -> None:
            buffer[offset : offset + len(chunk)] = chunk

        self.start("GET", BUCKET, key, place).finished_future.result()
        return buffer

    def put_one(self, bucket: str, key: str, data: Any) -> None:
        self.start("PUT", bucket, key, data=data).finished_future.result()

    put_large = put_one


CLIENTS: dict[str, type[Client]] = {kind.name: kind for kind in (Ours, S3torchconnector, Obstore, Boto3, Awscrt)}
