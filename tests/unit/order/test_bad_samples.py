"""The ledger of bad samples, what stands in for one, and seeds of samples."""

import json

import pytest

from s3dataset._order import BadSample, BadSamples, replacement, sample_seed


def entry(number: int, reason: str = "truncated") -> BadSample:
    return BadSample("s3://b/shard.tar", number, reason)


def ledger(*numbers: int) -> BadSamples:
    bad = BadSamples()
    for number in numbers:
        bad = bad.added(entry(number))
    return bad


def test_a_sample_counts_once_in_whichever_reader_it_was_met() -> None:
    bad = ledger(1, 2, 1).merged([ledger(2, 3), ledger()])
    assert [sample.offset for sample in bad.entries] == [1, 2, 3]
    assert bad.count == 3


def test_it_keeps_a_thousand_and_counts_the_rest() -> None:
    bad = BadSamples().merged(BadSamples((entry(number),), 1) for number in range(1500))
    assert (len(bad.entries), bad.count) == (1000, 1500)
    assert bad.merged([ledger(3)]).count == 1500
    assert bad.added(entry(9999)).count == 1501
    assert str(bad).splitlines()[-1] == "and 500 more"


def test_it_survives_json_and_prints() -> None:
    bad = ledger(0, 512).added(entry(7, "x" * 500))
    assert BadSamples.from_dict(json.loads(json.dumps(bad.to_dict()))) == bad
    assert str(bad).splitlines()[1] == "s3://b/shard.tar at 512: truncated"
    assert len(bad.entries[-1].reason) == 200
    assert str(BadSamples.from_dict(None)) == "no bad samples"


@pytest.mark.parametrize(
    "state", [[], {"count": 1}, {"count": 0, "entries": [["a", 0, "b"]]}, {"entries": [[1, 2, 3]]}]
)
def test_a_damaged_ledger_is_refused(state: object) -> None:
    with pytest.raises(ValueError, match="ledger of bad samples is damaged"):
        BadSamples.from_dict(state)  # type: ignore[arg-type]


def test_a_replacement_comes_from_the_block_and_does_not_depend_on_what_is_known() -> None:
    block = range(100, 120)
    chosen = replacement(1, 2, 105, block, set())
    assert chosen in block
    assert chosen != 105
    # Whether a bad sample was known before or is found by asking, the outcome is the same.
    bad = {101, 103, chosen}
    asked = {105}
    while (found := replacement(1, 2, 105, block, asked)) in bad:
        asked.add(found)
    assert found == replacement(1, 2, 105, block, bad)


def test_replacements_are_spread_over_the_block() -> None:
    block = range(1000)
    assert len({replacement(0, 0, slot, block, ()) for slot in block}) > 500
    assert replacement(0, 0, 5, block, ()) != replacement(0, 1, 5, block, ())


def test_a_block_without_a_good_sample_is_an_error() -> None:
    with pytest.raises(LookupError, match="all 3 samples of the block that place 4 lies in are bad"):
        replacement(0, 0, 4, range(3, 6), {3, 5})


def test_seeds_of_samples_never_change_and_differ() -> None:
    assert sample_seed(0, 0, 0) == GOLDEN_SEED
    ids: list[int | str] = [0, 1, "0", "1", "s3://b/ü", 10**30]
    assert len({sample_seed(seed, epoch, name) for seed in (0, 1) for epoch in (0, 1) for name in ids}) == 24
    assert all(0 <= sample_seed(-1, 5, name) < 1 << 64 for name in ids)


GOLDEN_SEED = 8148030269873367119
