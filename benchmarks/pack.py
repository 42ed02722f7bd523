"""Packing 20,000 objects of 100 KiB into tar shards of 256 MiB: `python -m benchmarks.pack`, beside boto3.

The local S3 at a distance: 25 ms to the first byte, 90 MB/s a connection. It makes the objects, checks and keeps the
shards, which takes more of two cores than packing does; with `--sink URL` it is a server that runs already, holds
bench/small/ and forgets what is uploaded: ours then makes the shards and their records, without the index, and
cannot verify. `--verify checksum` has ours compare each shard with the checksum that the server keeps, `--verify read`
read it again.

boto3 fetches with a pool of 64 threads, `tarfile` writes each archive, and `upload_fileobj` sends it in 16 threads
beside that. Each client runs in a process of its own, one after the other; medians of the rounds. What the local S3
keeps is counted, member by member.
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
from itertools import cycle, islice
from typing import Any

from benchmarks.cases import CONNECTION_BYTES_S, LATENCY_S
from benchmarks.results import machine
from benchmarks.worker import cpu_s
from s3dataset.testing import LocalS3

SOURCE, DEST = "source", "dest"
OURS = "s3dataset"
COUNT, SIZE = 20_000, 100 << 10
SHARD_SIZE = 256 << 20
PER_SHARD = SHARD_SIZE // (SIZE + 512)
SINK = "bench"
THREADS, PART = 64, 8 << 20


def ours(verify: str, sink: bool) -> None:
    if sink:
        _ours_into_a_sink()
        return
    from s3dataset import pack

    modes: dict[str, Any] = {"no": False, "checksum": True, "read": "read"}
    pack(f"s3://{SOURCE}/", f"s3://{DEST}/{OURS}/", shard_size=SHARD_SIZE, verify=modes[verify], progress=False)


def _ours_into_a_sink() -> None:
    from s3dataset import Manifest
    from s3dataset._client import ClientRef
    from s3dataset._pack._names import Names
    from s3dataset._pack._options import PackSpec
    from s3dataset._pack._plan import ShardTask, shard_name
    from s3dataset._pack._workers import run_here
    from s3dataset.formats import Tar

    manifest = Manifest.from_prefix(f"s3://{SINK}/small/")
    rows = list(islice(cycle(manifest.rows(range(len(manifest)))), COUNT))
    spec = PackSpec(ClientRef(), SINK, "packed/", "0" * 32, Tar(), SHARD_SIZE, Names("small/"), verify=False)
    tasks = [
        ShardTask(number, shard_name(number, COUNT), rows[start : start + PER_SHARD])
        for number, start in enumerate(range(0, COUNT, PER_SHARD))
    ]
    run_here(spec, tasks, lambda _: None, lambda _: None)


def boto3(verify: str, sink: bool) -> None:  # noqa: ARG001 - it cannot
    import boto3 as library
    from botocore.config import Config

    source, prefix, dest = (SINK, "small/", SINK) if sink else (SOURCE, "data/", DEST)
    settings = {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
    client = library.client(
        "s3", config=Config(max_pool_connections=THREADS, s3={"addressing_style": "path"}, **settings)
    )
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=source, Prefix=prefix)
    keys = [entry["Key"] for page in pages for entry in page["Contents"]]
    keys = list(islice(cycle(keys), COUNT)) if sink else keys
    with ThreadPoolExecutor(THREADS) as fetching, ThreadPoolExecutor(16) as sending:

        def get(key: str) -> tuple[str, bytes]:
            return key, client.get_object(Bucket=source, Key=key)["Body"].read()

        names = iter(keys)
        coming: deque[Future[tuple[str, bytes]]] = deque(
            fetching.submit(get, key) for _, key in zip(range(4 * THREADS), names, strict=False)
        )
        closing: list[Future[Any]] = []
        for number, start in enumerate(range(0, len(keys), PER_SHARD)):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as archive:
                for _ in keys[start : start + PER_SHARD]:
                    key, data = coming.popleft().result()
                    if (following := next(names, None)) is not None:
                        coming.append(fetching.submit(get, following))
                    info = tarfile.TarInfo(key)
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
            closing.append(sending.submit(_upload, client, dest, f"boto3/shard-{number:06d}.tar", buffer))
        for one in closing:
            one.result()


def _upload(client: Any, bucket: str, key: str, buffer: io.BytesIO) -> None:
    from boto3.s3.transfer import TransferConfig

    buffer.seek(0)
    settings = TransferConfig(multipart_chunksize=PART, max_concurrency=16)
    client.upload_fileobj(buffer, bucket, key, Config=settings)


CLIENTS = {OURS: ours, "boto3": boto3}


def members(server: LocalS3, client: str) -> list[tuple[str, int]]:
    keys = [key for key in server.keys(DEST, f"{client}/") if key.endswith(".tar")]
    found = []
    for key in keys:
        with tarfile.open(fileobj=io.BytesIO(server.get(DEST, key))) as archive:
            found += [(member.name, member.size) for member in archive]
    return found


def measured(client: str, verify: str, sink: str | None) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.pack", "--one", client, "--verify", verify]
    command += ["--sink", sink] if sink else []
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(json.loads(output.splitlines()[-1]))


def one(client: str, verify: str, sink: str | None) -> None:
    if sink:
        os.environ |= {"AWS_ENDPOINT_URL": sink, "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
        os.environ |= {"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}
    begin, cpu = time.perf_counter(), cpu_s()
    CLIENTS[client](verify, bool(sink))
    seconds = time.perf_counter() - begin
    print(json.dumps({"seconds": seconds, "cpu_s": cpu_s() - cpu}))


def summary(client: str, rounds: list[dict[str, float]]) -> dict[str, float]:
    seconds = statistics.median(one["seconds"] for one in rounds)
    told = {
        "seconds": round(seconds, 2),
        "samples_per_s": round(COUNT / seconds),
        "mb_per_s": round(COUNT * SIZE / seconds / 1e6),
        "cpu_s": round(statistics.median(one["cpu_s"] for one in rounds), 2),
    }
    print(client, told, flush=True)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clients", nargs="*", default=list(CLIENTS))
    parser.add_argument("--verify", choices=["no", "checksum", "read"], default="no", help="how ours does")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sink", metavar="URL", help="a server that runs already, and forgets what is uploaded")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.one, arguments.verify, arguments.sink)
        return
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    results: dict[str, Any] = {}
    if arguments.sink:
        for client in arguments.clients:
            rounds = [measured(client, "no", arguments.sink) for _ in range(arguments.rounds)]
            results[client] = summary(client, rounds)
    else:
        traffic: dict[str, Any] = {"latency_s": LATENCY_S, "bandwidth_bytes_s": CONNECTION_BYTES_S, "etag": "opaque"}
        with LocalS3(SOURCE, DEST, **traffic) as server:
            server.add_synthetic(SOURCE, "data/{}.jpg", size_bytes=SIZE, count=COUNT)
            for client in arguments.clients:
                rounds = []
                for _ in range(arguments.rounds):
                    for key in server.keys(DEST):
                        server.delete(DEST, key)
                    rounds.append(measured(client, arguments.verify, None))
                results[client] = summary(client, rounds)
                found = members(server, client)
                assert len(found) == COUNT
                assert {size for _, size in found} == {SIZE}
    if len(results) == len(CLIENTS):
        ratio = results["boto3"]["seconds"] / results[OURS]["seconds"]
        print(f"{ratio:.1f} x a boto3 pool of {THREADS} threads")
    print(json.dumps({"machine": machine(), "verify": arguments.verify, "results": results}))


if __name__ == "__main__":
    main()
