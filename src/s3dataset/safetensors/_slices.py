"""Which bytes of a stored tensor an index is about. Pure: knows neither torch nor S3."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types import EllipsisType

__all__ = ["Block", "blocks_of", "box_of"]

_BRIDGED: Final = 256 << 10
"""Bytes that are read and dropped rather than asking twice: a request costs as much as moving them."""
_SPAN: Final = 8 << 20
"""Bytes of a request that bridges gaps, unless a single row has more."""

Box = tuple[tuple[int, int], ...]
"""[start, stop) in each dimension."""


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes of a file that hold a part of a box.

    Attributes:
        start: The first, from the beginning of the tensor's data.
        nbytes: How many.
        where: The part, as an index of the box.
        dense: Whether nothing lies between the elements.
    """

    start: int
    nbytes: int
    where: tuple[slice, ...]
    dense: bool


def box_of(shape: Sequence[int], index: Any) -> tuple[Box, tuple[Any, ...]]:
    """The smallest box that an index of a tensor reaches into, and what the index is within that box.

    Of integers and slices with whatever step; a dimension that anything else picks from belongs to the box as a whole.

    Raises:
        IndexError: The index is out of bounds, or has too many dimensions.
        ValueError: A step is not positive.
    """
    items = list(index) if isinstance(index, tuple) else [index]
    taken = sum(_dimensions(item) for item in items)
    if sum(item is Ellipsis for item in items) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    if taken > len(shape):
        raise IndexError(f"too many indices for tensor of dimension {len(shape)}")
    rest: list[EllipsisType | slice] = [slice(None)] * (len(shape) - taken)
    for at, item in enumerate(items):
        if item is Ellipsis:
            items[at : at + 1] = rest
            break
    else:
        items += rest
    box: list[tuple[int, int]] = []
    within: list[Any] = []
    for item in items:
        length = shape[len(box)] if len(box) < len(shape) else 0
        if isinstance(item, bool) or item is None:
            within.append(item)
        elif isinstance(item, slice):
            start, stop, step = item.indices(length) if item.step is None or item.step > 0 else (0, 0, 0)
            if not step:
                raise ValueError("step must be greater than zero")
            count = max(0, -(-(stop - start) // step))
            box.append((start, start + (count - 1) * step + 1) if count else (0, 0))
            within.append(slice(None, None, step))
        elif _is_integer(item):
            at = item.__index__()
            if not -length <= at < length:
                raise IndexError(f"index {at} is out of bounds for dimension {len(box)} with size {length}")
            box.append((at % length, at % length + 1))
            within.append(0)
        else:
            dimensions = _dimensions(item)
            box += [(0, length) for length in shape[len(box) : len(box) + dimensions]]
            within.append(item)
    return tuple(box), tuple(within)


def _is_integer(item: Any) -> bool:
    return hasattr(item, "__index__") and not getattr(item, "shape", ()) and _dimensions(item) == 1


def _dimensions(item: Any) -> int:
    """How many dimensions of the tensor a part of its index is about."""
    if item is None or item is Ellipsis or isinstance(item, bool):
        return 0
    if str(getattr(item, "dtype", "")).rpartition(".")[2] in {"bool", "uint8"}:  # a mask
        return len(item.shape)
    if isinstance(item, float | str | bytes):
        raise IndexError(
            "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid indices (got "
            f"{type(item).__name__})"
        )
    return 1


def blocks_of(shape: Sequence[int], box: Box, itemsize: int, *, any_length: bool) -> Iterator[Block]:
    """The bytes of a box of a tensor that lies row by row.

    Small gaps are bridged: such blocks have no more than a few MiB, unless a single element of their first dimension
    has. `any_length`: blocks without a gap may be as long as they are.
    """
    counts = [stop - start for start, stop in box]
    if not all(counts):
        return
    ndim = len(shape)
    strides = [itemsize] * ndim
    for at in range(ndim - 2, -1, -1):
        strides[at] = strides[at + 1] * shape[at + 1]
    extents = [itemsize] * (ndim + 1)
    dense = [True] * (ndim + 1)
    bridged = [True] * (ndim + 1)
    for at in range(ndim - 1, -1, -1):
        extents[at] = (counts[at] - 1) * strides[at] + extents[at + 1]
        gap = strides[at] - extents[at + 1] if counts[at] > 1 else 0
        dense[at] = dense[at + 1] and not gap
        bridged[at] = bridged[at + 1] and gap <= _BRIDGED

    def blocks(at: int, start: int, where: tuple[slice, ...]) -> Iterator[Block]:
        if at < ndim:
            start += box[at][0] * strides[at]
        if bridged[at]:
            if at == ndim or extents[at] <= _SPAN or (dense[at] and any_length):
                rest = sum(first * stride for (first, _), stride in zip(box[at + 1 :], strides[at + 1 :], strict=True))
                yield Block(start + rest, extents[at], where, dense[at])
                return
            rows = _SPAN // strides[at]
            if rows:
                rest = sum(first * stride for (first, _), stride in zip(box[at + 1 :], strides[at + 1 :], strict=True))
                for row in range(0, counts[at], rows):
                    count = min(rows, counts[at] - row)
                    nbytes = (count - 1) * strides[at] + extents[at + 1]
                    part = (*where, slice(row, row + count))
                    yield Block(start + row * strides[at] + rest, nbytes, part, dense[at])
                return
        for row in range(counts[at]):
            yield from blocks(at + 1, start + row * strides[at], (*where, slice(row, row + 1)))

    yield from blocks(0, 0, ())
