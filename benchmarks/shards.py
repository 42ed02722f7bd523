"""Samples in shards: `python -m benchmarks.shards [CASE ...]`, beside the peers.

40 tar shards of 100 samples of 100 KiB, and the same samples as 4,000 objects, 25 ms away with 90 MB/s a connection
(the local S3; or a server that runs already and holds both below `bench/`: `--distant URL`). Each client runs in a
process of its own, one after the other. Medians of three epochs, or of 30 batches.

    stream    one process takes the samples in order: no index
    loader    a shuffled epoch, two workers, batches of 32, samples as bytes and as stacked tensors
    random    batches of 256 samples from all over the shards
    state     the loader's state taken at every step, beside an epoch without
    index     the index made, beside the shards streamed by the same process
"""

import argparse
import contextlib
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import data, servers
from benchmarks.cases import CONNECTION_BYTES_S, LATENCY_S
from benchmarks.peers import ROOT, python_of_peers
from benchmarks.results import OURS, machine
from benchmarks.worker import cpu_s

SHARDS, IN_EACH, SAMPLE_BYTES = 40, 100, 100 << 10
COUNT = SHARDS * IN_EACH
BATCH, WORKERS, RANDOM_BATCH, RANDOM_BATCHES, ROUNDS = 32, 2, 256, 30, 3
CASES = ("stream", "loader", "random", "state", "index")


def as_bytes(sample: Any) -> bytes:
    return bytes(sample["bin"] if isinstance(sample, dict) else sample)


def as_tensor(sample: Any) -> Any:
    import torch

    return torch.frombuffer(bytearray(as_bytes(sample)), dtype=torch.uint8)


def keep_list(samples: list[Any]) -> list[Any]:
    return samples


# -- Clients: each gives an iterable over batches or samples ----------------------------------------------------------


class Ours:
    """The package, with an index where one helps."""

    def __init__(self, endpoint: str) -> None:
        self.connection = {"region": servers.REGION, "endpoint": endpoint}
        self.uri = f"s3://{data.BUCKET}/shards/"

    def manifest(self) -> Any:
        from s3dataset import Manifest

        return Manifest.from_prefix(self.uri, pattern="*.tar", **self.connection)

    def stream(self) -> Iterable[Any]:
        from s3dataset import S3IterableDataset

        return S3IterableDataset.from_prefix(self.uri, pattern="*.tar", format="tar", **self.connection)

    def loader(self, transform: Callable[[Any], Any], collate: Any) -> Any:
        from s3dataset import DataLoader, S3IterableDataset

        dataset = S3IterableDataset.from_manifest(
            self.manifest().index("tar"), transform=transform, shuffle=True, **self.connection
        )
        return DataLoader(dataset, batch_size=BATCH, num_workers=WORKERS, collate_fn=collate)

    def random(self) -> Callable[[list[int]], list[Any]]:
        from s3dataset import S3MapDataset

        dataset = S3MapDataset.from_manifest(self.manifest().index("tar"), transform=as_bytes, **self.connection)
        return dataset.__getitems__


class WebDataset:
    """Over HTTP, through curl, as its documentation has it; its shuffle is a buffer, left out here."""

    def __init__(self, endpoint: str) -> None:
        self.urls = [f"{endpoint}/{data.BUCKET}/{shard_key(number)}" for number in range(SHARDS)]

    def pipeline(self) -> Any:
        import webdataset

        return webdataset.WebDataset(self.urls, shardshuffle=False, workersplitter=webdataset.split_by_worker)

    def stream(self) -> Iterable[Any]:
        return self.pipeline()

    def loader(self, transform: Callable[[Any], Any], collate: Any) -> Any:
        import torch.utils.data

        dataset = self.pipeline().map(transform)
        return torch.utils.data.DataLoader(dataset, batch_size=BATCH, num_workers=WORKERS, collate_fn=collate)


