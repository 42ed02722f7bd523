"""The row over indexed shards holds each sample once, and a block's places are the block's samples."""

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from s3dataset._order import SampleOrder

shards = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 5000)), max_size=20)


@given(shards=shards, seed=st.integers(), epoch=st.integers(), block_bytes=st.integers(1, 6000), shuffle=st.booleans())
def test_the_row_holds_each_sample_once_and_blocks_tell_where(
    shards: list[tuple[int, int]], seed: int, epoch: int, block_bytes: int, shuffle: bool
) -> None:
    samples, sizes = [n for n, _ in shards], [size for _, size in shards]
    row = SampleOrder(samples, sizes, seed=seed, epoch=epoch, block_bytes=block_bytes, shuffle=shuffle)
    total = sum(samples)
    starts = [0, *accumulate(samples)]
    assert len(row) == total
    taken = row.take(range(total))
    assert sorted(taken) == list(range(total))
    if not shuffle:
        assert taken == list(range(total))
    blocks = row.blocks_of(range(total))
    assert [place for block in blocks for place in block.places] == list(range(total))
    assert [block.number for block in blocks] == list(range(row.num_blocks))
    for block in blocks:
        members = [starts[shard] + i for shard, first, stop in block.spans for i in range(first, stop)]
        assert sorted(taken[block.places.start : block.places.stop]) == sorted(members)
        assert {row.block(place) for place in block.places} == {block}
        held = sum(sizes[shard] * (stop - first) / samples[shard] for shard, first, stop in block.spans)
        assert held <= block_bytes * 1.000001 or len(members) == 1


@given(shards=shards, seed=st.integers(), epoch=st.integers(), data=st.data())
def test_a_place_does_not_depend_on_how_it_is_asked_for(
    shards: list[tuple[int, int]], seed: int, epoch: int, data: st.DataObject
) -> None:
    samples, sizes = [n for n, _ in shards], [size for _, size in shards]
    row = SampleOrder(samples, sizes, seed=seed, epoch=epoch, block_bytes=500)
    other = SampleOrder(samples, sizes, seed=seed, epoch=epoch, block_bytes=500)
    whole = row.take(range(len(row)))
    places = data.draw(st.lists(st.integers(0, len(row) - 1), max_size=30) if len(row) else st.just([]))
    assert other.take(places) == [whole[place] for place in places]
    assert [sum(samples[:shard]) + number for shard, number in map(other.locate, whole)] == whole
