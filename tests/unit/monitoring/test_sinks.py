"""Sinks: what they make of statistics, under which names."""

import sys
from typing import Any

import pytest

from s3dataset import S3Client, Stats
from s3dataset.monitoring import OpenTelemetrySink, PrometheusCollector, TensorBoardSink
from s3dataset.testing import LocalS3

EARLY = Stats(samples=100, bytes=10**6, requests=110, network_wait_s=3.0, loop_wait_s=1.0, ttfb_histogram=((0.02, 90),))
LATE = Stats(
    samples=400,
    bytes=7 * 10**6,
    requests=440,
    retries=20,
    throttles=10,
    hedges=3,
    network_wait_s=9.0,
    transform_s=3.0,
    consumer_wait_s=3.0,
    loop_wait_s=4.0,
    ttfb_histogram=((0.02, 100), (0.3, 340)),
)


class Source:
    """Says what it is told to say."""

    def __init__(self, said: Any = EARLY) -> None:
        self.said = said
        self.asked = 0

    def stats(self) -> Any:
        self.asked += 1
        return self.said


class Writer:
    """Takes scalars as torch's SummaryWriter does."""

    def __init__(self) -> None:
        self.points: dict[tuple[str, int], float] = {}

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        assert (tag, global_step) not in self.points
        self.points[tag, global_step] = scalar_value


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


# -- TensorBoard -----------------------------------------------------------------------------------------------------


def test_tensorboard_gets_rates_and_shares_between_two_points() -> None:
    source, writer, clock = Source(), Writer(), Clock()
    sink = TensorBoardSink(writer, source, every_s=10, clock=clock)
    clock.now, source.said = 12.0, LATE
    sink(7)
    assert writer.points == pytest.approx(
        {
            ("s3dataset/samples_per_s", 7): 25.0,
            ("s3dataset/megabytes_per_s", 7): 0.5,
            ("s3dataset/requests_per_s", 7): 27.5,
            ("s3dataset/retries_per_s", 7): 20 / 12,
            ("s3dataset/throttles_per_s", 7): 10 / 12,
            ("s3dataset/first_byte_ms", 7): 300.0,
            ("s3dataset/loop_wait_share", 7): 0.25,
            ("s3dataset/network_share", 7): 0.5,
            ("s3dataset/transform_share", 7): 0.25,
            ("s3dataset/consumer_share", 7): 0.25,
        }
    )


def test_between_two_points_nothing_is_read() -> None:
    source, writer, clock = Source(), Writer(), Clock()
    sink = TensorBoardSink(writer, source, every_s=10, clock=clock)
    asked = source.asked
    for step in range(1000):
        clock.now = step / 101
        sink(step)
    assert (source.asked, writer.points) == (asked, {})
    sink.write(1000)
    assert {step for _, step in writer.points} == {1000}
    sink.write(1000)  # no time has gone by: no point, and none is written twice


def test_the_end_writes_what_no_point_tells_of() -> None:
    """Also where the loop is left by an error; the caller's writer stays open."""
    writer, clock = Writer(), Clock()
    flushed: list[int] = []
    writer.flush = lambda: flushed.append(len(writer.points))  # type: ignore[attr-defined]
    writer.close = None  # type: ignore[attr-defined]
    sink = TensorBoardSink(writer, Source(), every_s=10, clock=clock)
    with pytest.raises(KeyboardInterrupt), sink:
        for step, clock.now in enumerate([5.0, 11.0, 12.0]):
            sink(step)
        raise KeyboardInterrupt
    points = {step for _, step in writer.points}
    assert points == {1, 2}
    assert flushed == [len(writer.points)]
    sink.close()  # nothing has happened since
    assert {step for _, step in writer.points} == points


def test_sources_have_curves_of_their_own() -> None:
    writer, clock = Writer(), Clock()
    sink = TensorBoardSink(writer, {"train": Source(), "validation": Source()}, prefix="data", clock=clock)
    clock.now = 10.0
    sink(1)
    assert ("data/train/samples_per_s", 1) in writer.points
    assert ("data/validation/samples_per_s", 1) in writer.points
    assert not any("share" in tag and "loop" not in tag for tag, _ in writer.points)  # of no time there are no shares


def test_a_folder_gets_a_writer(tmp_path: Any) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    source, clock = Source(), Clock()
    with TensorBoardSink(tmp_path, source, clock=clock) as sink:
        clock.now, source.said = 12.0, LATE
        sink(7)
    read = events.EventAccumulator(str(tmp_path))
    read.Reload()
    (point,) = read.Scalars("s3dataset/samples_per_s")
    assert (point.step, point.value) == (7, 25.0)


def test_an_interval_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="every_s must be positive"):
        TensorBoardSink(Writer(), Source(), every_s=0)


# -- Prometheus ------------------------------------------------------------------------------------------------------


def scraped(sources: Any) -> dict[str, float]:
    """By "name{labels}", what a scrape finds; the text is checked by prometheus_client's own parser."""
    prometheus = pytest.importorskip("prometheus_client")
    parser = pytest.importorskip("prometheus_client.parser")
    registry = prometheus.CollectorRegistry()
    registry.register(PrometheusCollector(sources))
    text = prometheus.generate_latest(registry).decode()
    found = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def test_prometheus_scrapes_counters_with_their_units() -> None:
    found = scraped({"train": Source(LATE)})
    assert found["s3dataset_samples_total{dataset=train}"] == 400
    assert found["s3dataset_bytes_total{dataset=train}"] == 7e6
    assert found["s3dataset_requests_total{dataset=train}"] == 440
    assert found["s3dataset_retries_total{dataset=train}"] == 20
    assert found["s3dataset_throttles_total{dataset=train}"] == 10
    assert found["s3dataset_hedges_total{dataset=train}"] == 3
    assert found["s3dataset_wait_seconds_total{dataset=train,on=network}"] == 9.0
    assert found["s3dataset_wait_seconds_total{dataset=train,on=transform}"] == 3.0
    assert found["s3dataset_loop_wait_seconds_total{dataset=train}"] == 4.0


