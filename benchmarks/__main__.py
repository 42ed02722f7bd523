"""`make bench`: every case for ours and the peers, one after the other, on servers of its own."""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import chart, data, documents, servers
from benchmarks.cases import CASES, Case
from benchmarks.clients import CLIENTS
from benchmarks.peers import ROOT, python_of_peers
from benchmarks.results import OURS, Results, commit, machine

CASE_TIMEOUT_S = 180
LOADER_NAMES = ("s3dataset", "s3dataset.DataLoader", "s3torchconnector", "litdata", "obstore", "boto3")
CHECKPOINT_NAMES = ("s3dataset", "s3torchconnector", "obstore", "boto3")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--cases", nargs="*", choices=[case.name for case in CASES], default=[], metavar="CASE")
    parser.add_argument("--clients", nargs="*", default=[], metavar="CLIENT")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--server", choices=("auto", "local"), default="auto", help="local: no nginx")
    return parser.parse_args()


def names_of(case: Case) -> tuple[str, ...]:
    return {"client": tuple(CLIENTS), "loader": LOADER_NAMES, "checkpoint": CHECKPOINT_NAMES}[case.kind]


def measure(case: Case, name: str, server: servers.Server, python: Path, rounds: int, folder: Path) -> dict[str, Any]:
    request = {
        "case": case.name,
        "client": name,
        "endpoint": server.endpoint,
        "region": servers.REGION,
        "ca_bundle": server.ca_bundle,
        "stats_url": server.stats_url,
        "rounds": rounds,
        "folder": str(folder),
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3DATASET_"))}
    environment.update(server.environment, PYTHONWARNINGS="ignore", TOKENIZERS_PARALLELISM="false")
    command = [python, "-m", "benchmarks.worker", json.dumps(request)]
    head = {"case": case.name, "client": name}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=CASE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return {**head, "error": f"not done after {CASE_TIMEOUT_S} s"}
    if done.returncode or not done.stdout.strip():
        reasons = [line for line in done.stderr.splitlines() if re.match(r"[\w.]+(Error|Exception)\b", line)]
        return {**head, "error": (reasons or [f"exit {done.returncode}"])[-1][:300]}
    return {**head, **json.loads(done.stdout.splitlines()[-1])}


def tell(case: Case, row: dict[str, Any]) -> None:
    name = f"  {row['client']:22}"
    if "wall_s" not in row:
        print(f"{name} {'–' if row.get('unsupported') else row['error']}", flush=True)
        return
    figure = Results({"results": [row]}).figures(case)[0]
    cpu = f"{figure.cpu_text:>8} {figure.cpu_unit}"
    print(
        f"{name} {figure.rate:10,.0f} {case.unit:10} {cpu:28} {figure.peak_mb:7,.0f} MB {row['requests']:8,} requests",
        flush=True,
    )


def main() -> int:
    arguments = parse()
    cases = [case for case in CASES if not arguments.cases or case.name in arguments.cases]
    began = time.monotonic()
    peers_python = python_of_peers()
    folder = data.choose_folder()
    print(f"data in {folder}", flush=True)
    data.create(folder)
    content: dict[str, Any] = {
        "date": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "commit": commit(),
        "machine": machine(),
        "rounds": arguments.rounds,
        "complete": not (arguments.cases or arguments.clients),
        "versions": {},
        "results": [],
    }
    with ExitStack() as stack:
        running = servers.start_all(stack, folder, use_nginx=arguments.server == "auto")
        content["servers"] = servers.describe(running)
        for case in cases:
            server = running.choose(case)
            print(f"\n{case.title} ({server.name})", flush=True)
            for name in names_of(case):
                if arguments.clients and name not in arguments.clients:
                    continue
                if case.name == "iterate" and name == "s3dataset.DataLoader":
                    continue  # it looks ahead for map datasets; an iterable one does so itself
                python = Path(sys.executable) if name in OURS else peers_python
                row = {**measure(case, name, server, python, arguments.rounds, folder), "server": server.name}
                tell(case, row)
                if "version" in row:
                    content["versions"][name.partition(".")[0]] = row.pop("version")
                content["results"].append(row)
    results = Results(content)
    path = results.save()
    picture = path.with_suffix(".png")
    chart.draw(results, picture)
    print(f"\n{time.monotonic() - began:.0f} s; written: {path.relative_to(ROOT)}, {picture.relative_to(ROOT)}")
    if content["complete"]:
        documents.main()
    return 1 if any("error" in row and row["client"] in OURS for row in content["results"]) else 0


if __name__ == "__main__":
    sys.exit(main())
