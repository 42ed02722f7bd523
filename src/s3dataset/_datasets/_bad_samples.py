"""What becomes of samples whose content is broken."""

from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

__all__ = ["OnError", "Verdict", "checked_on_error"]

Verdict: TypeAlias = Literal["raise", "skip", "replace"]

OnError: TypeAlias = Verdict | Callable[[Exception, str, int], Verdict]
"""A word, or a function that says it of (error, URI of the object or shard, number of the sample in it)."""

_WORDS: Final = ("raise", "skip", "replace")


def checked_on_error(on_error: Any) -> OnError:
    """Refuses what is none.

    Raises:
        ValueError: It is a word that is none of the three.
        TypeError: It is something else.
    """
    if isinstance(on_error, str) and on_error not in _WORDS:
        raise ValueError(f"on_error must be one of {', '.join(map(repr, _WORDS))}, or a function; got {on_error!r}")
    if not (isinstance(on_error, str) or callable(on_error)):
        raise TypeError(f"on_error must be one of {', '.join(map(repr, _WORDS))}, or a function; got {on_error!r}")
    checked: OnError = on_error
    return checked
