"""Reads states, which come out of files and may be anything."""

from collections.abc import Mapping
from typing import Any, Final, NoReturn

VERSION: Final = 1


def state_kind(state: object) -> str:
    """Returns which kind of state it is.

    Raises:
        ValueError: It is no state of s3dataset, or one of a newer release.
    """
    if not isinstance(state, Mapping) or not isinstance(state.get("kind"), str) or "version" not in state:
        raise ValueError(f"this is no state of s3dataset, which has a kind and a version: {str(state)[:200]}")
    version = state["version"]
    if not is_count(version) or version < 1:
        raise ValueError(f"a state of s3dataset has a version from 1 on, not {version!r}")
    if version > VERSION:
        raise ValueError(
            f"the state is of version {version}, and this release reads versions up to {VERSION}: it was saved by a "
            "newer release of s3dataset. Resume with that one"
        )
    return str(state["kind"])


def is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_count(value: object, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


class Fields:
    """A mapping whose values are checked as they are taken."""

    def __init__(self, state: Mapping[str, Any], name: str) -> None:
        self._state = state
        self._name = name

    def integer(self, key: str) -> int:
        value = self._get(key)
        if not is_integer(value):
            self._refuse(key, value, "an integer")
        return int(value)

    def count(self, key: str, least: int = 0) -> int:
        value = self._get(key)
        if not is_count(value, least):
            self._refuse(key, value, f"an integer of at least {least}")
        return int(value)

    def optional_count(self, key: str, least: int = 0) -> int | None:
        return None if self._get(key) is None else self.count(key, least)

    def text(self, key: str) -> str:
        value = self._get(key)
        if not isinstance(value, str):
            self._refuse(key, value, "a string")
        return value

    def flag(self, key: str) -> bool:
        value = self._get(key)
        if not isinstance(value, bool):
            self._refuse(key, value, "true or false")
        return value

    def rows(self, key: str, length: int) -> list[list[Any]]:
        """A list of lists of that length."""
        value = self._get(key)
        if not isinstance(value, list | tuple) or not all(
            isinstance(row, list | tuple) and len(row) == length for row in value
        ):
            self._refuse(key, value, f"a list of lists of {length}")
        return [list(row) for row in value]

    def counts(self, key: str, length: int, least: int = 0) -> list[tuple[int, ...]]:
        """A list of lists of so many integers."""
        rows = self.rows(key, length)
        for row in rows:
            if not all(is_count(value, least) for value in row):
                self._refuse(key, row, f"{length} integers of at least {least}")
        return [tuple(row) for row in rows]

    def optional(self, key: str) -> Any:
        return self._state.get(key)

    def _get(self, key: str) -> Any:
        if key not in self._state:
            raise ValueError(f"{self._name} is damaged: it lacks {key!r}")
        return self._state[key]

    def _refuse(self, key: str, value: object, wanted: str) -> NoReturn:
        raise ValueError(f"{self._name} is damaged: {key!r} must be {wanted}, and is {str(value)[:100]}")
