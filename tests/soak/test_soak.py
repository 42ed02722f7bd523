"""A sample of `make soak`, and that its verdict sees what grows."""

import json
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.soak.measure import Sample
from tests.soak.verdict import LEAST_AT_REST, SERIES, problems

QUIET = Sample(
    at_s=0.0,
    doing="",
    threads={"python": 4, "s3dataset-0": 1},
    descriptors=60,
    sockets=20,
    tcp={"ESTABLISHED": 20},
    connections=20,
    rss_mb=600.0,
    anonymous_mb=200.0,
    heap_mb=90.0,
    python_objects=200_000,
    children=3,
    children_anonymous_mb=350.0,
    files=10,
    in_flight=0,
    memory_in_use_mb=0.0,
    memory_pooled_mb=50.0,
    server_rss_mb=200.0,
    server_descriptors=40,
)
MINUTES = 30


def run_of(change: Callable[[Sample, float, random.Random], Sample]) -> list[Sample]:
    """A run with a sample every four seconds; `change` is given each, how far it is (0 to 1), and a source of noise."""
    draw = random.Random(0)
    count = MINUTES * 15
    return [change(replace(QUIET, at_s=4.0 * i), i / count, draw) for i in range(count + 1)]


class TestTheVerdict:
    def test_noise_and_warming_up_are_no_growth(self) -> None:
        def noisy(sample: Sample, at: float, draw: random.Random) -> Sample:
            warm = 60 * min(at * 8, 1)
            return replace(
                sample,
                rss_mb=540 + warm + draw.gauss(0, 30),
                anonymous_mb=250 + warm + draw.gauss(0, 15),
                connections=draw.choice([0, 250, 500]),
                sockets=sample.sockets,
                files=draw.randrange(40),
                python_objects=200_000 + draw.randrange(800),
            )

        assert problems(run_of(noisy)) == []

    @pytest.mark.parametrize(
        ("title", "change"),
        [
            ("threads", lambda s, at: replace(s, threads={"python": 4 + int(10 * at)})),
            ("descriptors that are no sockets", lambda s, at: replace(s, descriptors=60 + int(20 * at))),
            ("sockets that the engine forgot", lambda s, at: replace(s, sockets=20 + int(30 * at))),
            ("child processes", lambda s, at: replace(s, children=4 if at > 0.9 else 3)),
            ("requests in flight", lambda s, at: replace(s, in_flight=int(2 * at + 0.6))),
            ("budget in use", lambda s, at: replace(s, memory_in_use_mb=8 * at)),
            ("Python objects", lambda s, at: replace(s, python_objects=200_000 + int(5000 * at))),
            ("heap in use", lambda s, at: replace(s, heap_mb=90 + 8 * at)),
            ("own memory", lambda s, at: replace(s, anonymous_mb=200 + 40 * at)),
            ("files", lambda s, at: replace(s, files=int(80 * at))),
        ],
    )
    def test_what_grows_is_named(self, title: str, change: Callable[[Sample, float], Sample]) -> None:
        found = problems(run_of(lambda sample, at, _: change(sample, at)))
        assert found
        assert all(text.startswith(title) for text in found), found

    def test_a_slow_climb_beneath_noise_is_named(self) -> None:
        found = problems(
            run_of(lambda sample, at, draw: replace(sample, anonymous_mb=200 + 45 * at + draw.gauss(0, 12)))
        )
        assert [text.partition(",")[0] for text in found] == ["own memory"]

    def test_too_little_says_nothing(self) -> None:
        assert "nothing can be said" in problems([QUIET] * 5)[0]


@pytest.mark.slow
def test_twenty_seconds_of_everything(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.soak", "--minutes", "0.35", "--seed", "7", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert len(samples) >= 2 * LEAST_AT_REST
    assert set(samples[0]) == set(Sample.__dataclass_fields__)
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")
    assert {series.title for series in SERIES} <= {line[:36].strip() for line in done.stdout.splitlines()}
