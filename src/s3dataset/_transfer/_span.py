"""Span: a range of bytes as HTTP and curl write it."""

import re
from dataclasses import dataclass
from typing import Final, Self

from s3dataset.errors import S3Exception

__all__ = ["Span"]

_SPAN: Final = re.compile(r"(?:bytes=)?(\d*)-(\d*)")


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes that "0-99" (the first hundred), "100-" (from byte 100 on) or "-100" (the last hundred) names.

    Attributes:
        first: First byte; None: `last` counts from the end.
        last: Last byte, inclusive; None: up to the end. With `first` None: how many bytes.
    """

    first: int | None
    last: int | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads it.

        Raises:
            ValueError: It is no range.
        """
        match = _SPAN.fullmatch(text.strip())
        if match is None or not (match[1] or match[2]):
            raise ValueError(
                f'{text!r} is no range of bytes: write "0-99" (both ends count, as in HTTP), "100-" or "-100"'
            )
        first, last = (int(digits) if digits else None for digits in match.groups())
        if first is not None and last is not None and last < first:
            raise ValueError(f"{text!r} is no range of bytes: its last byte is before its first")
        if first is None and last == 0:
            raise ValueError(f"{text!r} is no range of bytes: it is empty")
        return cls(first, last)

    def within(self, size: int, uri: str) -> tuple[int, int]:
        """-> [start, end) in an object of `size` bytes.

        Raises:
            S3Exception: It begins behind the object's end.
        """
        if self.first is None:
            return max(0, size - (self.last or 0)), size
        if self.first >= size:
            raise S3Exception(
                f"The range begins at byte {self.first:,}, and {uri} has {size:,} bytes (0 is the first)", uri=uri
            )
        return self.first, size if self.last is None else min(self.last + 1, size)
