"""s3dataset.fsspec beside s3fs: `python -m benchmarks.filesystem`, with s3fs and pyarrow installed.

Prints a table; each figure is the median of the rounds of one process a client and case, interleaved. The server is the
local S3, on the same machine.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from s3dataset.testing import LocalS3

MIB = 1 << 20
COUNT = 1000
FILES = 8
COLUMNS = 16
ROWS = 1 << 18
KEYS = 20_000

Case = Callable[[Any], None]


def file_system(name: str) -> Any:
    options = {
        "endpoint_url": os.environ["AWS_ENDPOINT_URL"],
        "key": os.environ["AWS_ACCESS_KEY_ID"],
        "secret": os.environ["AWS_SECRET_ACCESS_KEY"],
        "use_listings_cache": False,
    }
    if name == "s3fs":
        import s3fs

        return s3fs.S3FileSystem(**options)
    from s3dataset.fsspec import S3FileSystem

    return S3FileSystem(**options)


def cat(fs: Any) -> None:
    found = fs.cat([f"bucket/small/{i:08}" for i in range(COUNT)])
    if sum(map(len, found.values())) != COUNT * 102_400:
        raise AssertionError("bytes are missing")


def pipe(fs: Any) -> None:
    fs.pipe({f"sink/{i:08}": bytes(102_400) for i in range(COUNT)})


def scan(fs: Any) -> None:
    import pyarrow.dataset

    table = pyarrow.dataset.dataset("bucket/table", filesystem=fs, format="parquet").to_table()
    if table.num_rows != FILES * ROWS:
        raise AssertionError("rows are missing")


def one_column(fs: Any) -> None:
    import pyarrow.dataset

    data = pyarrow.dataset.dataset("bucket/table", filesystem=fs, format="parquet")
    if data.to_table(columns=["column7"]).num_rows != FILES * ROWS:
        raise AssertionError("rows are missing")


def read(fs: Any) -> None:
    with fs.open("bucket/large", "rb") as file:
        nbytes = 0
        while data := file.read(MIB):
            nbytes += len(data)
    if nbytes != 256 * MIB:
        raise AssertionError("bytes are missing")


def find(fs: Any) -> None:
    if len(fs.find("bucket/many")) != KEYS:
        raise AssertionError("keys are missing")


CASES: dict[str, tuple[str, Case]] = {
    "cat": (f"`cat` of {COUNT:,} objects of 100 KiB", cat),
    "pipe": (f"`pipe` of {COUNT:,} objects of 100 KiB", pipe),
    "scan": (f"Parquet, {FILES} files of 32 MiB, by pyarrow", scan),
    "column": (f"one of their {COLUMNS} columns", one_column),
    "read": ("`open` and `read(1 MiB)` of 256 MiB", read),
    "find": (f"`find` of {KEYS:,} keys", find),
}


def measure(client: str, case: str, rounds: int) -> None:
    fs = file_system(client)
    results = []
    for _ in range(rounds + 1):
        cpu, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        CASES[case][1](fs)
        took, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
        results.append((took, after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime))
    print(json.dumps(results[1:]), flush=True)
    os._exit(0)  # pyarrow's threads may take the process down while the interpreter ends


def prepare(server: LocalS3) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet

    server.add_synthetic("bucket", "small/{}", size_bytes=102_400, count=COUNT)
    server.add_synthetic("bucket", "many/{}", size_bytes=1, count=KEYS)
    server.add_synthetic("bucket", "large", size_bytes=256 * MIB)
    fs = file_system("s3dataset")
    random = np.random.default_rng(0)
    for number in range(FILES):
        columns = {f"column{i}": random.integers(0, 1 << 62, ROWS) for i in range(COLUMNS)}
        path = f"bucket/table/{number}.parquet"
        pyarrow.parquet.write_table(pa.table(columns), path, filesystem=fs, use_dictionary=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", nargs=2, metavar=("CLIENT", "CASE"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latencies-ms", nargs="*", type=float, default=[0, 25])
    parser.add_argument("--cases", nargs="*", default=list(CASES))
    options = parser.parse_args()
    if options.measure:
        measure(*options.measure, options.rounds)
        return
    print("| | ms to the first byte | s3dataset, s | s3fs, s | times as fast | CPU |\n|---|---|---|---|---|---|")
    with LocalS3("bucket", sinks=["sink"], etag="opaque") as server:
        server.configure(check_signatures=False)
        prepare(server)
        for latency_s in (milliseconds / 1000 for milliseconds in options.latencies_ms):
            server.set_traffic(latency_s=latency_s, bandwidth_bytes_s=90e6 if latency_s else 0)
            for case in options.cases:
                found: dict[str, list[list[float]]] = {"s3dataset": [], "s3fs": []}
                for _ in range(2):
                    for client in found:
                        command = [sys.executable, "-m", __spec__.name, "--measure", client, case]
                        command += ["--rounds", str(options.rounds)]
                        done = subprocess.run(command, capture_output=True, text=True, check=True)
                        found[client] += json.loads(done.stdout)
                ours, peer = (
                    [statistics.median(column) for column in zip(*rows, strict=True)] for rows in found.values()
                )
                print(
                    f"| {CASES[case][0]} | {latency_s * 1000:.0f} | {ours[0]:.3f} | {peer[0]:.3f} | "
                    f"{peer[0] / ours[0]:.1f} × | {ours[1] / peer[1]:.2f} × |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
