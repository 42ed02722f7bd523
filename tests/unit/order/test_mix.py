"""MixPlan: reproducible for ever, well mixed, and clear about what it refuses."""

from typing import Any

import pytest

from s3dataset._order import MixPlan


def test_the_order_of_a_seed_and_epoch_never_changes_between_releases() -> None:
    plan = MixPlan([5, 3, 1], seed=7, epoch=1)
    assert [plan.source(slot) for slot in range(2000, 2020)] == GOLDEN


def test_epochs_and_blocks_are_orders_of_their_own() -> None:
    orders = {
        tuple(plan.source(slot) for slot in range(first, first + 200))
        for plan in (MixPlan([1, 1], epoch=epoch) for epoch in range(3))
        for first in (0, 1000)
    }
    assert len(orders) == 6


def test_a_rare_source_gets_its_samples_over_many_blocks() -> None:
    plan = MixPlan([1, 9999])
    assert [plan.counts(slot)[0] for slot in (4000, 10_000, 100_000)] == [0, 1, 10]


def test_cursors_count_the_epochs_of_each_source() -> None:
    plan = MixPlan([3, 1, 0])
    assert plan.counts(1000) == [750, 250, 0]
    assert plan.cursors(1000, [100, 300, 0]) == [(7, 50), (0, 250), (0, 0)]


def test_one_source_has_all_slots() -> None:
    plan = MixPlan([0.0, 2.5])
    assert {plan.source(slot) for slot in range(1500)} == {1}


@pytest.mark.parametrize("weights", [[], [0, 0], [1, -1], [1, float("nan")], [1, float("inf")]])
def test_weights_that_mean_nothing_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights must be"):
        MixPlan(weights)


def test_what_does_not_fit_is_refused() -> None:
    plan = MixPlan([1, 1], first=10, base=[5, 5])
    with pytest.raises(IndexError, match="begins at slot 10"):
        plan.source(9)
    with pytest.raises(ValueError, match="from slot 10 on"):
        plan.slot_of(0, 4)
    with pytest.raises(ValueError, match="2 weights, and counts of 3"):
        MixPlan([1, 1], base=[1, 2, 3])
    with pytest.raises(ValueError, match="counts of 2"):
        plan.changed(20, [1, 2, 3])


@pytest.mark.parametrize("change", [{"weights": "ab"}, {"base": None}, {"first": -1}, {"kind": "indexed"}])
def test_damaged_states_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="state"):
        MixPlan.from_dict(MixPlan([1, 2]).to_dict() | change)


GOLDEN = [1, 0, 0, 2, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 1]
