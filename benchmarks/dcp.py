"""Distributed checkpoints beside s3torchconnector's: `python -m benchmarks.dcp [MIB]`; `python -m benchmarks.dcp plan`.

A checkpoint of 2 GiB or so many MiB, a third of it a model and the rest its optimizer's state, saved to the memory of
the local S3 and loaded from nginx (where installed). Both libraries are in processes of their own, which take turns,
three rounds each; tensors are there beforehand. `plan` times what a save and a load of 4,096 ranks and a million items
take beside the bytes.
"""

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import data, servers
from benchmarks.peers import ROOT
from benchmarks.results import machine

ROUNDS = 3
TENSOR_BYTES = 10 << 20
MIB = 2040
SIZE = "S3DATASET_BENCH_MIB"
OURS, PEER = "s3dataset", "s3torchconnector"
CREDENTIALS = [
    {
        "access_key": servers.KEYS["AWS_ACCESS_KEY_ID"],
        "secret_key": servers.KEYS["AWS_SECRET_ACCESS_KEY"],
        "session_token": None,
    }
]
LOADED = f"s3://{data.BUCKET}/dcp"
SAVED = f"s3://{data.BUCKET}/saved"


def state(*, whole: bool = True) -> dict[str, Any]:
    import torch

    def tensors(count: int) -> dict[str, torch.Tensor]:
        return {f"{number:03}": torch.full((TENSOR_BYTES // 4,), float(number)) for number in range(count)}

    count = int(os.environ.get(SIZE, MIB)) // 30
    model = {"model": tensors(count)}
    return {**model, "optimizer": tensors(2 * count)} if whole else model


def nbytes(value: Any) -> int:
    return sum(map(nbytes, value.values())) if isinstance(value, dict) else value.nbytes


# -- In the process of one library -------------------------------------------------------------------------------------


def storage(name: str, uri: str, *, writes: bool) -> Any:
    if name == OURS:
        from s3dataset.dcp import S3StorageReader, S3StorageWriter

        return (S3StorageWriter if writes else S3StorageReader)(servers.REGION, uri)
    from s3torchconnector import S3ClientConfig
    from s3torchconnector.dcp import S3StorageReader as TheirReader
    from s3torchconnector.dcp import S3StorageWriter as TheirWriter

    config = S3ClientConfig(force_path_style=True, throughput_target_gbps=100.0)
    if writes:
        return TheirWriter(servers.REGION, uri, config, thread_count=2)
    return TheirReader(servers.REGION, uri, config)


def serve(name: str) -> None:
    """Does what the lines of its input say, and answers each with a line of JSON."""
    import torch.distributed.checkpoint as dcp

    warnings.simplefilter("ignore")
    for line in sys.stdin:
        what, where = line.split()
        if what == "files":
            dcp.save(state(), storage_writer=dcp.FileSystemWriter(where))
            answer = {}
        else:
            os.environ["AWS_ENDPOINT_URL"] = where
            answer = do(name, what)
        print(json.dumps(answer), flush=True)
    os._exit(0)


def do(name: str, what: str) -> dict[str, float]:
    import torch
    import torch.distributed.checkpoint as dcp

    given = state(whole=what != "model")
    if what != "save":
        for part in given.values():
            for tensor in part.values():
                tensor.fill_(-1.0)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, cpu = time.perf_counter(), time.process_time()
    if what == "save":
        dcp.save(given, storage_writer=storage(name, SAVED, writes=True))
    else:
        dcp.load(given, storage_reader=storage(name, LOADED, writes=False))
    answer = {
        "wall": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
        "over": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024,
        "bytes": nbytes(given),
    }
    for part in given.values():
        for number, tensor in enumerate(part.values()):
            if not torch.equal(tensor, torch.full_like(tensor, float(number))):
                raise RuntimeError("other bytes came")
    return answer


class Library:
    """One in a process of its own."""

    def __init__(self, name: str, environment: dict[str, str]) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.dcp", "--one", name],
            cwd=ROOT,
            env={**kept, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def do(self, what: str, endpoint: str) -> dict[str, float]:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("no pipes")
        self._process.stdin.write(f"{what} {endpoint}\n")
        self._process.stdin.flush()
        answer: dict[str, float] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


def measure(folder: Path) -> Iterator[tuple[str, str, dict[str, float]]]:
    """-> (case, library, medians of the rounds; the most memory)."""
    with ExitStack() as stack:
        libraries = [Library(name, servers.KEYS) for name in (OURS, PEER)]
        for library in libraries:
            stack.callback(library.close)
        with servers.local_s3(None, credentials=CREDENTIALS) as sink:
            yield from compared(libraries, sink.endpoint, "save")
        files = folder / data.BUCKET / "dcp"
        files.mkdir(parents=True)
        libraries[0].do("files", str(files))
        plain = stack.enter_context(servers.local_s3(folder, credentials=CREDENTIALS))
        fast = stack.enter_context(servers.nginx(folder)) or plain
        yield from compared(libraries, fast.endpoint, "load", "model")
        for what in ("load", "model"):
            before = sent(plain)
            answer = libraries[0].do(what, plain.endpoint)
            yield f"{what}, bytes read / needed", OURS, {"ratio": (sent(plain) - before) / answer["bytes"]}


def compared(libraries: list[Library], endpoint: str, *cases: str) -> Iterator[tuple[str, str, dict[str, float]]]:
    rounds: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(ROUNDS):
        for what in cases:
            for library in libraries:
                rounds.setdefault((what, library.name), []).append(library.do(what, endpoint))
    for (what, name), answers in rounds.items():
        medians = {key: statistics.median(one[key] for one in answers) for key in answers[0]}
        yield what, name, {**medians, "over": max(one["over"] for one in answers)}


def sent(server: servers.Server) -> int:
    import urllib.request

    with urllib.request.urlopen(server.stats_url) as answer:
        return int(json.load(answer)["bytes_out"])


def compare() -> None:
    about = machine()
    print(f"{about['cores']} cores of {about['cpu']}, load {about['load']}\n")
    root = data.choose_folder() / "dcp-benchmark"
    shutil.rmtree(root, ignore_errors=True)
    try:
        print("| | | MB/s | s | CPU s | over the base, MB |\n|---|---|---|---|---|---|", flush=True)
        for what, name, found in measure(root):
            if "ratio" in found:
                print(f"| {what} | {name} | {found['ratio']:.3f} |", flush=True)
                continue
            speed = found["bytes"] / found["wall"] / 1e6
            figures = f"{speed:,.0f} | {found['wall']:.2f} | {found['cpu']:.2f} | {found['over']:,.0f}"
            print(f"| {what} | {name} | {figures} |", flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        serve(sys.argv[2])
    elif sys.argv[1:2] == ["plan"]:
        from benchmarks.dcp_plan import main

        main(*map(int, sys.argv[2:]))
    else:
        os.environ[SIZE] = sys.argv[1] if len(sys.argv) > 1 else str(MIB)
        compare()
