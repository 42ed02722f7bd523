"""Numbers that callers give, which end up in states."""

from operator import index
from typing import Any

__all__ = ["whole_number"]


def whole_number(name: str, value: Any) -> int:
    """Returns it as an int: an integer of numpy would not survive JSON.

    Raises:
        TypeError: It is no integer.
    """
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
