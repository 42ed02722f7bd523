"""Bytes of synthetic objects, as Python computes them."""

from hypothesis import given
from hypothesis import strategies as st

from s3dataset.testing import synthetic_bytes


@given(st.integers(0, 2**64 - 1), st.integers(0, 10_000), st.integers(0, 100), st.integers(0, 100))
def test_a_range_is_part_of_the_whole(seed: int, start: int, length: int, more: int) -> None:
    part = synthetic_bytes(seed, start, start + length)
    assert len(part) == length
    assert synthetic_bytes(seed, start, start + length + more).startswith(part)
    assert synthetic_bytes(seed, max(start - more, 0), start + length).endswith(part)


def test_seeds_differ() -> None:
    assert synthetic_bytes(0, 0, 64) != synthetic_bytes(1, 0, 64)
