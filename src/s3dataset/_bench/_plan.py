"""What was asked for, and what it reads at most. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from s3dataset._survey import GET_DOLLARS, LIST_DOLLARS

__all__ = ["CONCURRENCIES", "SIZES", "WORKERS", "Options", "Plan"]

_MIB: Final = 1 << 20
CONCURRENCIES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SIZES: Final = (16 << 10, 128 << 10, _MIB, 8 * _MIB, 64 * _MIB)
WORKERS: Final = (0, 1, 2, 4, 8, 16, 32)
_LISTED: Final = 20_000
_PART_BYTES: Final = 8 * _MIB
_TRANSFER_DOLLARS: Final = 0.09e-9
"""A byte out of Amazon's network, list price of the first 10 TB a month; none within the region."""


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for.

    Attributes:
        seconds: Of measuring, all phases together.
        max_bytes: Read at most; as many are written at most.
        max_requests: Sent at most for reading.
        concurrencies: Steps of the curve.
        workers: Steps of num_workers; none leaves the DataLoader out.
        sizes: Of temporary objects; none writes nothing.
        pattern: Which objects.
        transform: Of the user's, for the DataLoader; default: the bytes are read, and counted.
        batch_size: Of the DataLoader.
    """

    seconds: float = 30.0
    max_bytes: int = 4 * 10**9
    max_requests: int = 200_000
    concurrencies: tuple[int, ...] = CONCURRENCIES
    workers: tuple[int, ...] = (0, 1, 2)
    sizes: tuple[int, ...] = ()
    pattern: str | None = None
    transform: Callable[[Any], Any] | None = field(default=None, compare=False)
    batch_size: int = 32


@dataclass(frozen=True, slots=True)
class Plan:
    """What the measurement sends at most.

    Attributes:
        lists: Requests that list.
        gets: Requests that read.
        puts: Requests that write.
        read_bytes: Read.
        write_bytes: Written, and deleted again.
    """

    lists: int
    gets: int
    puts: int
    read_bytes: int
    write_bytes: int

    @classmethod
    def of(cls, options: Options) -> "Plan":
        """By the limits alone: nothing was asked yet."""
        counts = [objects_of(size, options) for size in options.sizes]
        written = sum(size * count for size, count in zip(options.sizes, counts, strict=True))
        puts = sum(count * _requests_to_write(size) for size, count in zip(options.sizes, counts, strict=True))
        return cls(_LISTED // 1000, options.max_requests, puts, options.max_bytes, written)

    @property
    def dollars(self) -> float:
        """For the requests, at Amazon's list price."""
        return self.gets * GET_DOLLARS + (self.lists + self.puts) * LIST_DOLLARS

    @property
    def transfer_dollars(self) -> float:
        """For the bytes, where they leave Amazon's network."""
        return self.read_bytes * _TRANSFER_DOLLARS


def _requests_to_write(size: int) -> int:
    return 1 if size <= _PART_BYTES else 2 + -(-size // _PART_BYTES)


def objects_of(size: int, options: Options) -> int:
    """How many temporary objects of a size: enough for many requests at once, few enough to write."""
    share = options.max_bytes // (2 * max(len(options.sizes), 1))
    return max(1, min(128, share // size))
