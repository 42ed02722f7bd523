"""What a training run shows of its data: warnings of real loops, metrics over workers, ranges in a trace."""

import inspect
import itertools
import time
import warnings
from typing import Any

import pytest
import torch
from tests.process.shard_world import number, put_shards

import s3dataset
from s3dataset._datasets import _loop_watch
from s3dataset.monitoring import DataWaitWarning, PrometheusCollector, TensorBoardSink
from s3dataset.testing import LocalS3

SAMPLES = 120
LARGE = 12 << 20


@pytest.fixture(scope="module")
def server() -> Any:
    with LocalS3("bucket") as running:
        for n in range(SAMPLES):
            running.put("bucket", f"objects/{n:04}", bytes(1000))
        running.put("bucket", "large/object", bytes(LARGE))
        put_shards(running, "shards/", "tar", [30, 30])
        yield running


@pytest.fixture(autouse=True)
def quick_world(server: Any) -> Any:
    yield
    server.set_traffic(latency_s=0.0)


def size(reader: Any) -> int:
    return len(reader.read())


def slow_size(reader: Any) -> int:
    time.sleep(0.03)
    return size(reader)


def slow_length(length: int) -> bool:
    time.sleep(0.03)
    return length > 0


def text_of(loader: Any, monkeypatch: pytest.MonkeyPatch, *, window_s: float = 0.5) -> str:
    """What a loop that does nothing but take batches is warned of."""
    monkeypatch.setattr(_loop_watch, "_WINDOW_S", window_s)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in itertools.chain(loader, loader):
            # From Python 3.12 on there is another one: that a process with threads is forked.
            if told := [warning for warning in caught if warning.category is DataWaitWarning]:
                break
    assert len(told) == 1
    assert told[0].filename == __file__
    return str(told[0].message)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_slow_network_is_named(server: Any, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    server.set_traffic(latency_s=0.15)
    dataset = s3dataset.S3MapDataset.from_prefix("s3://bucket/objects/", transform=size)
    loader = s3dataset.DataLoader(dataset, batch_size=4, num_workers=workers, ahead=1)
    text = text_of(loader, monkeypatch)
    assert "The bottleneck is the network" in text
    assert "ahead=" in text
    assert "(now 1)" in text


class OwnSamples(s3dataset.S3MapDataset[int]):
    """Makes its samples by itself."""

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(index)


@pytest.mark.parametrize(
    ("kind", "arguments", "said"),
    [
        (s3dataset.S3MapDataset, {"batch_size": None}, "batch_size= (now None)"),
        (s3dataset.S3MapDataset, {"batch_size": 4, "sampler": range(SAMPLES), "ahead": 0}, "(now 0)"),
        (
            s3dataset.S3MapDataset,
            {"batch_sampler": s3dataset.BatchSampler(SAMPLES, 4)},
            "BatchSampler(num_workers=0) (now None)",
        ),
        (OwnSamples, {"batch_size": 4}, "transform= instead of"),
    ],
)
def test_what_keeps_batches_from_being_fetched_ahead_is_named(
    server: Any, monkeypatch: pytest.MonkeyPatch, kind: Any, arguments: Any, said: str
) -> None:
    server.set_traffic(latency_s=0.05)
    loader = s3dataset.DataLoader(kind.from_prefix("s3://bucket/objects/", transform=size), **arguments)
    text = text_of(loader, monkeypatch)
    assert "The bottleneck is the network" in text
    assert said in text


@pytest.mark.skipif(
    "in_order" not in inspect.signature(torch.utils.data.DataLoader.__init__).parameters, reason="came with PyTorch 2.6"
)
def test_batches_out_of_order_are_not_fetched_ahead(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server.set_traffic(latency_s=0.05)
    dataset = s3dataset.S3MapDataset.from_prefix("s3://bucket/objects/", transform=size)
    loader = s3dataset.DataLoader(dataset, batch_size=4, num_workers=1, in_order=False)
    assert "in_order=True (now False)" in text_of(loader, monkeypatch)


@pytest.mark.parametrize("kind", [s3dataset.S3MapDataset, s3dataset.S3IterableDataset])
def test_of_a_mixture_the_slow_transform_is_named(monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    quick, slow = (kind.from_prefix("s3://bucket/objects/", transform=each) for each in (size, slow_size))
    loader = s3dataset.DataLoader(s3dataset.MixedDataset([quick, slow], [0.5, 0.5]), batch_size=4, num_workers=1)
    assert "The bottleneck is the transform" in text_of(loader, monkeypatch)


@pytest.mark.parametrize("kind", [s3dataset.S3MapDataset, s3dataset.S3IterableDataset])
def test_a_mixture_is_never_told_to_look_ahead(server: Any, monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    """Its parts are streams, map datasets too."""
    server.set_traffic(latency_s=0.1)
    config = s3dataset.S3ClientConfig(max_connections=4)
    parts = [kind.from_prefix("s3://bucket/objects/", transform=size, s3client_config=config) for _ in range(2)]
    loader = s3dataset.DataLoader(s3dataset.MixedDataset(parts, [0.5, 0.5]), batch_size=4)
    text = text_of(loader, monkeypatch)
    assert "The bottleneck is the network" in text
    assert "max_connections=8" in text


@pytest.mark.parametrize("kind", [s3dataset.S3MapDataset, s3dataset.S3IterableDataset])
def test_the_sources_of_a_mixture_share_the_time_of_its_reader(kind: Any) -> None:
    sources = [kind.from_prefix("s3://bucket/objects/", transform=size) for _ in range(3)]
    mixed = s3dataset.MixedDataset(sources, [1.0, 1.0, 1.0])
    began = time.perf_counter()
    count = sum(1 for _ in itertools.islice(mixed, 90) if not time.sleep(0.002))
    elapsed_s = time.perf_counter() - began
    all_stats = [source.stats() for source in sources]
    consumer_s = sum(stats.consumer_wait_s for stats in all_stats)
    assert 0.002 * (count - 1) <= consumer_s
    assert consumer_s + sum(stats.network_wait_s + stats.transform_s for stats in all_stats) <= elapsed_s


def each_by_itself(dataset: s3dataset.S3MapDataset[int]) -> list[int]:
    return [dataset[i] for i in range(5)]


def on_demand(dataset: s3dataset.S3MapDataset[int]) -> list[int]:
    return dataset[:5]  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("read", [each_by_itself, on_demand])
def test_what_a_transform_reads_on_demand_is_the_networks_time(server: Any, read: Any) -> None:
    reader = s3dataset.S3ReaderConstructor.range_based()
    dataset = s3dataset.S3MapDataset.from_prefix("s3://bucket/objects/", transform=size, reader_constructor=reader)
    len(dataset)
    server.set_traffic(latency_s=0.05)
    assert read(dataset) == [1000] * 5
    stats = dataset.stats()
    assert stats.bottleneck == "network"
    assert stats.network_wait_s >= 5 * 0.05
    assert stats.bytes == 5000


@pytest.mark.parametrize("kind", [s3dataset.S3MapDataset, s3dataset.S3IterableDataset])
def test_all_of_a_large_object_counts(kind: Any) -> None:
    """Its first part is fetched ahead, and the rest by the reader."""
    config = s3dataset.S3ClientConfig(part_size=5 << 20)
    dataset = kind.from_prefix("s3://bucket/large/", transform=size, s3client_config=config)
    assert list(dataset) == [LARGE]
    assert dataset.stats().bytes == LARGE


def test_slow_stages_are_spread_over_workers_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_loop_watch, "cores", lambda: 8)
    dataset = s3dataset.S3IterableDataset.from_prefix("s3://bucket/objects/", transform=size)
    loader = s3dataset.DataLoader(dataset.filter(slow_length), batch_size=4)
    assert "num_workers=2 (now 0)" in text_of(loader, monkeypatch)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", [s3dataset.S3MapDataset, s3dataset.S3IterableDataset])
def test_a_slow_transform_is_named(monkeypatch: pytest.MonkeyPatch, workers: int, kind: Any) -> None:
    dataset = kind.from_prefix("s3://bucket/objects/", transform=slow_size)
    text = text_of(s3dataset.DataLoader(dataset, batch_size=4, num_workers=workers), monkeypatch)
    assert "The bottleneck is the transform" in text


def test_a_slow_collate_fn_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def collate(samples: Any) -> int:
        time.sleep(0.1)
        return len(samples)

    dataset = s3dataset.S3MapDataset.from_prefix("s3://bucket/objects/", transform=size)
    loader = s3dataset.DataLoader(dataset, batch_size=4, collate_fn=collate)
    assert "collate_fn=" in text_of(loader, monkeypatch)


def test_a_sampler_of_ones_own_is_watched_too(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = s3dataset.S3MapDataset.from_prefix("s3://bucket/objects/", transform=slow_size)
    loader = s3dataset.DataLoader(dataset, batch_size=4, sampler=range(SAMPLES))
    assert "transform" in text_of(loader, monkeypatch)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_slow_training_step_is_not_the_datas_fault(monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """Each step takes a minute of a clock that is told so, so a busy machine makes no difference."""
    trained_s = 0.0
    monkeypatch.setattr(_loop_watch, "clock", lambda: time.perf_counter() + trained_s)
    dataset = s3dataset.S3MapDataset.from_prefix("s3://bucket/objects/", transform=size)
    loader = s3dataset.DataLoader(dataset, batch_size=4, num_workers=workers)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWaitWarning)
        for _ in loader:
            trained_s += 60.0
    assert loader.stats().samples == SAMPLES


def test_turned_off_it_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_loop_watch, "_WINDOW_S", 0.1)
    dataset = s3dataset.S3MapDataset.from_prefix("s3://bucket/objects/", transform=slow_size)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWaitWarning)
        for _ in s3dataset.DataLoader(dataset, batch_size=4, warn_waits=False):
            pass


def test_the_iterator_does_not_keep_its_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    import gc
    import weakref

    loader = s3dataset.DataLoader(s3dataset.S3MapDataset.from_prefix("s3://bucket/objects/", transform=size))
    iterator = iter(loader)
    gone = weakref.ref(loader)
    gc.disable()
    try:
        del loader
        assert gone() is None
        assert sum(1 for _ in iterator) == SAMPLES
    finally:
        gc.enable()


# -- Metrics ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_metrics_are_those_of_all_processes(workers: int) -> None:
    prometheus = pytest.importorskip("prometheus_client")

    class Writer:
        points: dict[str, float] = {}  # noqa: RUF012

        def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
            self.points[tag] = scalar_value

    dataset = s3dataset.S3MapDataset.from_prefix("s3://bucket/objects/", transform=size)
    loader = s3dataset.DataLoader(dataset, batch_size=4, num_workers=workers)
    registry = prometheus.CollectorRegistry()
    registry.register(PrometheusCollector({"train": loader}))
    sink = TensorBoardSink(Writer(), loader)
    for step, _ in enumerate(loader):
        sink(step)
    sink.write(SAMPLES // 4)

    def value(name: str, **labels: str) -> Any:
        return registry.get_sample_value(name, {"dataset": "train", **labels})

    assert value("s3dataset_samples_total") == SAMPLES
    assert value("s3dataset_bytes_total") == SAMPLES * 1000
    assert value("s3dataset_requests_total") >= SAMPLES
    assert value("s3dataset_loop_wait_seconds_total") == pytest.approx(loader.stats().loop_wait_s)
    assert loader.stats().loop_wait_s > 0
    assert Writer.points["s3dataset/samples_per_s"] > 0
    assert 0 < Writer.points["s3dataset/loop_wait_share"] <= 1


def test_a_loader_over_stages_or_a_mixture_has_statistics() -> None:
    def stream(seed: int) -> Any:
        return s3dataset.S3IterableDataset.from_prefix(
            "s3://bucket/shards/", format="tar", transform=number, shuffle=s3dataset.Shuffle(seed=seed)
        )

    staged = s3dataset.DataLoader(stream(0).filter(lambda n: n % 2 == 0), batch_size=4)
    assert sum(len(batch) for batch in staged) == 30
    assert staged.stats().samples == 60
    manifest = s3dataset.Manifest.from_prefix("s3://bucket/objects/")
    parts = [s3dataset.S3IterableDataset.from_manifest(manifest, transform=size, shuffle=True) for _ in range(2)]
    mixed = s3dataset.DataLoader(s3dataset.MixedDataset(parts, [0.5, 0.5], stop="first"), batch_size=4)
    samples = sum(len(batch) for batch in mixed)
    stats = mixed.stats()
    assert stats.samples >= samples - 2  # what each part gave last counts when it is asked for the next
    assert stats.samples == sum(part.stats().samples for part in parts)
    assert stats.bytes == sum(part.stats().bytes for part in parts)
    assert stats.requests < sum(part.stats().requests for part in parts)  # of one client, which both count


def test_of_foreign_data_there_are_none() -> None:
    loader: Any = s3dataset.DataLoader([1, 2, 3], batch_size=2)  # type: ignore[arg-type]
    assert len(list(loader)) == 2
    with pytest.raises(TypeError, match="this is a list"):
        loader.stats()
    with pytest.raises(TypeError, match="this is a list"):
        TensorBoardSink("runs", loader)


# -- Traces ----------------------------------------------------------------------------------------------------------


def ranges(loader: Any) -> dict[str, int]:
    """How often each of our ranges is in a trace of a loop."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in loader:
            pass
    return {event.key: event.count for event in profile.key_averages() if event.key.startswith("s3dataset: ")}


def loaders() -> Any:
    objects, shards = "s3://bucket/objects/", "s3://bucket/shards/"
    indexed = s3dataset.Manifest.from_prefix(shards).index("tar")
    yield s3dataset.S3MapDataset.from_prefix(objects, transform=size), SAMPLES
    yield s3dataset.S3IterableDataset.from_prefix(objects, transform=size), SAMPLES
    yield s3dataset.S3IterableDataset.from_prefix(objects, transform=size, ordered=False), SAMPLES
    yield s3dataset.S3MapDataset.from_manifest(indexed, transform=number), 60
    yield s3dataset.S3IterableDataset.from_manifest(indexed, transform=number), 60
    yield s3dataset.S3IterableDataset.from_prefix(shards, format="tar", transform=number), 60


@pytest.mark.parametrize("which", range(6))
def test_a_trace_shows_waiting_and_transforms(which: int) -> None:
    dataset, samples = list(loaders())[which]
    found = ranges(s3dataset.DataLoader(dataset, batch_size=10))
    assert found["s3dataset: transform"] == samples
    assert found["s3dataset: make batch"] == samples // 10 + 1  # the last one finds the end
    assert found["s3dataset: wait for network"] > 0


def test_with_workers_a_trace_shows_waiting_for_them() -> None:
    dataset = s3dataset.S3MapDataset.from_prefix("s3://bucket/objects/", transform=size)
    assert ranges(s3dataset.DataLoader(dataset, batch_size=10, num_workers=1)) == {"s3dataset: wait for workers": 13}


def test_without_a_profiler_there_are_no_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.autograd.profiler, "record_function", None)
    dataset = s3dataset.S3IterableDataset.from_prefix("s3://bucket/objects/", transform=size)
    assert sum(1 for _ in dataset) == SAMPLES
