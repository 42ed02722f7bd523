"""The picture of a measurement."""

import pytest

from s3dataset._bench import Latencies, Result, Step

figures = pytest.importorskip("matplotlib.figure")


@pytest.mark.parametrize(("p50", "p99"), [(0.027, 0.041), (0.0004, 0.9), (0.0021, 0.0022)])
def test_the_axis_of_latencies_has_figures(p50, p99):
    from s3dataset._bench.figure import latency

    times = Latencies(p50, p50, p99, 100)
    curve = [Step(at_once, 1000, 1.0, 100, 100_000, times, 0.1, 0, 0) for at_once in (1, 2, 4)]
    axes = figures.Figure().subplots()
    latency(axes, Result("s3://b/", curve=curve))
    axes.figure.draw_without_rendering()
    lowest, highest = axes.get_ylim()
    assert lowest <= 1e3 * p50
    assert highest >= 1e3 * p99
    ticks = [*axes.yaxis.get_major_ticks(), *axes.yaxis.get_minor_ticks()]
    said = [tick.get_loc() for tick in ticks if tick.label1.get_text()]
    assert sum(0.99 * lowest <= place <= 1.01 * highest for place in said) >= 2
