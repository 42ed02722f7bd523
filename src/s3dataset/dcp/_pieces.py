"""Memory in pieces, cut anew."""

from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["Pieces"]

T = TypeVar("T")


class Pieces(Generic[T]):
    """Pieces of memory, each with something that belongs to it, taken in other lengths than they come in."""

    def __init__(self, source: Iterator[tuple[memoryview, T]]) -> None:
        self._source = source
        self._rest: tuple[memoryview, T] | None = None

    def take(self, nbytes: int) -> list[tuple[memoryview, T]]:
        """-> the next so many bytes. There must be so many."""
        taken: list[tuple[memoryview, T]] = []
        while nbytes:
            memory, owner = next(self._source) if self._rest is None else self._rest
            piece, rest = memory[:nbytes], memory[nbytes:]
            self._rest = (rest, owner) if len(rest) else None
            if len(piece):
                taken.append((piece, owner))
            nbytes -= len(piece)
        return taken
