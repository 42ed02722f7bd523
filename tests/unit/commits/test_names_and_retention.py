"""What lies where, and what is kept."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3dataset._commits import Attempt, Layout, check_retention, check_step, expendable
from s3dataset.errors import InvalidUriError

STEPS = st.integers(0, 10**12 - 1)


def test_where_things_are() -> None:
    layout = Layout.at("s3://bucket/run")
    assert layout == Layout.at("s3://bucket/run/")
    assert layout.commit(1200) == "run/commits/999999998799.json"
    assert layout.files(Attempt(1200, "00ff00ff00ff00ff")) == "run/data/1200.00ff00ff00ff00ff/"
    assert layout.pin(1200) == "run/pins/000000001200.json"
    assert layout.new_mark(1200).startswith("run/restores/000000001200.")
    assert str(layout) == "s3://bucket/run/"
    assert Layout.at("s3://bucket").commit(0) == "commits/999999999999.json"


def test_no_place() -> None:
    with pytest.raises(InvalidUriError):
        Layout.at("/checkpoints")


@given(STEPS, STEPS)
def test_newer_steps_list_first(one: int, other: int) -> None:
    layout = Layout.at("s3://bucket/run")
    assert (layout.commit(one) < layout.commit(other)) == (one > other)


@given(STEPS)
def test_names_are_read_as_they_were_made(step: int) -> None:
    layout = Layout.at("s3://bucket/data/1.00000000/run")
    attempt = Attempt.new(step)
    assert layout.step_of_commit(layout.commit(step)) == step
    assert layout.attempt_of(layout.files(attempt)) == attempt
    assert layout.attempt_of(layout.files(attempt) + "a/b.pt") == attempt
    assert layout.step_of_pin(layout.pin(step)) == step
    assert layout.step_of_mark(layout.new_mark(step)) == step


@pytest.mark.parametrize(
    "key", ["notes.txt", "12.json", "999999999999.json.bak", "a/999999999999.json", "99999999999x.json", ""]
)
def test_foreign_names_are_nobodys(key: str) -> None:
    layout = Layout.at("s3://bucket/run")
    assert layout.step_of_commit(layout.commits + key) is None
    assert layout.step_of_pin(layout.pins + key) is None
    assert layout.step_of_mark(layout.restores + key) is None


@pytest.mark.parametrize("key", ["1/", "1.xyz/", "01.00000000/", "1.0000000/", "x.00000000/", "1.00000000", ""])
def test_foreign_folders_are_nobodys(key: str) -> None:
    layout = Layout.at("s3://bucket/run")
    assert layout.attempt_of(layout.data + key) is None


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (-1, ValueError),
        (10**12, ValueError),
        (1.0, TypeError),
        (True, TypeError),
        ("1", TypeError),
        (None, TypeError),
    ],
)
def test_no_step(step: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="step must be"):
        check_step(step)


def test_steps_of_other_kinds_of_whole_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    assert check_step(numpy.int64(7)) == 7


@pytest.mark.parametrize(
    ("options", "gone"),
    [
        ({"keep_last": None, "keep_every": None}, []),
        ({"keep_last": 1, "keep_every": None}, [10, 20, 30, 40]),
        ({"keep_last": 2, "keep_every": None}, [10, 20, 30]),
        ({"keep_last": 9, "keep_every": None}, []),
        ({"keep_last": 2, "keep_every": 20}, [10, 30]),
        ({"keep_last": 1, "keep_every": None, "keep": {20}}, [10, 30, 40]),
        ({"keep_last": 1, "keep_every": None, "damaged": {50}}, [10, 20, 30]),  # 40 is the newest whole one
        ({"keep_last": 2, "keep_every": 20, "damaged": {40}}, [10, 40]),  # no longer of use, nor among the last two
        ({"keep_last": 1, "keep_every": None, "damaged": {10, 20, 30, 40, 50}}, []),
    ],
)
def test_what_is_kept(options: Any, gone: list[int]) -> None:
    assert expendable([30, 10, 50, 40, 20], **options) == gone


@given(
    st.sets(st.integers(0, 60), max_size=20),
    st.none() | st.integers(1, 5),
    st.none() | st.integers(1, 7),
    st.sets(st.integers(0, 60), max_size=5),
    st.sets(st.integers(0, 60), max_size=5),
)
def test_what_is_never_deleted(
    steps: set[int], last: int | None, every: int | None, pinned: set[int], damaged: set[int]
) -> None:
    gone = expendable(steps, keep_last=last, keep_every=every, keep=pinned, damaged=damaged)
    whole = sorted(steps - damaged)
    assert gone == sorted(set(gone))
    assert set(gone) <= steps - pinned
    assert not whole or whole[-1] not in gone
    assert not set(whole[-(last or len(whole) or 1) :]) & set(gone)
    assert not any(step % every == 0 for step in set(gone) - damaged) if every else True
    if last is not None and not every and not pinned and not damaged:
        assert len(steps) - len(gone) == min(len(steps), last)


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("name", ["keep_last", "keep_every"])
def test_numbers_that_cannot_be_meant(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1"):
        check_retention(**({"keep_last": 1, "keep_every": None} | {name: value}))
