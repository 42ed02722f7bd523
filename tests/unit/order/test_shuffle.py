"""Shuffle: what it refuses, and the size of a block."""

import pickle

import pytest

from s3dataset._order import Shuffle

MIB = 1 << 20


@pytest.mark.parametrize("arguments", [{"block_bytes": 0}, {"open_shards": 0}, {"streams": -1}])
def test_counts_below_one_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Shuffle(**arguments)  # type: ignore[arg-type]


def test_what_is_no_integer_is_refused() -> None:
    with pytest.raises(TypeError, match="seed"):
        Shuffle(seed="0")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="block_bytes"):
        Shuffle(block_bytes=1e6)  # type: ignore[arg-type]


def test_it_pickles_and_compares_by_value() -> None:
    shuffle = Shuffle(seed=-3, streams=128)
    assert pickle.loads(pickle.dumps(shuffle)) == shuffle
    assert len({shuffle, Shuffle(seed=-3, streams=128)}) == 1


@pytest.mark.parametrize(
    ("samples", "sample_bytes", "block_bytes"),
    [(10**6, 100, MIB), (10**6, 1000, 8_192_000), (10**6, 100 << 10, 256 * MIB), (3, 10**9, 256 * MIB), (0, 0, MIB)],
)
def test_a_block_holds_about_eight_thousand_samples_within_bounds(
    samples: int, sample_bytes: int, block_bytes: int
) -> None:
    assert Shuffle().resolved_block_bytes(samples, samples * sample_bytes) == block_bytes
    assert Shuffle(block_bytes=5).resolved_block_bytes(samples, samples * sample_bytes) == 5
