"""Check: one thing that was looked at."""

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

__all__ = ["Check", "Status", "first_line"]

Status: TypeAlias = Literal["ok", "warn", "fail", "info"]
"""As it should be; may hurt; does not work; a fact, neither good nor bad."""


@dataclass(frozen=True, slots=True)
class Check:
    """What was found.

    Attributes:
        section: The group it belongs to.
        name: What was looked at.
        status: How it is.
        said: What was found, in words, without secrets.
        advice: What to do; "" where there is nothing to do.
        facts: The same for programs.
    """

    section: str
    name: str
    status: Status
    said: str
    advice: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def first_line(error: BaseException) -> str:
    """An exception in a line."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
