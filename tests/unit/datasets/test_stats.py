"""Stats: differences, medians, advice."""

import pytest

from s3dataset import Stats


def test_a_difference_is_what_happened_between() -> None:
    early = Stats(samples=10, bytes=100, requests=12, network_wait_s=1.0, ttfb_histogram=((0.01, 3), (0.1, 1)))
    late = Stats(samples=30, bytes=500, requests=40, network_wait_s=1.5, ttfb_histogram=((0.01, 4), (0.1, 21)))
    between = late - early
    assert (between.samples, between.bytes, between.requests, between.network_wait_s) == (20, 400, 28, 0.5)
    assert late.ttfb_s == 0.1
    assert early.ttfb_s == 0.01
    assert between.ttfb_s == 0.1
    assert between.ttfb_histogram == ((0.01, 1), (0.1, 20))


@pytest.mark.parametrize("name", ["network", "transform", "consumer"])
def test_the_bottleneck_is_what_samples_waited_for_most(name: str) -> None:
    waits = {"network_wait_s": 1.0, "transform_s": 1.0, "consumer_wait_s": 1.0}
    waits[next(wait for wait in waits if wait.startswith(name))] = 2.0
    stats = Stats(samples=1, **waits)  # type: ignore[arg-type]
    assert stats.bottleneck == name
    assert stats.advice
    assert name in str(stats)


def test_before_the_first_sample_there_is_none() -> None:
    assert Stats().bottleneck == "none"
    assert Stats().ttfb_s == 0.0
