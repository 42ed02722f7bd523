"""Mixing: shares are exact in the long run, and the slot is all that a state needs."""

import json
from collections import Counter
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from s3dataset._order import MixPlan

weights = st.lists(st.one_of(st.integers(0, 1000), st.floats(0, 1e6)), min_size=1, max_size=12).filter(any)
seeds = st.integers()


@given(weights=weights, seed=seeds, epoch=seeds, block=st.integers(0, 10**6))
def test_at_the_end_of_a_block_each_source_has_had_its_share(
    weights: list[float], seed: int, epoch: int, block: int
) -> None:
    plan = MixPlan(weights, seed=seed, epoch=epoch)
    counts = plan.counts(1000 * block)
    assert sum(counts) == 1000 * block
    total = sum(map(Fraction, weights))
    for weight, count in zip(weights, counts, strict=True):
        assert abs(count - Fraction(weight) / total * 1000 * block) < 2
        assert weight or not count


@given(weights=weights, seed=seeds, slot=st.integers(0, 10**9), steps=st.integers(0, 2500))
def test_counts_are_those_of_the_slots_one_by_one(weights: list[float], seed: int, slot: int, steps: int) -> None:
    plan = MixPlan(weights, seed=seed)
    between = Counter(plan.source(at) for at in range(slot, slot + steps))
    before, behind = plan.counts(slot), plan.counts(slot + steps)
    assert [b - a for a, b in zip(before, behind, strict=True)] == [between[i] for i in range(len(weights))]


@given(weights=weights, seed=seeds, data=st.data())
def test_it_finds_the_slot_of_a_sample(weights: list[float], seed: int, data: st.DataObject) -> None:
    plan = MixPlan(weights, seed=seed)
    slot = data.draw(st.integers(0, 10**6))
    source = plan.source(slot)
    assert plan.slot_of(source, plan.counts(slot)[source]) == slot


@given(first=weights, slot=st.integers(0, 3000), ahead=st.integers(0, 3000), data=st.data())
def test_other_weights_from_a_slot_on_keep_what_was_before(
    first: list[float], slot: int, ahead: int, data: st.DataObject
) -> None:
    plan = MixPlan(first, seed=1)
    other = data.draw(st.lists(st.integers(0, 9), min_size=len(first), max_size=len(first)).filter(any))
    changed = plan.changed(slot, other)
    assert changed.counts(slot) == plan.counts(slot)
    assert sum(changed.counts(slot + ahead)) == slot + ahead
    again = MixPlan.from_dict(json.loads(json.dumps(changed.to_dict())))
    assert again.counts(slot + ahead) == changed.counts(slot + ahead)
    assert again.source(slot + ahead) == changed.source(slot + ahead)
