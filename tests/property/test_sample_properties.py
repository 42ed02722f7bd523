"""Places of samples, against a plain search; and manifests made of manifests keep them."""

from array import array

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.manifest.test_samples import indexed, same, shards_of

from s3dataset._manifest import Manifest, SamplePlace
from s3dataset.formats import Frames, ShardIndex

NUMBERS = st.one_of(st.integers(0, 50), st.integers((1 << 32) - 3, (1 << 32) + 3))


@st.composite
def shards(draw: st.DrawFn) -> ShardIndex:
    first, head = draw(st.integers(0, 9)), draw(st.sampled_from([b"", b"", b"a", b"bc"]))
    if draw(st.booleans()):
        step, count = draw(st.integers(1, 5)), draw(st.integers(0, 5))
        return ShardIndex(range(first + step, first + step * count + 1, step), first, None, head)
    ends = array("Q")
    for length in draw(st.lists(NUMBERS, max_size=8)):
        ends.append((ends[-1] if ends else first) + length)
    if not draw(st.booleans()):
        return ShardIndex(ends, first, None, head)
    content = ends[-1] if ends else first
    cuts = sorted(draw(st.sets(st.integers(1, max(content, 1)), max_size=5)) | {max(content, 1)})
    starts, stops, at = array("Q"), array("Q"), 0
    for _ in cuts:
        at += draw(st.integers(0, 3))
        starts.append(at)
        at += draw(st.integers(1, 20))
        stops.append(at)
    return ShardIndex(ends, first, Frames(starts, stops, array("Q", cuts)), head)


def expected(manifest: Manifest, given_shards: list[ShardIndex]) -> list[SamplePlace]:
    places = []
    for row, shard in enumerate(given_shards):
        start = shard.first
        for number, end in enumerate(shard.ends):
            frames = shard.frames
            if frames is None:
                places.append(SamplePlace(row, number, start, end, 0, end - start))
            else:
                begins = [0, *frames.ends[:-1]]
                touched = [
                    frame
                    for frame, (begin, stop) in enumerate(zip(begins, frames.ends, strict=True))
                    if begin < end and stop > start
                ] or [min((f for f, stop in enumerate(frames.ends) if stop > start), default=len(begins) - 1)]
                base = begins[touched[0]]
                places.append(
                    SamplePlace(
                        row, number, frames.starts[touched[0]], frames.stops[touched[-1]], start - base, end - base
                    )
                )
            start = end
    return places


@given(st.lists(shards(), max_size=6), st.data())
def test_places(given_shards: list[ShardIndex], data: st.DataObject) -> None:
    manifest = indexed(given_shards)
    places = expected(manifest, given_shards)
    assert manifest.num_samples == len(places)
    order = data.draw(st.permutations(range(len(places))))
    assert manifest.places(order) == [places[position] for position in order]


@given(st.lists(shards(), max_size=6), st.lists(shards(), max_size=3), st.data())
def test_what_is_made_of_manifests(one: list[ShardIndex], other: list[ShardIndex], data: st.DataObject) -> None:
    both = indexed(one) + indexed(other, bucket="c")
    rows = sorted(data.draw(st.sets(st.sampled_from(range(len(both)))))) if len(both) else []
    kept = both.filter(lambda entry: both.find(entry.uri) in rows)
    assert all(same(shard, (one + other)[row]) for shard, row in zip(shards_of(kept), rows, strict=True))
    assert len(kept) == len(rows)
