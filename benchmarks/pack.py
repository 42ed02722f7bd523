"""Packing 20,000 objects of 100 KiB into tar shards of 256 MiB: `python -m benchmarks.pack [--verify]`, beside boto3.

The local S3 at a distance: 25 ms to the first byte, 90 MB/s a connection. boto3 fetches with a pool of 64 threads,
`tarfile` writes each archive, and it is uploaded in parts by the pool. Each client runs in a process of its own, one
after the other; medians of the rounds. The archives are compared with each other, member by member.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from benchmarks.cases import CONNECTION_BYTES_S, LATENCY_S
from benchmarks.results import OURS, machine
from benchmarks.worker import cpu_s
from s3dataset.testing import LocalS3

SOURCE, DEST = "source", "dest"
COUNT, SIZE = 20_000, 100 << 10
SHARD_SIZE = 256 << 20
THREADS, PART = 64, 8 << 20


def ours(verify: bool) -> None:
    from s3dataset import pack

    pack(f"s3://{SOURCE}/", f"s3://{DEST}/{OURS}/", shard_size=SHARD_SIZE, verify=verify, progress=False)


def boto3(verify: bool) -> None:  # noqa: ARG001 - it cannot
    import boto3 as library
    from botocore.config import Config

    client = library.client("s3", config=Config(max_pool_connections=THREADS, s3={"addressing_style": "path"}))
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=SOURCE)
    keys = [entry["Key"] for page in pages for entry in page["Contents"]]
    per_shard = SHARD_SIZE // (SIZE + 512)
    with ThreadPoolExecutor(THREADS) as fetching, ThreadPoolExecutor(16) as sending:

        def get(key: str) -> tuple[str, bytes]:
            return key, client.get_object(Bucket=SOURCE, Key=key)["Body"].read()

        names = iter(keys)
        coming: deque[Future[tuple[str, bytes]]] = deque(
            fetching.submit(get, key) for _, key in zip(range(4 * THREADS), names, strict=False)
        )
        closing: list[Future[Any]] = []
        for number, start in enumerate(range(0, len(keys), per_shard)):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as archive:
                for _ in keys[start : start + per_shard]:
                    key, data = coming.popleft().result()
                    if (following := next(names, None)) is not None:
                        coming.append(fetching.submit(get, following))
                    info = tarfile.TarInfo(key)
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
            closing.append(sending.submit(_upload, client, f"boto3/shard-{number:06d}.tar", buffer, sending))
        for one in closing:
            one.result()


def _upload(client: Any, key: str, buffer: io.BytesIO, pool: ThreadPoolExecutor) -> None:  # noqa: ARG001
    from boto3.s3.transfer import TransferConfig

    buffer.seek(0)
    settings = TransferConfig(multipart_chunksize=PART, max_concurrency=16)
    client.upload_fileobj(buffer, DEST, key, Config=settings)


CLIENTS = {OURS: ours, "boto3": boto3}


def members(server: LocalS3, client: str) -> list[tuple[str, int]]:
    keys = [key for key in server.keys(DEST, f"{client}/") if key.endswith(".tar")]
    found = []
    for key in keys:
        with tarfile.open(fileobj=io.BytesIO(server.get(DEST, key))) as archive:
            found += [(member.name, member.size) for member in archive]
    return found


def measured(client: str, verify: bool) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.pack", "--one", client, *(["--verify"] if verify else [])]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(json.loads(output.splitlines()[-1]))


def one(client: str, verify: bool) -> None:
    begin, cpu = time.perf_counter(), cpu_s()
    CLIENTS[client](verify)
    seconds = time.perf_counter() - begin
    print(json.dumps({"seconds": seconds, "cpu_s": cpu_s() - cpu}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clients", nargs="*", default=list(CLIENTS))
    parser.add_argument("--verify", action="store_true", help="have ours read each shard again")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.one, arguments.verify)
        return
    traffic: dict[str, Any] = {"latency_s": LATENCY_S, "bandwidth_bytes_s": CONNECTION_BYTES_S, "etag": "opaque"}
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    results: dict[str, Any] = {}
    with LocalS3(SOURCE, DEST, **traffic) as server:
        server.add_synthetic(SOURCE, "data/{}.jpg", size_bytes=SIZE, count=arguments.count)
        for client in arguments.clients:
            rounds = []
            for _ in range(arguments.rounds):
                for key in server.keys(DEST):
                    server.delete(DEST, key)
                rounds.append(measured(client, arguments.verify))
            seconds = statistics.median(one["seconds"] for one in rounds)
            results[client] = {
                "seconds": round(seconds, 2),
                "samples_per_s": round(arguments.count / seconds),
                "mb_per_s": round(arguments.count * SIZE / seconds / 1e6),
                "cpu_s": round(statistics.median(one["cpu_s"] for one in rounds), 2),
            }
            print(client, results[client], flush=True)
            found = members(server, client)
            assert len(found) == arguments.count
            assert {size for _, size in found} == {SIZE}
    if len(results) == len(CLIENTS):
        ratio = results["boto3"]["seconds"] / results[OURS]["seconds"]
        print(f"{ratio:.1f} x a boto3 pool of {THREADS} threads")
    print(json.dumps({"machine": machine(), "verify": arguments.verify, "results": results}))


if __name__ == "__main__":
    main()
