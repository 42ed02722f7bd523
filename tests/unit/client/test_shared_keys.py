"""Keys that processes share: who asks, who takes, and what is told of refusals."""

import os
import pickle
import time
from multiprocessing import context

import pytest

from s3dataset._client._providers import Loaded
from s3dataset._client._shared_keys import SharedKeys
from s3dataset._secrets import AccessKeys
from s3dataset.errors import CredentialsError, NoCredentialsError


@pytest.fixture
def shared() -> SharedKeys:
    made = SharedKeys.create()
    if made is None:
        pytest.skip("this system has no memory without a name")
    return made


def keys(number: int) -> Loaded:
    return Loaded(AccessKeys(f"key-{number}", "s", "t" * 4000, 1e12 + number), renewable=True)


def never() -> Loaded:
    raise AssertionError("nobody was to be asked")


def refuse() -> Loaded:
    raise NoCredentialsError("none at all")


def test_what_one_was_given_the_next_takes(shared: SharedKeys) -> None:
    assert shared.ask(lambda: keys(1), lambda *_: True) == keys(1)
    assert shared.ask(never, lambda known, age_s: known == keys(1) and 0 <= age_s < 600) == keys(1)


def test_keys_that_will_not_do_are_asked_for_anew(shared: SharedKeys) -> None:
    shared.ask(lambda: keys(1), lambda *_: True)
    assert shared.ask(lambda: keys(2), lambda known, _: known != keys(1)) == keys(2)
    assert shared.ask(never, lambda *_: True) == keys(2)


def test_a_refusal_is_of_its_kind_and_the_next_who_comes_asks_again(shared: SharedKeys) -> None:
    with pytest.raises(NoCredentialsError, match="none at all"):
        shared.ask(refuse, lambda *_: True)
    assert shared.ask(lambda: keys(1), lambda *_: True) == keys(1)


def test_who_waited_for_a_refusal_shares_it(shared: SharedKeys) -> None:
    with pytest.raises(NoCredentialsError):
        shared.ask(refuse, lambda *_: True)
    shared._write({"failure": ["SomethingElse", "said"], "at": time.monotonic() + 60})
    with pytest.raises(CredentialsError, match="said"):
        shared.ask(never, lambda *_: True)


def test_half_an_entry_is_none(shared: SharedKeys) -> None:
    shared.ask(lambda: keys(1), lambda *_: True)
    os.ftruncate(shared._descriptor, 20)
    assert shared.ask(lambda: keys(2), lambda *_: True) == keys(2)


def test_an_ordinary_pickle_has_nothing(shared: SharedKeys) -> None:
    shared.ask(lambda: keys(1), lambda *_: True)
    data = pickle.dumps(shared)
    assert b"key-1" not in data
    assert pickle.loads(data) is None


def test_a_process_that_takes_no_descriptors_gets_nothing(shared: SharedKeys) -> None:
    context.set_spawning_popen(object())
    try:
        data = pickle.dumps(shared)
    finally:
        context.set_spawning_popen(None)
    assert pickle.loads(data) is None


def test_its_memory_ends_with_it(shared: SharedKeys) -> None:
    made = SharedKeys.create()
    assert made is not None
    descriptor = made._descriptor
    del made
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