class S3TorchConnector:
    """Its iterable dataset, and tarfile over its readers."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def stream(self) -> Iterator[Any]:
        from s3torchconnector import S3ClientConfig, S3IterableDataset

        shards = S3IterableDataset.from_objects(
            [f"s3://{data.BUCKET}/{shard_key(number)}" for number in range(SHARDS)],
            region=servers.REGION,
            endpoint=self.endpoint,
            s3client_config=S3ClientConfig(force_path_style=True),
        )
        for reader in shards:
            with tarfile.open(fileobj=reader, mode="r:") as archive:
                for member in archive:
                    file = archive.extractfile(member)
                    yield {"bin": file.read() if file else b""}


class LitData:
    """The samples as objects: its raw dataset reads them without a conversion."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def loader(self, transform: Callable[[Any], Any], collate: Any) -> Any:
        import torch.utils.data
        from litdata import StreamingRawDataset
        from litdata.streaming import downloader

        downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True  # there is no setting for an endpoint without TLS
        os.environ.update(AWS_ENDPOINT_URL=self.endpoint, LITDATA_DISABLE_VERSION_CHECK="1")
        cache = tempfile.mkdtemp(prefix="s3dataset-bench-litdata-")
        dataset = StreamingRawDataset(f"s3://{data.BUCKET}/shard-samples/", cache_dir=cache, transform=transform)
        return torch.utils.data.DataLoader(
            dataset, batch_size=BATCH, num_workers=WORKERS, shuffle=True, collate_fn=collate
        )


CLIENTS: dict[str, Any] = {
    "s3dataset": Ours,
    "webdataset": WebDataset,
    "s3torchconnector": S3TorchConnector,
    "litdata": LitData,
}


# -- Measuring --------------------------------------------------------------------------------------------------------


def epoch(batches: Iterable[Any], step: Callable[[], object] = lambda: None) -> tuple[float, float, int]:
    used, began, count = cpu_s(), time.perf_counter(), 0
    for batch in batches:
        step()
        count += 1 if isinstance(batch, dict) else len(batch)
    return time.perf_counter() - began, cpu_s() - used, count


def medians(rounds: list[tuple[float, float, int]]) -> dict[str, float]:
    if any(count != COUNT for *_, count in rounds):
        raise RuntimeError(f"{[count for *_, count in rounds]} samples came instead of {COUNT} each")
    wall, used, _ = (statistics.median(values) for values in zip(*rounds, strict=True))
    return {"samples_s": COUNT / wall, "cpu_us": used / COUNT * 1e6, "wall_s": wall}


def measure(case: str, name: str, endpoint: str) -> dict[str, dict[str, float]]:
    client = CLIENTS[name](endpoint)
    if case == "stream":
        return {"stream": medians([epoch(client.stream()) for _ in range(ROUNDS)])}
    if case == "loader":
        kinds: dict[str, tuple[Any, Any]] = {"bytes": (as_bytes, keep_list), "tensors": (as_tensor, None)}
        return {
            f"loader, {kind}": medians([epoch(client.loader(*how)) for _ in range(ROUNDS)])
            for kind, how in kinds.items()
        }
    if case == "random":
        return {"random": random_batches(client.random())}
    if case == "state":
        return state_costs(client)
    rounds = [(epoch(client.stream()), indexed(client)) for _ in range(ROUNDS)]
    return {
        "streamed before each index": medians([streamed for streamed, _ in rounds]),
        "index": medians([made for _, made in rounds]),
    }


def indexed(client: Any) -> tuple[float, float, int]:
    from s3dataset import S3MapDataset

    used, began = cpu_s(), time.perf_counter()
    manifest = client.manifest().index("tar")
    wall, used = time.perf_counter() - began, cpu_s() - used
    return wall, used, len(S3MapDataset.from_manifest(manifest, **client.connection))


