"""A small sample of `make scale`: many processes under one limit, shares of many ranks, the largest objects."""

from typing import get_args

import pytest
from benchmarks.scale import shares, throttling, uploads
from benchmarks.scale.shares import Epoch, Kind, Tail
from benchmarks.scale.throttling import Setting

from s3dataset._io._part_sizes import MAX_PARTS, PartSizes

MIB, GIB, TB = uploads.MIB, uploads.GIB, uploads.TB
LARGEST = MAX_PARTS * 5 * GIB
MOST_UNKNOWN = sum(PartSizes(8 * MIB).of(number) for number in range(1, MAX_PARTS + 1))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_limit_and_a_slowdown_lose_no_request() -> None:
    setting = Setting(
        processes=6, connections=8, limit=300.0, warm_up_s=1.5, before_s=2.0, slow_down_s=1.0, after_s=1.5
    )
    outcome = throttling.run(setting)
    assert outcome.errors == []
    assert sum(outcome.done) > 0
    assert outcome.refused_in_phase > 0
    assert outcome.rate <= 2 * setting.limit  # the service saves up what was not used, up to a second's worth


@pytest.mark.parametrize("kind", get_args(Kind))
@pytest.mark.parametrize("tail", get_args(Tail))
@pytest.mark.parametrize("samples", [0, 1023, 20_001])
def test_shares_of_all_workers_of_all_ranks(kind: Kind, tail: Tail, samples: int) -> None:
    shares.cover(Epoch(kind=kind, samples=samples, tail=tail, ranks=256, batch_size=4)).check()


@pytest.mark.parametrize(
    ("size", "known", "part_size"),
    [
        (5 * TB, False, 8 * MIB),
        (MOST_UNKNOWN, False, 8 * MIB),
        (50 * TB, True, 8 * MIB),
        (LARGEST, True, 8 * MIB),
    ],
)
def test_the_largest_objects_fit(size: int, known: bool, part_size: int) -> None:
    uploads.plan(size, known=known, part_size=part_size, piece_bytes=GIB).check()


@pytest.mark.parametrize(("size", "part_size"), [(MOST_UNKNOWN + 1, 8 * MIB), (LARGEST + 1, 5 * GIB)])
def test_a_byte_more_than_fits_of_unknown_size_is_aborted(size: int, part_size: int) -> None:
    planned = uploads.plan(size, known=False, part_size=part_size, piece_bytes=GIB)
    assert (planned.completed, planned.aborted) == (False, True)
    assert "more than 10,000 parts: give the writer the object's size beforehand" in planned.error


def test_a_known_size_that_does_not_fit_is_refused_beforehand() -> None:
    planned = uploads.plan(LARGEST + 1, known=True)
    assert (planned.completed, planned.parts) == (False, [])
    assert "does not fit into 10,000 parts" in planned.error
