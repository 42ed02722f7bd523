"""What the figures of a measurement say."""

from dataclasses import replace

import pytest

from s3dataset._bench import Latencies, Options, Plan, Result, Step, WorkerStep, advise
from s3dataset._bench._advice import bottleneck_of
from s3dataset._bench._objects import Load, Stored
from s3dataset._bench._plan import objects_of

MIB = 1 << 20
TIMES = Latencies(0.01, 0.02, 0.03, 100)


def step(concurrency, mb_per_s, request_bytes=8 * MIB, **others):
    nbytes = int(mb_per_s * 1e6)
    facts = {"cpu_seconds": 0.1, "throttled": 0, "retries": 0} | others
    return Step(concurrency, request_bytes, 1.0, max(1, nbytes // request_bytes), nbytes, TIMES, **facts)


def result(curve, sizes=(), workers=(), **others):
    facts = {"cores": 8, "engine_threads": 1, "objects": 1000, "mean_bytes": 100 * MIB} | others
    return Result("s3://b/", curve=list(curve), sizes=list(sizes), workers=list(workers), **facts)


def test_flat_curves_of_large_requests_are_the_network():
    flat = result([step(1, 90), step(2, 180), step(4, 1200), step(8, 1230), step(16, 1220)])
    assert bottleneck_of(flat) == "network"
    _, said = advise(flat, "s3://b/", 8 * MIB, 256)
    assert said[0].startswith("The most that came is 1.2 GB/s")
    assert "4 at once give 98 % of that" in said[1]


def test_a_curve_that_still_grows_is_latency():
    assert bottleneck_of(result([step(1, 90), step(2, 180), step(4, 360)])) == "latency"


def test_a_busy_engine_is_the_cpu_whatever_the_curve():
    assert bottleneck_of(result([step(1, 90), step(2, 1800, cpu_seconds=0.97)])) == "CPU"
    assert bottleneck_of(result([step(1, 90), step(2, 1800, cpu_seconds=0.97)], engine_threads=4)) == "latency"


def test_throttling_is_the_request_rate_and_says_what_helps():
    throttled = result([step(1, 90), step(2, 100, throttled=5)])
    limit, said = advise(throttled, "s3://b/", 8 * MIB, 256)
    assert limit == "request rate"
    assert any("asked for fewer requests 5 times" in sentence for sentence in said)


def test_small_objects_beside_fast_large_ranges_are_to_be_packed():
    small = [step(1, 1, 1000), step(64, 20, 1000), step(128, 20, 1000)]
    packed = result(small, [step(64, 20, 16384), step(64, 2000, MIB), step(64, 2000, 8 * MIB)], mean_bytes=1000)
    limit, said = advise(packed, "s3://b/p/", 8 * MIB, 256)
    assert limit == "request rate"
    assert any("Pack them: large ranges come at 2.0 GB/s, 100 times" in sentence for sentence in said)
    unmeasured = advise(result(small, mean_bytes=1000), "s3://b/p/", 8 * MIB, 256)[1]
    assert any("which --write measures: s3dataset pack s3://b/p/" in sentence for sentence in unmeasured)


def test_more_large_ranges_than_the_default_need_a_hint():
    _, said = advise(result([step(32, 1000), step(64, 2000), step(128, 2000)]), "s3://b/", 8 * MIB, 256)
    assert "throughput_target_gbps=20" in said[1]


def test_all_connections_in_use_say_how_to_measure_more():
    small = [step(concurrency, concurrency, 1000) for concurrency in (128, 256, 512)]
    _, said = advise(result(small[:2]), "s3://b/", 8 * MIB, 256)
    assert "--concurrency 256,512 measures" in said[1]
    _, said = advise(result(small), "s3://b/", 8 * MIB, 256)
    assert "S3ClientConfig(max_connections=512) gives it as many" in said[1]


def test_part_size_is_kept_when_it_is_good_and_named_when_another_is_better():
    curve = [step(8, 1000), step(16, 1000)]
    kept = advise(result(curve, [step(8, 500, MIB), step(8, 990), step(8, 1000, 32 * MIB)]), "s3://b/", 8 * MIB, 256)
    assert any("Ranges of 8 MiB, the part_size in use" in sentence for sentence in kept[1])
    other = advise(result(curve, [step(8, 500), step(8, 1000, 16 * MIB)]), "s3://b/", 8 * MIB, 256)
    assert any(f"2.0 times as much as those of 8 MiB: S3ClientConfig(part_size={16 * MIB})" in s for s in other[1])


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ((1000, 900, 950), "num_workers=0 gives 1,000 samples/s; reading needs no process"),
        ((500, 1000, 1010), "num_workers=1 gives 1,000 samples/s; more bring no more"),
        ((100, 200, 400), "num_workers=2 gives 400 samples/s; more may give more"),
    ],
)
def test_workers(rates, expected):
    steps = [WorkerStep(workers, 1.0, rate, 0, 0.1, 0.1) for workers, rate in enumerate(rates)]
    assert any(sentence.startswith(expected) for sentence in advise(result([], workers=steps), "s3://b/", MIB, 256)[1])


def test_workers_that_are_no_use_for_a_transform_or_were_not_compared():
    steps = [WorkerStep(workers, 1.0, 1000 - workers, 0, 0.1, 0.1) for workers in range(3)]
    (said,) = advise(result([], workers=steps, transformed=True), "s3://b/", MIB, 256)[1]
    assert said == "num_workers=0 gives 1,000 samples/s; for this transform workers bring no more."
    (said,) = advise(result([], workers=steps[:1]), "s3://b/", MIB, 256)[1]
    assert said.endswith("no other number was tried.")


def test_far_buckets_are_told():
    far = replace(result([step(1, 1), step(2, 2)]), first_byte=Latencies(0.09, 0.1, 0.2, 9))
    assert any("90 ms before its first byte" in sentence for sentence in advise(far, "s3://b/", MIB, 256)[1])


def test_nothing_measured_says_nothing():
    assert advise(Result("s3://b/"), "s3://b/", MIB, 256) == ("unknown", [])


# -- The plan ----------------------------------------------------------------------------------------------------------


def test_the_plan_names_bounds_and_costs():
    plan = Plan.of(Options())
    assert (plan.gets, plan.read_bytes, plan.write_bytes) == (200_000, 4 * 10**9, 0)
    assert plan.dollars == pytest.approx(200_000 * 0.4e-6 + 20 * 5e-6)
    writing = Plan.of(Options(sizes=(16 << 10, 64 * MIB), max_bytes=10**9))
    assert 0 < writing.write_bytes <= 10**9
    assert writing.puts == 128 + 10 * objects_of(64 * MIB, Options(sizes=(16 << 10, 64 * MIB), max_bytes=10**9))


def test_requests_are_ranges_within_their_objects():
    objects = [Stored("b", f"{size}", size, None) for size in (1, 100, 4096, 10_000)]
    load = Load(objects, 4096)
    for _ in range(500):
        _, _, start, end, size, _ = load.next()
        assert 0 <= start < end <= size
        assert end - start <= 4096
    assert load.mean_bytes == (1 + 100 + 4096 + 4096) // 4
    exact = Load(objects, 4096, exact=True)
    assert {exact.next()[4] for _ in range(100)} == {4096, 10_000}
    assert not Load(objects, 20_000, exact=True)
