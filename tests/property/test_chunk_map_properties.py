"""ChunkMap against a set of covered bytes."""

from hypothesis import given
from hypothesis import strategies as st

from s3dataset._io._chunks import Chunk, ChunkMap

SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), max_size=12)


@given(spans=SPANS, drops=st.sets(st.integers(0, 11)), start=st.integers(0, 70), nbytes=st.integers(0, 40))
def test_like_a_set_of_bytes(spans, drops, start, nbytes):
    chunks = ChunkMap()
    covered = set()
    added = []
    for at, length in spans:
        chunk = Chunk(at, at + length)
        place = set(range(at, at + length))
        try:
            chunks.add(chunk)
        except ValueError:
            assert covered & place
        else:
            assert not covered & place
            covered |= place
            added.append(chunk)
    for i in drops:
        if i < len(added):
            chunks.remove(added[i])
            covered -= set(range(added[i].start, added[i].end))
    assert len(chunks) == len(added) - sum(i < len(added) for i in drops)
    assert chunks.nbytes == len(covered)
    found = chunks.at(start)
    assert (found is not None) == (start in covered)
    assert found is None or found.start <= start < found.end
    end = start + nbytes
    missing = {byte for hole in chunks.holes(start, end) for byte in range(*hole)}
    assert missing == set(range(start, end)) - covered
    assert chunks.bytes_from(start) == sum(byte >= start for byte in covered)
    until = start
    while until in covered:
        until += 1
    assert chunks.covered_until(start) == until
    starts = [chunk.start for chunk in chunks if chunk.start > start]
    assert chunks.next_start(start) == min(starts, default=None)
