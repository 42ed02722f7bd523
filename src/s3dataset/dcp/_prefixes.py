"""Where the objects of each rank lie below a checkpoint's prefix."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

import torch.distributed as dist

__all__ = [
    "BinaryPrefixStrategy",
    "DefaultPrefixStrategy",
    "HexPrefixStrategy",
    "NumericPrefixStrategy",
    "RoundRobinPrefixStrategy",
    "S3PrefixStrategyBase",
]


class S3PrefixStrategyBase(ABC):
    """What a rank's data objects are called, up to their number: "<prefix><number>.distcp" below the checkpoint.

    S3 serves a number of requests a second for each prefix and spreads what is busy only with time: thousands of ranks
    that begin at once are served sooner when the first characters of their keys differ. Strategies must be picklable,
    and give different ranks different prefixes.
    """

    def __call__(self, rank: int) -> str:
        """The same as `generate_prefix`."""
        return self.generate_prefix(rank)

    @abstractmethod
    def generate_prefix(self, rank: int) -> str:
        """-> the beginning of the names of this rank's objects, such as "__3_"."""


class DefaultPrefixStrategy(S3PrefixStrategyBase):
    """All ranks side by side: "__<rank>_", as PyTorch's own FileSystemWriter has it."""

    def generate_prefix(self, rank: int) -> str:
        """-> "__<rank>_"."""
        return f"__{rank}_"


class NumericPrefixStrategy(S3PrefixStrategyBase):
    """Base of those that spread the ranks over numbered prefixes: "<number, reversed>/epoch_<n>/__<rank>_".

    Args:
        base: In which the numbers are written.
        epoch_num: Goes behind the number; None: nothing does.
        min_prefix_length: Digits of a number at least; 10 by default, so that few prefixes look as many do.
        prefix_count: How many there are; default: the world size, 1 without a process group.

    Attributes:
        prefix_map: The numbers as they are written, in their order.

    Raises:
        ValueError: An argument is none of that.
    """

    def __init__(
        self,
        base: int,
        epoch_num: int | None = None,
        min_prefix_length: int = 10,
        prefix_count: int | None = None,
    ) -> None:
        if not _is_int(min_prefix_length) or min_prefix_length < 1:
            raise ValueError(f"Minimum prefix length must be positive, got {min_prefix_length!r}")
        _check_epoch(epoch_num)
        if prefix_count is not None and (not _is_int(prefix_count) or prefix_count < 1):
            raise ValueError(f"Prefix count must be a positive integer, got {prefix_count!r}")
        super().__init__()
        self.base = base
        self.epoch_num = epoch_num
        self.min_prefix_len = min_prefix_length
        self.prefix_count = _world_size() if prefix_count is None else prefix_count
        digits = 1
        while base**digits < self.prefix_count:
            digits += 1
        width = max(digits, min_prefix_length)
        # Reversed, since neighbours then differ in their first character.
        self.prefix_map = [self._format_number(number, width)[::-1] for number in range(self.prefix_count)]

    def generate_prefix(self, rank: int) -> str:
        """-> "<number>/__<rank>_", or "<number>/epoch_<n>/__<rank>_"."""
        return f"{self.prefix_map[rank % len(self.prefix_map)]}/{_epoch_part(self.epoch_num)}__{rank}_"

    @abstractmethod
    def _format_number(self, number: int, length: int) -> str:
        """-> the number in the base, with zeros in front up to the length."""


class BinaryPrefixStrategy(NumericPrefixStrategy):
    """Ranks spread over numbers of the digits 0 and 1. See `NumericPrefixStrategy`.

    Args:
        epoch_num: Goes behind the number; None: nothing does.
        min_prefix_length: Digits at least.
        prefix_count: How many prefixes there are; default: the world size.
    """

    def __init__(
        self, epoch_num: int | None = None, min_prefix_length: int = 10, prefix_count: int | None = None
    ) -> None:
        super().__init__(2, epoch_num, min_prefix_length, prefix_count)

    def _format_number(self, number: int, length: int) -> str:
        return format(number, f"0{length}b")


class HexPrefixStrategy(NumericPrefixStrategy):
    """Ranks spread over numbers of sixteen digits. See `NumericPrefixStrategy`.

    Args:
        epoch_num: Goes behind the number; None: nothing does.
        min_prefix_length: Digits at least.
        prefix_count: How many prefixes there are; default: the world size.
    """

    def __init__(
        self, epoch_num: int | None = None, min_prefix_length: int = 10, prefix_count: int | None = None
    ) -> None:
        super().__init__(16, epoch_num, min_prefix_length, prefix_count)

    def _format_number(self, number: int, length: int) -> str:
        return format(number, f"0{length}x")


class RoundRobinPrefixStrategy(S3PrefixStrategyBase):
    """Ranks spread over prefixes of one's own, in turn: "<prefix>/epoch_<n>/__<rank>_".

    Args:
        user_prefixes: The prefixes.
        epoch_num: Goes behind them; None: nothing does.

    Raises:
        ValueError: There are none, or `epoch_num` is no integer.
    """

    def __init__(self, user_prefixes: Sequence[str], epoch_num: int | None = None) -> None:
        super().__init__()
        if not user_prefixes:
            raise ValueError("user_prefixes must not be empty")
        if isinstance(user_prefixes, str):
            raise ValueError(f"user_prefixes must be a list of prefixes, not the one text {user_prefixes!r}")
        _check_epoch(epoch_num)
        self.user_prefixes: Final = user_prefixes
        self.epoch_num = epoch_num

    def generate_prefix(self, rank: int) -> str:
        """-> "<prefix>/__<rank>_", or "<prefix>/epoch_<n>/__<rank>_"."""
        return f"{self.user_prefixes[rank % len(self.user_prefixes)]}/{_epoch_part(self.epoch_num)}__{rank}_"


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_epoch(epoch_num: object) -> None:
    if epoch_num is not None and not _is_int(epoch_num):
        raise ValueError(f"Epoch number must be None or an integer, got {epoch_num!r}")


def _epoch_part(epoch_num: int | None) -> str:
    return "" if epoch_num is None else f"epoch_{epoch_num}/"


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
