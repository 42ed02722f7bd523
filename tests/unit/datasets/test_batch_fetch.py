"""Whole batches, and those that come after them."""

from collections.abc import Sequence
from typing import Any

import pytest

from s3dataset._datasets._batch_fetch import BatchFetcher
from s3dataset._datasets._look_ahead import Batch, look_ahead
from s3dataset._datasets._samples import SampleMaker
from s3dataset._datasets._work import ObjectWork
from s3dataset.errors import ObjectNotFoundError


def key(reader: Any) -> int:
    assert reader.read()
    return int(reader.key)


def fetcher_of(maker: SampleMaker[Any], rows: Any, counters: Any) -> BatchFetcher[Any]:
    return BatchFetcher(maker.client, lambda indices: ObjectWork(maker, maker.client, rows(indices)), counters)


@pytest.fixture
def fetcher(ref: Any, rows: Any, counters: Any) -> BatchFetcher[int]:
    return fetcher_of(SampleMaker(ref, key, None), rows, counters)


def test_a_batch_goes_out_in_one_submission_and_comes_in_order(client: Any, fetcher: Any, counters: Any) -> None:
    assert fetcher.fetch([5, 3, 3, 299]) == [5, 3, 3, 299]
    assert client.submissions == [["005", "003", "003", "299"]]
    assert fetcher.fetch([]) == []
    assert counters.samples == 4


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_batches_named_ahead_are_fetched_once(
    client: Any, ref: Any, rows: Any, counters: Any, num_workers: int
) -> None:
    batches = [list(range(i, i + 10)) for i in range(0, 300, 10)]
    fetchers = [fetcher_of(SampleMaker(ref, key, None), rows, counters) for _ in range(max(1, num_workers))]
    for k, batch in enumerate(look_ahead(batches, num_workers)):
        assert fetchers[k % len(fetchers)].fetch(batch) == batches[k]
    assert sorted(client.requested) == [f"{i:03}" for i in range(300)]
    assert client.most_waiting >= 50


def test_what_was_not_named_is_fetched_all_the_same_and_the_rest_cancelled(client: Any, fetcher: Any) -> None:
    assert fetcher.fetch(Batch([0, 1], [[2, 3], [4, 5]])) == [0, 1]
    assert fetcher.fetch([6, 7]) == [6, 7]
    assert client.queues[0].cancelled == [2, 3, 4, 5]
    assert client.requested == ["000", "001", "002", "003", "004", "005", "006", "007"]
    assert client.queues[0].results == {}


def test_after_two_surprises_nothing_is_fetched_ahead(client: Any, fetcher: Any) -> None:
    for i in range(0, 200, 10):
        assert fetcher.fetch(Batch([i, i + 1], [[i + 2], [i + 3]])) == [i, i + 1]
    assert len(client.requested) == 40 + 2 * 2


def test_an_iteration_that_is_left_early_is_no_surprise(client: Any, fetcher: Any) -> None:
    batches = [[i, i + 1] for i in range(0, 40, 2)]
    for _ in range(10):
        assert fetcher.fetch(next(look_ahead(batches, 0, 2))) == [0, 1]
    assert len(client.requested) == 10 * 6
    assert client.queues[0].results.keys() == {56, 57, 58, 59}


def test_bytes_ahead_are_bounded(client: Any, ref: Any, rows: Any, counters: Any) -> None:
    client.memory_limit_bytes = 100_000
    fetcher = fetcher_of(SampleMaker(ref, key, None), rows, counters)
    batches = [list(range(i, i + 10)) for i in range(0, 300, 10)]
    for batch in look_ahead(batches, 0, 20):
        assert fetcher.fetch(batch) == list(batch)
    assert client.most_waiting_bytes <= 60_000
    assert len(client.requested) == 300


def test_a_failure_is_raised_and_the_next_batch_works(client: Any, ref: Any, counters: Any) -> None:
    del client.objects["b", "002"]
    fetcher = fetcher_of(
        SampleMaker(ref, key, None), lambda indices: [("b", f"{i:03}", None, None) for i in indices], counters
    )
    with pytest.raises(ObjectNotFoundError, match="no 002"):
        fetcher.fetch(Batch([1, 2, 3], [[4]]))
    assert client.queues[0].closed
    assert fetcher.fetch([1, 4]) == [1, 4]


def test_batches_pickle_with_what_they_name() -> None:
    import pickle

    batch = pickle.loads(pickle.dumps(Batch([1, 2], [(3,), [4]])))
    assert batch == [1, 2]
    assert batch.ahead == [[3], [4]]
    assert isinstance(batch, list)


def test_small_batches_are_looked_at_further_ahead() -> None:
    def first(batch_size: int) -> Sequence[Sequence[int]]:
        batches = [[i] * batch_size for i in range(400)]
        return next(look_ahead(batches, 2)).ahead  # type: ignore[attr-defined, no-any-return]

    assert len(first(32)) == 4
    assert len(first(64)) == 4
    assert len(first(8)) == 16
    assert [batch[0] for batch in first(32)] == [2, 4, 6, 8]
