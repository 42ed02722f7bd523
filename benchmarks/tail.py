"""What late answers cost: `python -m benchmarks.tail [CLIENT ...]`, batches of objects beside the peers.

One request in a hundred is answered two seconds late, as a slow disk or a lost packet of the service does; all others
after 25 ms. A batch is complete with its last object, so that nearly every batch of 256 meets one that is late. Each
client runs in a process of its own, on a local S3 of its own.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import data, servers
from benchmarks.cases import CONNECTION_BYTES_S, LATENCY_S
from benchmarks.clients import CLIENTS, Target
from benchmarks.peers import ROOT, python_of_peers
from benchmarks.results import OURS, machine

BATCH = 256
LATE_S, LATE_SHARE = 2.0, 0.01
LONGEST_S = 120.0
MOST_BATCHES, FEWEST_BATCHES = 400, 40


def measure(name: str, endpoint: str) -> dict[str, Any]:
    """Seconds of each batch, until there are enough of them or the time is over."""
    client = CLIENTS[name](Target(endpoint, servers.REGION, BATCH))
    for _ in client.get_many([data.small_key(number) for number in range(BATCH)]):
        pass  # connections are made, and latencies learned
    batches: list[float] = []
    began = time.perf_counter()
    while len(batches) < MOST_BATCHES:
        if time.perf_counter() - began > LONGEST_S and len(batches) >= FEWEST_BATCHES:
            break
        keys = [data.small_key(len(batches) * BATCH + number) for number in range(BATCH)]
        start = time.perf_counter()
        received = sum(len(body) for _, body in client.get_many(keys))
        batches.append(time.perf_counter() - start)
        if received != BATCH * data.SMALL_BYTES:
            raise RuntimeError(f"{received} bytes came")
    result: dict[str, Any] = {"batches": batches}
    if name in OURS:
        result["hedges"] = client.client.stats()["hedges"]  # type: ignore[attr-defined]
    return result


def run(name: str, folder: Path, python: Path) -> dict[str, Any]:
    late = {"operation": "GetObject", "times": None, "probability": LATE_SHARE, "seed": 7}
    rule = late | {"action": {"kind": "delay", "delay_s": LATE_S}}
    traffic = {"latency_s": LATENCY_S, "bandwidth_bytes_s": CONNECTION_BYTES_S}
    with servers.local_s3(folder, traffic=traffic, faults=[rule]) as server:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3DATASET_"))}
        environment |= server.environment
        command = [python, "-m", "benchmarks.tail", "--one", name, server.endpoint]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def at(share: float, values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(*sys.argv[2:])), flush=True)
        os._exit(0)  # some clients' threads do not end
    folder = data.choose_folder()
    data.create(folder)
    peers = python_of_peers()
    about = machine()
    print(f"{about['cores']} cores of {about['cpu']}, load {about['load']}\n")
    print("| client | batches | median s | p90 | p99 | hedges |\n|---|---|---|---|---|---|", flush=True)
    for name in sys.argv[1:] or CLIENTS:
        result = run(name, folder, Path(sys.executable) if name in OURS else peers)
        batches = result["batches"]
        hedges = f"{result['hedges'] / (BATCH * (len(batches) + 1)):.2%}" if "hedges" in result else "–"
        figures = " | ".join(f"{at(share, batches):.3f}" for share in (0.5, 0.9, 0.99))
        print(f"| {name} | {len(batches)} | {figures} | {hedges} |", flush=True)


if __name__ == "__main__":
    main()
