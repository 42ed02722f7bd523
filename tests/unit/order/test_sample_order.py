"""The row over indexed shards: reproducible for ever, mixed well, and near enough to read."""

from array import array
from itertools import pairwise

import pytest

from s3dataset._order import SampleOrder
from s3dataset._order._shuffled import shuffled, stored_shuffle


def order(samples: list[int], sizes: list[int], block_bytes: int = 100, **options: bool) -> SampleOrder:
    return SampleOrder(samples, sizes, seed=1, epoch=2, block_bytes=block_bytes, **options)  # type: ignore[arg-type]


def test_the_order_of_a_seed_and_epoch_never_changes_between_releases() -> None:
    row = order([3, 0, 5, 2, 6], [90, 10, 50, 20, 240])
    assert row.take(range(16)) == GOLDEN
    assert list(stored_shuffle(10, "golden", 1)) == GOLDEN_STORED


def test_blocks_are_whole_small_shards_or_even_parts_of_a_large_one() -> None:
    row = order([3, 0, 5, 2, 6], [90, 10, 50, 20, 240], shuffle=False)
    assert [(block.number, block.places, block.spans) for block in row.blocks_of(range(16))] == [
        (0, range(3), ((0, 0, 3),)),
        (1, range(3, 10), ((2, 0, 5), (3, 0, 2))),
        (2, range(10, 12), ((4, 0, 2),)),
        (3, range(12, 14), ((4, 2, 4),)),
        (4, range(14, 16), ((4, 4, 6),)),
    ]
    assert row.block(11) == row.blocks_of(range(10, 13))[0]
    assert row.blocks_of(range(4, 4)) == []


def test_not_shuffled_is_the_manifests_own_order() -> None:
    row = order([3, 0, 5], [1, 1, 1], shuffle=False)
    assert row.take([0, 7, 3]) == [0, 7, 3]
    assert [row.locate(sample) for sample in (0, 2, 3, 7)] == [(0, 0), (0, 2), (2, 0), (2, 4)]


def test_samples_larger_than_a_block_are_blocks_of_their_own() -> None:
    assert order([4], [4000]).num_blocks == 4


def test_places_and_samples_outside_the_row_are_refused() -> None:
    for row in (order([4], [4]), order([4], [4], shuffle=False)):
        for place in (-1, 4):
            with pytest.raises(IndexError, match=r"of 4"):
                row.take([0, place])
            with pytest.raises(IndexError, match=r"of 4"):
                row.block(place)
            with pytest.raises(IndexError, match=r"of 4"):
                row.locate(place)


def test_nothing_is_an_empty_row() -> None:
    for row in (order([], []), order([0, 0], [5, 5])):
        assert (len(row), row.num_blocks, row.take([]), row.blocks_of(range(0))) == (0, 0, [], [])


def test_arguments_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="2 shards and bytes of 1"):
        order([1, 2], [3])
    with pytest.raises(ValueError, match="block_bytes"):
        order([1], [3], 0)


def test_neighbours_come_from_a_block_and_blocks_from_everywhere() -> None:
    row = order([1000] * 100, [1000] * 100, 250)
    samples = row.take(range(100_000))
    assert sum(abs(a - b) == 1 for a, b in pairwise(samples)) < 1200  # 800 expected of 400 blocks of 250
    shards = [row.locate(sample)[0] for sample in samples[::250]]
    assert sum(a == b for a, b in pairwise(shards)) < 12  # 4 expected


def test_a_block_of_many_samples_is_computed_and_not_stored() -> None:
    large = shuffled(70_000, "x")
    assert not isinstance(large, array)
    assert sorted(large) == list(range(70_000))
    assert isinstance(shuffled(65_536, "x"), array)
    assert sorted(shuffled(65_536, "x")) == list(range(65_536))


GOLDEN = [15, 14, 4, 3, 8, 5, 9, 6, 7, 2, 1, 0, 11, 10, 13, 12]
GOLDEN_STORED = [6, 5, 4, 7, 2, 1, 3, 9, 0, 8]
