"""Which bytes are asked for."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3dataset.dcp._ranges import MOST_WASTE, runs_of, spans_of


def joined(*objects, max_gap=1000):
    return [[(run.start, run.end, run.segments) for run in runs] for runs in runs_of(objects, max_gap)]


def test_neighbours_are_one_range():
    assert joined([(10, 20), (0, 10), (20, 30)]) == [[(0, 30, [1, 0, 2])]]


def test_objects_are_apart():
    assert joined([(0, 10)], [(10, 20)]) == [[(0, 10, [0])], [(10, 20, [0])]]


def test_small_gaps_go_first_and_waste_stays_small():
    # 1,000 bytes are wanted, so 50 may be wasted: the gaps of 20 and 30, but not that of 40 nor, then, one of 10 more.
    segments = [(0, 250), (290, 540), (560, 810), (840, 1090)]
    assert joined(segments) == [[(0, 250, [0]), (290, 1090, [1, 2, 3])]]
    assert joined([(0, 500), (560, 1060)]) == [[(0, 500, [0]), (560, 1060, [1])]]


def test_waste_is_counted_over_all_objects():
    # 2,000 bytes are wanted.
    assert joined([(0, 500), (560, 1060)], [(0, 1000)])[0] == [(0, 1060, [0, 1])]


def test_gaps_are_not_wider_than_was_allowed():
    assert joined([(0, 1000), (1010, 2010)], max_gap=9) == [[(0, 1000, [0]), (1010, 2010, [1])]]
    assert joined([(0, 1000), (1010, 2010)], max_gap=float("inf")) == [[(0, 2010, [0, 1])]]


def test_segments_that_overlap_are_read_by_themselves():
    assert joined([(0, 10), (0, 10), (10, 20)]) == [[(0, 10, [0]), (0, 20, [1, 2])]]


def test_nothing_is_nothing():
    assert runs_of([], 5) == []
    assert runs_of([[]], 5) == [[]]


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 100)), max_size=20), max_size=4),
    st.integers(0, 100),
)
def test_runs_have_all_segments_once_and_little_else(gaps_and_lengths, max_gap):
    objects = []
    for pairs in gaps_and_lengths:
        segments, at = [], 0
        for gap, length in pairs:
            segments.append((at + gap, at + gap + length))
            at += gap + length
        objects.append(segments)
    wanted = sum(end - start for segments in objects for start, end in segments)
    read = 0
    for segments, runs in zip(objects, runs_of(objects, max_gap), strict=True):
        assert [index for run in runs for index in run.segments] == list(range(len(segments)))
        for run in runs:
            assert run.start == segments[run.segments[0]][0]
            assert run.end == segments[run.segments[-1]][1]
            read += run.end - run.start
    assert read <= wanted * (1 + MOST_WASTE)


@pytest.mark.parametrize(("nbytes", "count"), [(1, 1), (10, 1), (14, 1), (16, 2), (100, 10), (104, 10)])
def test_spans_are_alike(nbytes, count):
    spans = spans_of(7, 7 + nbytes, 10)
    assert len(spans) == count
    assert spans[0][0] == 7
    assert spans[-1][1] == 7 + nbytes
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    lengths = [end - start for start, end in spans]
    assert max(lengths) - min(lengths) <= 1
    assert max(lengths) <= 15
