"""What a large manifest costs: `python -m benchmarks.manifest [COUNT]`, by default for ten million objects.

Each line is a process of its own, spawned as a DataLoader's worker is. Own memory is the peak of its anonymous pages
over what it began with; what it maps of the manifest's file is shared by all processes. The listing comes from the
local S3 on the same machine.
"""

import multiprocessing
import pickle
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from s3dataset import Manifest
from s3dataset.testing import LocalS3

COUNT = 10_000_000
ROWS = 1_000_000


def listed(path: str) -> str:
    manifest = Manifest.from_prefix("s3://bucket/")
    manifest.save(path)
    return f"{len(manifest):,} objects, {Path(path).stat().st_size / 1e6:.0f} MB on disk"


def opened(path: str) -> str:
    return f"{len(Manifest.load(path)):,} objects"


def pickled(path: str) -> str:
    return f"{len(pickle.dumps(Manifest.load(path)))} bytes"


def read_at_random(path: str) -> str:
    manifest, numbers = Manifest.load(path), random.Random(1)
    for _ in range(ROWS // 1000):
        manifest.rows([numbers.randrange(len(manifest)) for _ in range(1000)])
    return f"{ROWS:,} rows"


def found(path: str) -> str:
    manifest = Manifest.load(path)
    for row in range(0, len(manifest), len(manifest) // 10_000):
        assert manifest.find(manifest.key(row)) == row
    return "10,000 keys"


def filtered(path: str) -> str:
    return f"{len(Manifest.load(path).filter(lambda entry: entry.key.endswith('7.jpg'))):,} objects"


def dealt(path: str) -> str:
    parts = Manifest.load(path).split({"train": 0.9, "val": 0.1})
    return ", ".join(f"{name} {len(part):,}" for name, part in parts.items())


def added(path: str) -> str:
    manifest = Manifest.load(path)
    return f"{len(manifest + manifest):,} objects"


STEPS: dict[str, Callable[[str], str]] = {
    "list a prefix": listed,
    "open": opened,
    "pickle for a spawned worker": pickled,
    "read rows at random": read_at_random,
    "find keys": found,
    "`filter`": filtered,
    "`split`": dealt,
    "add to itself": added,
}


def own_megabytes() -> int:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) * 1024 // 1_000_000


class Peak(threading.Thread):
    """The most memory of its own that this process had, over what it began with."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = self.most = own_megabytes()
        self.over = threading.Event()
        self.start()

    def run(self) -> None:
        while not self.over.wait(0.02):
            self.most = max(self.most, own_megabytes())

    def read(self) -> int:
        self.over.set()
        self.join()
        return self.most - self.before


def step(function: Callable[[str], str], path: str, answers: Any) -> None:
    peak, started, used_s = Peak(), time.perf_counter(), time.process_time()
    said = function(path)
    answers.send((said, time.perf_counter() - started, time.process_time() - used_s, peak.read()))


def tell(name: str, function: Callable[[str], str], path: str) -> None:
    """Runs one step in a process of its own and prints its line of the table."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=step, args=(function, path, theirs))
    process.start()
    theirs.close()
    said, wall_s, cpu_s, megabytes = ours.recv()
    process.join()
    print(f"| {name} | {said} | {wall_s:.1f} | {cpu_s:.1f} | {megabytes} |", flush=True)


def main(count: int) -> None:
    print("| | | s | CPU s | own memory, MB |\n|---|---|---|---|---|")
    with LocalS3("bucket") as server, tempfile.TemporaryDirectory() as folder:
        server.add_synthetic("bucket", "images/{}.jpg", count=count, size_bytes=100_000)
        for name, function in STEPS.items():
            tell(name, function, str(Path(folder) / "manifest"))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else COUNT)