def random_batches(take: Callable[[list[int]], list[Any]]) -> dict[str, float]:
    choose = random.Random(1)
    walls, used = [], cpu_s()
    for number in range(RANDOM_BATCHES + 1):
        batch = [choose.randrange(COUNT) for _ in range(RANDOM_BATCH)]
        began = time.perf_counter()
        if len(take(batch)) != RANDOM_BATCH:
            raise RuntimeError("a batch came short")
        if number:  # the first opens the connections
            walls.append(time.perf_counter() - began)
    wall = statistics.median(walls)
    cpu = (cpu_s() - used) / (RANDOM_BATCHES + 1) / RANDOM_BATCH
    return {"samples_s": RANDOM_BATCH / wall, "cpu_us": cpu * 1e6, "wall_s": wall}


def state_costs(client: Any) -> dict[str, dict[str, float]]:
    plain, stateful, size = [], [], 0
    for _ in range(ROUNDS):
        plain.append(epoch(client.loader(as_bytes, keep_list)))
        loader = client.loader(as_bytes, keep_list)
        stateful.append(epoch(loader, lambda loader=loader: loader.state_dict()))
        size = max(size, len(json.dumps(loader.state_dict())))
    found = {"without state": medians(plain), "state at every step": medians(stateful)}
    found["state at every step"]["state_bytes"] = size
    return found


# -- Data and processes -----------------------------------------------------------------------------------------------


def shard_key(number: int) -> str:
    return f"shards/{number:04}.tar"


def create(folder: Path) -> None:
    bucket = folder / data.BUCKET
    for number in range(SHARDS):
        path = bucket / shard_key(number)
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        (bucket / "shard-samples").mkdir(exist_ok=True)
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as archive:
            for index in range(number * IN_EACH, (number + 1) * IN_EACH):
                body = random.Random(index).randbytes(SAMPLE_BYTES)
                member = tarfile.TarInfo(f"{index:06}.bin")
                member.size = len(body)
                archive.addfile(member, io.BytesIO(body))
                (bucket / "shard-samples" / f"{index:06}.bin").write_bytes(body)
        path.write_bytes(file.getvalue())


def run(case: str, name: str, endpoint: str, environment: dict[str, str], python: Path) -> dict[str, dict[str, float]]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3DATASET_"))}
    command = [python, "-m", "benchmarks.shards", "--one", case, name, endpoint]
    done = subprocess.run(command, cwd=ROOT, env=clean | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} ended with {done.returncode}: {done.stderr[-2000:]}")
    result: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(*sys.argv[2:])), flush=True)
        os._exit(0)  # some clients' threads do not end
    parser = argparse.ArgumentParser(description="Samples in shards, beside the peers.")
    parser.add_argument("cases", nargs="*", default=list(CASES), metavar="CASE")
    parser.add_argument("--distant", help="a server that runs already")
    parser.add_argument("--python", type=Path, help="an interpreter that has the peers")
    options = parser.parse_args()
    peers = options.python or python_of_peers()
    about = machine()
    with contextlib.ExitStack() as stack:
        endpoint, environment = options.distant, servers.KEYS
        if endpoint is None:
            folder = data.choose_folder()
            create(folder)
            traffic = {"latency_s": LATENCY_S, "bandwidth_bytes_s": CONNECTION_BYTES_S}
            server = stack.enter_context(servers.local_s3(folder, traffic=traffic))
            endpoint, environment = server.endpoint, server.environment
        print(f"{about['cores']} cores of {about['cpu']}, load {about['load']}\n")
        print("| case | client | samples/s | s3dataset beside it | CPU us a sample | seconds |\n" + "|---" * 6 + "|")
        for case in options.cases:
            first: dict[str, float] = {}
            for name, kind in CLIENTS.items():
                if name not in OURS and not hasattr(kind, case):
                    continue
                python = Path(sys.executable) if name in OURS else peers
                for row, figures in run(case, name, endpoint, environment, python).items():
                    rate = figures["samples_s"]
                    beside = first.setdefault(row, rate) / rate
                    more = f", state of {figures['state_bytes']:,.0f} bytes" if "state_bytes" in figures else ""
                    print(
                        f"| {row} | {name} | {rate:,.0f} | {beside:.1f} × | {figures['cpu_us']:,.0f} | "
                        f"{figures['wall_s']:.3f}{more} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
