"""The reader constructor that knows which ranges a plan of torch.distributed.checkpoint needs."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

from s3dataset._client import Client, ClientRef
from s3dataset._io._constructor import ReaderConstructor, S3ReaderConstructorProtocol
from s3dataset._io._policy import dcp_optimized
from s3dataset._io._reader import S3Reader

__all__ = ["DEFAULT_MAX_GAP_BYTES", "DCPOptimizedConstructor", "DCPS3ReaderConstructorProtocol", "ItemRange"]

DEFAULT_MAX_GAP_BYTES: Final = 32 << 20


@dataclass(frozen=True, slots=True)
class ItemRange:
    """Bytes [start, end) of a file, which hold one item."""

    start: int
    end: int


@runtime_checkable
class DCPS3ReaderConstructorProtocol(S3ReaderConstructorProtocol, Protocol):
    """A reader constructor that wants to know what will be read."""

    def set_item_ranges_by_file(
        self, plan_items: Iterable[Any], storage_data: Mapping[Any, Any], base_path: str | os.PathLike[str]
    ) -> None:
        """Is told the items of a plan, where each is stored, and the URI that relative paths belong to."""
        ...


class DCPOptimizedConstructor(ReaderConstructor):
    """Makes readers for files of torch.distributed.checkpoint: `S3ReaderConstructor.dcp_optimized()`.

    Of a file whose items it was told, a reader fetches exactly those ahead; others are read like any object.

    Args:
        max_gap_size: Bytes between two ranges that may be fetched along; more than 128 KiB never are, because a
            further request is cheaper. May be infinite.

    Raises:
        ValueError: `max_gap_size` is negative or not a number.
        TypeError: It is no number.
    """

    __setattr__ = object.__setattr__  # what it derives from is frozen; this one is told ranges
    __delattr__ = object.__delattr__

    def __init__(self, max_gap_size: float = DEFAULT_MAX_GAP_BYTES) -> None:
        if isinstance(max_gap_size, bool) or not isinstance(max_gap_size, int | float):
            raise TypeError(f"max_gap_size must be a number of bytes, not {type(max_gap_size).__name__}")
        if not max_gap_size >= 0:
            raise ValueError(f"max_gap_size must be non-negative, not {max_gap_size}")
        super().__init__(dcp_optimized(max_gap_size))
        self._item_ranges_by_file: dict[str, list[ItemRange]] = {}

    def set_item_ranges_by_file(
        self, plan_items: Iterable[Any], storage_data: Mapping[Any, Any], base_path: str | os.PathLike[str]
    ) -> None:
        """Notes what will be read, in place of what was noted before.

        Args:
            plan_items: Of a LoadPlan.
            storage_data: Where each is stored: file, offset, length.
            base_path: The URI that the files' names belong to.

        Raises:
            ValueError: There are items, but nothing is said of where they are stored.
        """
        items = list(plan_items)
        if items and not storage_data:
            raise ValueError("storage_data must not be empty: it tells where the items of the plan are stored")
        ranges: dict[str, list[ItemRange]] = {}
        for item in items:
            info = storage_data[item.storage_index]
            uri = os.path.join(base_path, info.relative_path)  # noqa: PTH118 - a URI
            ranges.setdefault(uri, []).append(ItemRange(info.offset, info.offset + info.length))
        self._item_ranges_by_file = ranges

    def open(self, client: Client | ClientRef, bucket: str, key: str, **known: Any) -> S3Reader:
        reader = super().open(client, bucket, key, **known)
        ranges = self._item_ranges_by_file.get(f"s3://{bucket}/{key}")
        if ranges:
            reader.expect(_joined(ranges))
        return reader

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (self.policy.gap_bytes, self._item_ranges_by_file)


def _joined(ranges: list[ItemRange]) -> list[tuple[int, int]]:
    """Without overlaps: one item may be read for several tensors."""
    joined: list[tuple[int, int]] = []
    for item in sorted(ranges, key=lambda item: item.start):
        if joined and item.start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], item.end))
        else:
            joined.append((item.start, item.end))
    return joined


def _made(max_gap_bytes: int, ranges: dict[str, list[ItemRange]]) -> DCPOptimizedConstructor:
    constructor = DCPOptimizedConstructor(max_gap_bytes)
    constructor._item_ranges_by_file = ranges  # noqa: SLF001 - its own class
    return constructor
