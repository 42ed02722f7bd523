"""`make soak`: hours of everything that programs do, on a server that has bad days; then a verdict and a picture."""

import argparse
import dataclasses
import gc
import json
import logging
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from tests.soak.measure import Sampler
from tests.soak.verdict import LEAST_AT_REST, SERIES, growth, problems
from tests.soak.weather import Weather
from tests.soak.work import Work
from tests.soak.world import BUCKET, CONFIG, World

import s3dataset
from s3dataset._client import get_client

_MOST_ERRORS = 20


def watched_stats(client: s3dataset.S3Client) -> dict[str, Any]:
    """Of the client that the pieces share and of the one that the datasets have."""
    both = [client.stats(), get_client(config=CONFIG).stats()]
    added = ("in_flight", "uploads_in_doubt", "connections_open")
    counts = {name: sum(stats.get(name, 0) for stats in both) for name in added}
    return {**both[1], **both[0], **counts}


def left_behind(world: World, folder: Path, in_doubt: int) -> list[str]:
    """What is there after the end and should not be; files, after the next process has begun."""
    found = []
    sweep = "import sys; from s3dataset import _shared_files; _shared_files.sweep(sys.argv[1])"
    subprocess.run([sys.executable, "-c", sweep, str(folder)], check=True)
    uploads = world.server.uploads(BUCKET)
    if any(upload["parts"] for upload in uploads) or len(uploads) > in_doubt:
        found.append(f"{len(uploads)} unfinished uploads are left, of which {in_doubt} may be: {uploads[:5]}")
    if files := sorted(path.name for path in folder.iterdir() if path.name.startswith("s3dataset-")):
        found.append(f"{len(files)} files are left in the temporary folder: {files[:5]}")
    return found


class Soak:
    """A run, and what came of it."""

    def __init__(self, seconds: float, interval_s: float, seed: int, folder: Path) -> None:
        self._seconds = seconds
        self._interval_s = interval_s
        self._seed = seed
        self._temporary = folder / "tmp"
        self._temporary.mkdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(self._temporary)
        self.world = World(folder, seed)
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []

    def run(self) -> None:
        world = self.world
        world.start()
        resource_tracker.ensure_running()  # multiprocessing starts it with the first spawned worker, for good
        try:
            began = time.monotonic()
            work = Work(world)
            self.sampler = sampler = Sampler(
                began, self._interval_s, lambda: watched_stats(world.client), world.server.pid
            )
            self.weather = Weather(world, began, self._seed)
            with sampler:
                with self.weather:
                    self._work(work, began)
                sampler.rest()
            self.epochs, self.samples = work.epochs, work.samples
            in_doubt = watched_stats(world.client)["uploads_in_doubt"]
            self.requests = world.server.stats()["requests"]
            del work
            gc.collect()
            self.wrong += problems(sampler.samples)
            self.wrong += left_behind(world, self._temporary, in_doubt)
        finally:
            world.stop()

    def _work(self, work: Work, began: float) -> None:
        waiting: list[str] = []
        rounds = 0
        while len(self.wrong) < _MOST_ERRORS:
            elapsed = time.monotonic() - began
            if elapsed >= self._seconds and self.done.total() >= 2 * LEAST_AT_REST:
                break
            if not waiting:
                waiting = [name for name in work.pieces if name not in work.rare or (rounds + 1) % 4 == 0]
                self.world.random.shuffle(waiting)
                rounds += 1
            name = waiting.pop()
            self.sampler.doing = name
            try:
                work.pieces[name]()
            except Exception:  # noqa: BLE001 - whatever it is, it is told
                text = traceback.format_exc()
                self.wrong.append(f"{name}, after {elapsed:.0f} s: {text.strip().splitlines()[-1]}")
                print(text, file=sys.stderr, flush=True)
            self.done[name] += 1
            self.sampler.rest()


def machine() -> str:
    facts = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in facts if line.startswith("model name")), "")
    return f"{os.cpu_count()} cores of {model or platform.machine()}, Python {platform.python_version()}"


def tell(soak: Soak) -> None:
    samples = soak.sampler.samples
    print(f"{soak.epochs} whole epochs, {soak.samples:,} samples, {soak.requests:,} requests; pieces of work:")
    for name, count in soak.done.most_common():
        print(f"  {count:>5}  {name}")
    weather = Counter(spell.title for spell in soak.weather.spells)
    print("faults: " + ", ".join(f"{count} of {title}" for title, count in weather.most_common()))
    print(f"{'':<36}{'2nd quarter':>12}{'last':>10}{'an hour':>10}")
    for series in SERIES:
        before, after, slope = growth(samples, series)
        print(f"{series.title:<36}{before:>12,.1f}{after:>10,.1f}{slope:>+10,.1f}")
    for problem in soak.wrong:
        print(f"✗ {problem}")
    print("nothing grew, nothing was wrong" if not soak.wrong else f"{len(soak.wrong)} things are wrong")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--interval", type=float, default=2.0, help="seconds from one sample to the next")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--output", type=Path, default=Path("soak-output"), help="folder for samples and picture")
    parser.add_argument("--picture", type=Path, help="in place of soak.png in that folder")
    arguments = parser.parse_args()
    # Writers that are given up say so, as they should.
    logging.getLogger("s3dataset").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "This DataLoader will create|This process .*multi-threaded")
    print(f"seed {arguments.seed}, {arguments.minutes:g} minutes", flush=True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        soak = Soak(arguments.minutes * 60, arguments.interval, arguments.seed, Path(folder))
        soak.run()
    samples, spells = soak.sampler.samples, soak.weather.spells
    with (arguments.output / "samples.jsonl").open("w") as file:
        file.writelines(json.dumps(dataclasses.asdict(sample)) + "\n" for sample in samples)
    if samples:
        tell(soak)
        from tests.soak.picture import draw  # here, because matplotlib's memory is not what is measured

        minutes = samples[-1].at_s / 60
        draw(
            samples,
            spells,
            f"{minutes:.0f} minutes of everything, {len(spells)} faults",
            f"{time.strftime('%Y-%m-%d')}, {machine()}. Lines: at rest, between two pieces of work; points: in their "
            "midst; bands: faults.",
            arguments.picture or arguments.output / "soak.png",
        )
    return 1 if soak.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
