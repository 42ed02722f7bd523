"""The window before a consumer that takes samples one by one."""

import gc
from typing import Any

import pytest

from s3dataset._datasets._ahead import FetchAhead
from s3dataset._datasets._samples import SampleMaker, identity
from s3dataset._io import S3ReaderConstructor
from s3dataset.errors import ObjectNotFoundError


def contents(reader: Any) -> tuple[str, bytes]:
    return reader.key, reader.read()


@pytest.mark.parametrize("sizes", [True, False])
def test_every_object_comes_once_in_order_with_one_request(
    client: Any, ref: Any, rows: Any, counters: Any, sizes: bool
) -> None:
    maker = SampleMaker(ref, contents, None)
    samples = list(FetchAhead(maker, [rows(range(100), sizes=sizes), rows(range(100, 300), sizes=sizes)], counters))
    assert samples == [(f"{i:03}", client.objects["b", f"{i:03}"]) for i in range(300)]
    assert client.requested == [f"{i:03}" for i in range(300)]
    assert client.limits == {client.part_size}
    assert counters.samples == 300
    assert all(queue.closed for queue in client.queues)


def test_out_of_order_nothing_is_missing(client: Any, ref: Any, rows: Any, counters: Any) -> None:
    samples = list(FetchAhead(SampleMaker(ref, contents, None), [rows()], counters, ordered=False))
    assert samples != sorted(samples)
    assert sorted(samples) == [(f"{i:03}", client.objects["b", f"{i:03}"]) for i in range(300)]


@pytest.mark.parametrize("ordered", [True, False])
def test_the_window_is_bounded_by_bytes(client: Any, ref: Any, rows: Any, counters: Any, ordered: bool) -> None:
    client.memory_limit_bytes = 20_000
    assert len(list(FetchAhead(SampleMaker(ref, contents, None), [rows()], counters, ordered=ordered))) == 300
    assert client.most_waiting_bytes <= 10_000


def test_the_window_is_bounded_by_objects(client: Any, ref: Any, rows: Any, counters: Any) -> None:
    client.max_connections = 40
    assert len(list(FetchAhead(SampleMaker(ref, contents, None), [rows()], counters))) == 300
    assert 40 < client.most_waiting <= 80
    assert len(client.submissions) < 30  # by the dozen, not one by one


def test_an_object_larger_than_the_budget_is_fetched_alone(client: Any, ref: Any, rows: Any, counters: Any) -> None:
    client.memory_limit_bytes = 10
    assert len(list(FetchAhead(SampleMaker(ref, contents, None), [rows()], counters))) == 300
    assert client.most_waiting == 1


def test_of_large_objects_the_first_part_is_fetched(client: Any, ref: Any, rows: Any, counters: Any) -> None:
    client.part_size = 100
    taken = [reader.size for reader in FetchAhead(SampleMaker(ref, lambda r: r, None), [rows(range(5))], counters)]
    assert taken == [1000] * 5
    assert client.limits == {100}


def test_rows_are_asked_for_as_the_window_moves(ref: Any, rows: Any, counters: Any) -> None:
    asked = []

    def chunks() -> Any:
        for start in range(0, 300, 10):
            asked.append(start)
            yield rows(range(start, start + 10))

    stream = iter(FetchAhead(SampleMaker(ref, contents, None), chunks(), counters))
    next(stream)
    assert len(asked) <= 14  # 128 objects, two for each connection


def test_leaving_early_closes_the_queue(client: Any, ref: Any, rows: Any, counters: Any) -> None:
    stream = iter(FetchAhead(SampleMaker(ref, contents, None), [rows()], counters))
    next(stream)
    assert not client.queues[0].closed
    stream.close()  # type: ignore[attr-defined]
    assert client.queues[0].closed


def test_a_missing_object_raises_in_its_place(client: Any, ref: Any, rows: Any, counters: Any) -> None:
    listed = rows()
    del client.objects["b", "150"]
    seen = []
    with pytest.raises(ObjectNotFoundError, match="no 150"):
        for key, _ in FetchAhead(SampleMaker(ref, contents, None), [listed], counters):
            seen.append(key)
    assert seen == [f"{i:03}" for i in range(150)]
    assert client.queues[0].closed


def test_a_transform_that_raises_names_the_object_and_keeps_its_class(ref: Any, rows: Any, counters: Any) -> None:
    def broken(reader: Any) -> None:
        raise LookupError("bad label")

    with pytest.raises(LookupError, match="bad label") as caught:
        list(FetchAhead(SampleMaker(ref, broken, None), [rows()], counters))
    assert caught.value.__notes__ == ["This happened in the transform of s3://b/000"]


def test_readers_whose_keys_are_printed_fetch_nothing(client: Any, ref: Any, rows: Any, counters: Any) -> None:
    readers = iter(FetchAhead(SampleMaker(ref, identity, None), [rows()], counters))
    assert [reader.key for reader in readers] == [f"{i:03}" for i in range(300)]
    assert client.requested == []
    assert counters.samples == 300


def test_readers_are_fetched_ahead_once_one_was_read(client: Any, ref: Any, rows: Any, counters: Any) -> None:
    readers = iter(FetchAhead(SampleMaker(ref, identity, None), [rows()], counters))
    first = next(readers)
    assert client.requested == []
    assert first.read() == client.objects["b", "000"]
    for i, reader in enumerate(readers, 1):
        assert reader.read() == client.objects["b", f"{i:03}"]
    assert client.requested == [f"{i:03}" for i in range(300)]
    assert len(client.submissions) < 20


def test_fetching_ahead_stops_when_readers_are_dropped_unread(client: Any, ref: Any, rows: Any, counters: Any) -> None:
    readers = iter(FetchAhead(SampleMaker(ref, identity, None), [rows()], counters))
    next(readers).read()
    left = 0
    for reader in readers:
        left += 1
        del reader
        gc.collect(0)
    assert left == 299
    assert len(client.requested) <= 1 + 128  # the first by itself, and one window


def test_kept_readers_are_not_unread_ones(client: Any, ref: Any, rows: Any, counters: Any) -> None:
    """A loop that collects batches of readers and reads them later is no reason to stop."""
    readers = iter(FetchAhead(SampleMaker(ref, identity, None), [rows()], counters))
    next(readers).read()
    while batch := [reader for reader, _ in zip(readers, range(32), strict=False)]:
        for reader in batch:
            reader.read()
    assert len(client.submissions) < 20


def test_a_reader_for_sparse_access_is_not_fetched_ahead(client: Any, ref: Any, rows: Any, counters: Any) -> None:
    maker = SampleMaker(ref, lambda reader: reader.key, S3ReaderConstructor.range_based(100))
    assert len(list(FetchAhead(maker, [rows()], counters))) == 300
    assert client.requested == []
