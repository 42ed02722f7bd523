"""Split: what it refuses, and what it leaves open."""

import pickle

import pytest

from s3dataset._order import Split


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 0}, "together"),
        ({"world_size": 2}, "together"),
        ({"rank": 2, "world_size": 2}, "rank=2, world_size=2"),
        ({"rank": -1, "world_size": 2}, "0 <= rank"),
        ({"rank": 0, "world_size": 2, "mesh": object()}, "not both"),
        ({"dp_dims": ("dp",)}, "together with mesh="),
        ({"ranks": False, "rank": 0, "world_size": 2}, "ranks=False"),
        ({"tail": "truncate"}, "'pad', 'drop', 'exact'"),
        ({"steps_per_epoch": 0}, "at least 1"),
        ({"steps_per_epoch": 5, "tail": "pad"}, "not both"),
    ],
)
def test_contradictions_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Split(**arguments)  # type: ignore[arg-type]


def test_numbers_are_integers() -> None:
    with pytest.raises(TypeError, match=r"Split\(rank=\) must be an integer, got '0'"):
        Split(rank="0", world_size="2")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Split\(steps_per_epoch=\) must be an integer, got 2.5"):
        Split(steps_per_epoch=2.5)  # type: ignore[arg-type]


def test_it_pickles_and_compares_by_value() -> None:
    split = Split(rank=1, world_size=4, tail="drop")
    assert pickle.loads(pickle.dumps(split)) == split
    assert len({split, Split(rank=1, world_size=4, tail="drop")}) == 1


def test_one_mesh_dimension_may_be_given_as_text() -> None:
    assert Split(mesh=object(), dp_dims="dp").dp_dims == ("dp",)


def test_the_tail_pads_when_there_are_several_ranks() -> None:
    assert Split().resolved_tail(1) == "exact"
    assert Split().resolved_tail(2) == "pad"
    assert Split(tail="drop").resolved_tail(1) == "drop"
