"""The seeded permutation: reproducible for ever, and as random as a shuffle needs."""

import pickle
from collections import Counter
from itertools import pairwise, permutations

import pytest

from s3dataset._order import Permutation


def test_the_order_of_a_seed_and_epoch_never_changes_between_releases() -> None:
    assert list(Permutation(10, seed=0, epoch=0)) == GOLDEN_10
    assert Permutation(10**12, seed=42, epoch=7)[:4] == GOLDEN_LARGE


def test_epochs_and_seeds_give_orders_of_their_own() -> None:
    orders = {tuple(Permutation(100, seed=seed, epoch=epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_every_order_of_few_elements_is_about_equally_likely(n: int) -> None:
    """Chi-square over all n! orders, 60 draws expected of each; the seeds are fixed, so the outcome is too."""
    orders = list(permutations(range(n)))
    draws = Counter(tuple(Permutation(n, seed=seed)) for seed in range(60 * len(orders)))
    chi_square = sum((draws[order] - 60) ** 2 / 60 for order in orders)
    freedom = len(orders) - 1
    assert chi_square <= freedom + 4 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("n", [100, 5000])
def test_each_place_takes_its_element_from_the_whole_range(n: int) -> None:
    """Chi-square of where elements land (in 10 bins) for fixed places over many seeds."""
    for place in (0, 1, n // 2, n - 1):
        bins = Counter(Permutation(n, seed=seed)[place] * 10 // n for seed in range(2000))
        chi_square = sum((bins[i] - 200) ** 2 / 200 for i in range(10))
        assert chi_square < 28  # 99.9 % of uniform draws stay under 27.9


def test_neighbours_do_not_stay_together() -> None:
    n = 10_000
    order = list(Permutation(n, seed=3))
    followed = sum(abs(a - b) == 1 for a, b in pairwise(order))
    assert followed < 12  # 2 expected


def test_it_behaves_as_a_sequence() -> None:
    permutation = Permutation(50, seed=1, epoch=2)
    assert permutation[-1] == list(permutation)[49]
    assert permutation[10:20:3] == list(permutation)[10:20:3]
    assert len(permutation) == 50
    with pytest.raises(IndexError):
        permutation[50]
    with pytest.raises(ValueError, match="n >= 0"):
        Permutation(-1, seed=0)
    assert repr(permutation) == "Permutation(50, seed=1, epoch=2)"


def test_it_pickles_as_its_arguments() -> None:
    permutation = Permutation(10**9, seed=1, epoch=2)
    data = pickle.dumps(permutation)
    assert len(data) < 200
    copy = pickle.loads(data)
    assert copy == permutation
    assert hash(copy) == hash(permutation)
    assert copy[12345] == permutation[12345]


GOLDEN_10 = [4, 5, 0, 8, 7, 6, 1, 3, 2, 9]
GOLDEN_LARGE = [387164622302, 551459936250, 13065632898, 552455704200]
