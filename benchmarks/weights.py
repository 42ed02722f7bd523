"""Loading 2 GiB of safetensors into CPU tensors: `python -m benchmarks.weights [CLIENT ...]`, beside the peers.

Plain (nginx, where it is installed) and at a distance (25 ms to the first byte, 90 MB/s a connection: the local S3), or
from servers that run already and hold `bench/weights/model.safetensors`: `--plain URL --distant URL`. Each client runs
in a process of its own, the clients of a server one after the other, so that ratios are those of one run. Medians of
three.
"""

import argparse
import contextlib
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import data, servers
from benchmarks.cases import CONNECTION_BYTES_S, LATENCY_S
from benchmarks.clients import Obstore, Target
from benchmarks.peers import ROOT, python_of_peers
from benchmarks.results import OURS, machine
from benchmarks.worker import cpu_s, status_bytes, touch_memory

KEY = "weights/model.safetensors"
TENSORS, ELEMENTS = 200, 2_684_354
ROUNDS = 3


def ours(endpoint: str) -> Any:
    from s3dataset.safetensors import load_file

    return load_file(f"s3://{data.BUCKET}/{KEY}", region=servers.REGION, endpoint=endpoint)


def runai(endpoint: str) -> Any:
    from runai_model_streamer import SafetensorsStreamer

    os.environ |= {
        "RUNAI_STREAMER_S3_ENDPOINT": endpoint,
        "AWS_ENDPOINT_URL": endpoint,
        "RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING": "0",
        "RUNAI_STREAMER_CONCURRENCY": os.environ.get("RUNAI_STREAMER_CONCURRENCY", "16"),
        "RUNAI_STREAMER_LOG_LEVEL": "ERROR",
    }
    with SafetensorsStreamer() as streamer:
        streamer.stream_file(f"s3://{data.BUCKET}/{KEY}")
        return dict(streamer.get_tensors())


def s3fs(endpoint: str) -> Any:
    import safetensors.torch
    from s3fs import S3FileSystem

    files = S3FileSystem(endpoint_url=endpoint, client_kwargs={"region_name": servers.REGION})
    return safetensors.torch.load(files.cat(f"{data.BUCKET}/{KEY}"))


def boto3(endpoint: str) -> Any:
    import io

    import boto3
    import safetensors.torch
    from boto3.s3.transfer import TransferConfig

    client = boto3.client("s3", endpoint_url=endpoint, region_name=servers.REGION)
    file = io.BytesIO()
    client.download_fileobj(data.BUCKET, KEY, file, Config=TransferConfig(max_concurrency=32))
    return safetensors.torch.load(file.getvalue())


def obstore(endpoint: str) -> Any:
    import safetensors.torch

    client = Obstore(Target(endpoint, servers.REGION, 32))
    size = client.store(data.BUCKET).head(KEY)["size"]
    return safetensors.torch.load(bytes(client.get_large(KEY, size)))


CLIENTS = {"s3dataset": ours, "runai-model-streamer": runai, "obstore": obstore, "s3fs": s3fs, "boto3": boto3}


def create(folder: Path) -> None:
    """Each tensor holds its own number."""
    path = folder / data.BUCKET / KEY
    header: dict[str, Any] = {}
    for number in range(TENSORS):
        offsets = [number * ELEMENTS * 4, (number + 1) * ELEMENTS * 4]
        header[f"layers.{number:03}.weight"] = {"dtype": "F32", "shape": [ELEMENTS], "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    size = 8 + len(text) + TENSORS * ELEMENTS * 4
    if path.exists() and path.stat().st_size == size:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    import torch

    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for number in range(TENSORS):
            file.write(torch.full((ELEMENTS,), float(number)).numpy().tobytes())


def available_bytes() -> int:
    """Of the machine's memory; much where nothing tells."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 64 * data.GIB
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))


def measure(name: str, endpoint: str) -> dict[str, Any]:
    """Three loads, each of which is looked at."""
    import torch  # noqa: F401 - not what is measured

    load = CLIENTS[name]
    rounds = []
    for _ in range(ROUNDS):
        gc.collect()
        touch_memory(min(4 * data.GIB, available_bytes() // 3))
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the highest memory so far is that of now
        base, used, began = status_bytes("VmRSS"), cpu_s(), time.perf_counter()
        tensors = load(endpoint)
        wall, used, highest = time.perf_counter() - began, cpu_s() - used, status_bytes("VmHWM")
        if len(tensors) != TENSORS or any(
            float(tensor[0]) != int(key[7:10]) or float(tensor[-1]) != int(key[7:10]) for key, tensor in tensors.items()
        ):
            raise RuntimeError(f"{name} loaded something else")
        rounds.append((wall, used, highest - base))
        tensors = None
    wall, used, _ = (statistics.median(values) for values in zip(*rounds, strict=True))
    walls = [one[0] for one in rounds]
    return {"wall_s": wall, "cpu_s": used, "peak_bytes": max(one[2] for one in rounds), "walls": walls}


def run(name: str, endpoint: str, environment: dict[str, str], python: Path) -> dict[str, Any]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3DATASET_"))}
    command = [python, "-m", "benchmarks.weights", "--one", name, endpoint]
    done = subprocess.run(command, cwd=ROOT, env=clean | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} ended with {done.returncode}: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(*sys.argv[2:])), flush=True)
        os._exit(0)  # some clients' threads do not end
    parser = argparse.ArgumentParser(description="Loading safetensors, beside the peers.")
    parser.add_argument("clients", nargs="*", default=list(CLIENTS), metavar="CLIENT")
    parser.add_argument("--plain", help="a server that runs already")
    parser.add_argument("--distant", help="one that is far away")
    parser.add_argument("--python", type=Path, help="an interpreter that has the peers")
    options = parser.parse_args()
    peers = options.python or python_of_peers()
    about = machine()
    with contextlib.ExitStack() as stack:
        places = {"plain": options.plain, "distant": options.distant}
        if not all(places.values()):
            folder = data.choose_folder()
            create(folder)
            traffic = {"latency_s": LATENCY_S, "bandwidth_bytes_s": CONNECTION_BYTES_S}
            far = stack.enter_context(servers.local_s3(folder, traffic=traffic))
            near = stack.enter_context(servers.nginx(folder)) or stack.enter_context(servers.local_s3(folder))
            places = {"plain": options.plain or near.endpoint, "distant": options.distant or far.endpoint}
        print(f"{about['cores']} cores of {about['cpu']}, load {about['load']}\n")
        print(
            "| server | client | MB/s | beside s3dataset | seconds | CPU s | over the base, MB |\n" + "|---" * 7 + "|"
        )
        for place, endpoint in places.items():
            first = None
            for name in options.clients:
                result = run(name, endpoint, servers.KEYS, Path(sys.executable) if name in OURS else peers)
                wall = result["wall_s"]
                first = first or wall
                walls = ", ".join(f"{one:.2f}" for one in result["walls"])
                speed = TENSORS * ELEMENTS * 4 / wall / 1e6
                print(
                    f"| {place} | {name} | {speed:,.0f} | {wall / first:.2f} × | {walls} | "
                    f"{result['cpu_s']:.2f} | {result['peak_bytes'] / 1e6:,.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