def test_the_histogram_always_has_the_same_buckets() -> None:
    def buckets(stats: Stats) -> dict[str, float]:
        return {name: value for name, value in scraped(Source(stats)).items() if "first_byte" in name}

    assert buckets(EARLY).keys() == buckets(LATE).keys() == buckets(Stats()).keys()
    late = buckets(LATE)
    assert late["s3dataset_first_byte_seconds_bucket{dataset=,le=0.025}"] == 100
    assert late["s3dataset_first_byte_seconds_bucket{dataset=,le=0.25}"] == 100
    assert late["s3dataset_first_byte_seconds_bucket{dataset=,le=0.5}"] == 440
    assert late["s3dataset_first_byte_seconds_bucket{dataset=,le=+Inf}"] == 440


def test_a_second_collector_in_one_registry_is_refused() -> None:
    prometheus = pytest.importorskip("prometheus_client")
    registry = prometheus.CollectorRegistry()
    source = Source()
    registry.register(PrometheusCollector(source))
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(PrometheusCollector(Source()))


def test_a_client_gives_what_it_knows() -> None:
    with LocalS3("bucket") as server:
        server.put("bucket", "key", bytes(900))
        client = S3Client()
        assert scraped(client)["s3dataset_requests_total{dataset=}"] == 0
        list(client.get_many(["s3://bucket/key"] * 7))
        found = scraped(client)
    assert found["s3dataset_requests_total{dataset=}"] == 7
    assert found["s3dataset_bytes_total{dataset=}"] == 6300
    assert found["s3dataset_samples_total{dataset=}"] == 0
    assert found["s3dataset_first_byte_seconds_bucket{dataset=,le=+Inf}"] == 7


# -- OpenTelemetry ---------------------------------------------------------------------------------------------------


class Collected:
    """A meter of OpenTelemetry's SDK, and what a reader collects of it."""

    def __init__(self) -> None:
        metrics = pytest.importorskip("opentelemetry.sdk.metrics")
        export = pytest.importorskip("opentelemetry.sdk.metrics.export")
        self.reader = export.InMemoryMetricReader()
        self.provider = metrics.MeterProvider([self.reader])
        self.meter = self.provider.get_meter("test")

    def collect(self) -> dict[str, Any]:
        data = self.reader.get_metrics_data()
        found = {}
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    points = {tuple(sorted(point.attributes.items())): point.value for point in metric.data.data_points}
                    found[metric.name] = (metric.unit, points)
        return found


@pytest.fixture
def collected() -> Any:
    made = Collected()
    yield made
    made.provider.shutdown()


def test_opentelemetry_observes_the_totals(collected: Any) -> None:
    source, clock = Source(), Clock()
    sink = OpenTelemetrySink(source, collected.meter, attributes={"rank": 3}, clock=clock)
    assert collected.collect()["s3dataset.samples"] == ("{sample}", {(("rank", 3),): 100})
    clock.now, source.said = 60.0, LATE
    found = collected.collect()
    assert found["s3dataset.samples"] == ("{sample}", {(("rank", 3),): 400})
    assert found["s3dataset.io"] == ("By", {(("rank", 3),): 7 * 10**6})
    assert found["s3dataset.loop.wait.time"] == ("s", {(("rank", 3),): 4.0})
    assert found["s3dataset.first_byte.time"] == ("s", {(("rank", 3),): 0.3})
    unit, waits = found["s3dataset.wait.time"]
    assert unit == "s"
    assert waits[("rank", 3), ("s3dataset.wait.on", "network")] == 9.0
    sink.close()
    assert not collected.collect()


def test_a_collection_reads_each_source_once(collected: Any) -> None:
    source, clock = Source(), Clock()
    OpenTelemetrySink({"train": source}, collected.meter, clock=clock)
    before = source.asked
    found = collected.collect()
    assert source.asked == before + 1
    assert found["s3dataset.requests"][1] == {(("s3dataset.dataset", "train"),): 110}


# -- Errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "module", "extra"),
    [
        (lambda: PrometheusCollector(Source()), "prometheus_client", "prometheus"),
        (lambda: OpenTelemetrySink(Source()), "opentelemetry", "otel"),
        (lambda: TensorBoardSink("runs", Source()), "tensorboard", "tensorboard"),
    ],
)
def test_what_is_not_installed_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, make: Any, module: str, extra: str
) -> None:
    for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=rf"needs {module}.*pip install 's3dataset\[{extra}\]'"):
        make()


@pytest.mark.parametrize(
    "make", [PrometheusCollector, OpenTelemetrySink, lambda source: TensorBoardSink(Writer(), source)]
)
def test_what_keeps_no_statistics_is_refused(make: Any) -> None:
    pytest.importorskip("prometheus_client")
    pytest.importorskip("opentelemetry")
    with pytest.raises(TypeError, match=r"which have stats\(\), and not \[1, 2\]"):
        make([1, 2])
    with pytest.raises(TypeError, match="and not train="):
        make({"train": [1, 2]})
