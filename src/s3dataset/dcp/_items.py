"""Items of a checkpoint that a load wants: which bytes of them, and how these become tensors."""

import io
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

import torch
from torch.distributed._shard._utils import narrow_tensor_by_index
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlanner, ReadItem

from s3dataset._checkpoint._memory import allocate, view_of
from s3dataset.dcp._archive import HEAD_BYTES, StoredTensor, contiguous_strides, expected, read_head
from s3dataset.errors import S3Exception

__all__ = ["Chunks", "Item", "grouped"]

_LARGE_BYTES: Final = 256 << 10
"""Items of this size and more are worth knowing where their elements begin: they arrive without a copy, or in part."""


class Chunks:
    """What a checkpoint's metadata tells of its stored tensors."""

    def __init__(self, metadata: Metadata | None) -> None:
        self._tensors: Mapping[str, Any] = {} if metadata is None else metadata.state_dict_metadata
        self._sizes: dict[str, dict[Any, tuple[int, ...]]] = {}

    def of(self, index: MetadataIndex) -> tuple[torch.dtype, tuple[int, ...]] | None:
        """Type and size of a stored chunk; None where it is not told."""
        tensor = self._tensors.get(index.fqn)
        if not isinstance(tensor, TensorStorageMetadata):
            return None
        sizes = self._sizes.get(index.fqn)
        if sizes is None:
            sizes = {tuple(chunk.offsets): tuple(chunk.sizes) for chunk in tensor.chunks}
            self._sizes[index.fqn] = sizes
        size = sizes.get(() if index.offset is None else tuple(index.offset))
        return None if size is None else (tensor.properties.dtype, size)


class _Slice:
    """What one destination wants of a stored tensor: elements [first, end) of its storage hold it."""

    __slots__ = ("end", "first", "request")

    def __init__(self, request: ReadItem, strides: tuple[int, ...]) -> None:
        self.request = request
        self.first = sum(offset * stride for offset, stride in zip(request.storage_offsets, strides, strict=True))
        last = sum((length - 1) * stride for length, stride in zip(request.lengths, strides, strict=True))
        self.end = self.first + (0 if 0 in request.lengths else last + 1)

    @property
    def is_contiguous(self) -> bool:
        """Whether it is all of these elements, in the order of the tensor."""
        return self.end - self.first == math.prod(self.request.lengths)


class _Run:
    """Neighbouring elements of a stored tensor, for one destination or for several that overlap."""

    __slots__ = ("_buffer", "_slices", "_target", "end", "first")

    def __init__(self, part: _Slice) -> None:
        self.first, self.end = part.first, part.end
        self._slices = [part]
        self._buffer: torch.Tensor | None = None
        self._target: torch.Tensor | None = None

    def add(self, part: _Slice) -> None:
        self.end = max(self.end, part.end)
        self._slices.append(part)

    def memory(self, planner: LoadPlanner, dtype: torch.dtype) -> memoryview:
        """Of the only destination where that can be; else of a buffer."""
        only = self._slices[0]
        if len(self._slices) == 1 and only.is_contiguous:
            self._target = target = _target_of(planner, only.request)
            if _takes_bytes(target, dtype):
                return _view_of(target)
        storage = allocate((self.end - self.first) * dtype.itemsize)
        self._buffer = torch.empty(0, dtype=dtype).set_(storage)
        return view_of(storage)

    def finish(self, planner: LoadPlanner, dtype: torch.dtype, strides: tuple[int, ...]) -> None:
        for part in self._slices:
            request = part.request
            target = _target_of(planner, request) if self._target is None else self._target
            self._target = None
            if self._buffer is not None:
                target.copy_(torch.as_strided(self._buffer, request.lengths, strides, part.first - self.first))
            elif self.end == self.first:
                target.copy_(torch.empty(request.lengths, dtype=dtype))  # of no elements: their types are compared
            planner.commit_tensor(request, target)
        self._buffer = None


class Item:
    """One stored item, and all that is wanted of it.

    What is asked for depends on what is known: where the elements of a large tensor begin, only those that are wanted;
    else the whole item.

    Attributes:
        path: The object, relative to the checkpoint.
        offset: Where in the object the item begins.
        length: Its bytes.
    """

    __slots__ = ("_chunk", "_head", "_requests", "_runs", "_stored", "_whole", "length", "offset", "path")

    def __init__(self, info: Any, chunk: tuple[torch.dtype, tuple[int, ...]] | None) -> None:
        self.path: str = info.relative_path
        self.offset: int = info.offset
        self.length: int = info.length
        self._chunk = chunk
        self._requests: list[ReadItem] = []
        self._stored: StoredTensor | None = None
        self._runs: list[_Run] = []
        self._head: bytearray | None = None  # to be compared; None: it was seen already
        self._whole: torch.UntypedStorage | None = None

    def add(self, request: ReadItem) -> None:
        """One more destination."""
        self._requests.append(request)

    # -- What is asked for -------------------------------------------------------------------------------------------

    def guess(self) -> bool:
        """Finds out where the elements most likely are -> whether the item's head has to be looked at for that."""
        if self._chunk is None or self.length < _LARGE_BYTES or self._requests[0].type == LoadItemType.BYTE_IO:
            return False
        found = expected(*self._chunk)
        if found is None or found[1] != self.length:
            return True
        self._place(found[0])
        self._head = bytearray(found[0].start)
        return False

    def look(self, head: memoryview) -> None:
        """Learns from the item's first bytes where the elements are."""
        stored = read_head(head)
        if stored is not None and self._is_told(stored):
            self._place(stored)

    def forget(self) -> None:
        """From now on the whole item is asked for."""
        self._stored = self._head = None
        self._runs = []

    def _is_told(self, stored: StoredTensor) -> bool:
        """Whether it is what the checkpoint's metadata says."""
        return (
            stored.is_contiguous
            and (stored.dtype, stored.size) == self._chunk
            and stored.start + stored.nbytes <= self.length
        )

    def _place(self, stored: StoredTensor) -> None:
        self._stored = stored
        strides = contiguous_strides(stored.size)
        self._runs = []
        for part in sorted((_Slice(request, strides) for request in self._requests), key=lambda part: part.first):
            if self._runs and part.first < self._runs[-1].end:
                self._runs[-1].add(part)
            else:
                self._runs.append(_Run(part))

    def ranges(self) -> list[tuple[int, int]]:
        """What is wanted: bytes [start, end) of the object, none of them empty."""
        if self._stored is None:
            spans = [(0, self.length)]
        else:
            first, itemsize = self._stored.start, self._stored.dtype.itemsize
            spans = [] if self._head is None else [(0, first)]
            spans += [(first + run.first * itemsize, first + run.end * itemsize) for run in self._runs]
        return [(self.offset + start, self.offset + end) for start, end in spans if end > start]

    def memory(self, planner: LoadPlanner) -> list[memoryview]:
        """Where these go, in their order."""
        if self._stored is None:
            self._whole = allocate(self.length)
            return [view_of(self._whole)] if self.length else []
        views = [] if self._head is None else [memoryview(self._head)]
        return views + [run.memory(planner, self._stored.dtype) for run in self._runs if run.end > run.first]

    # -- What becomes of it ------------------------------------------------------------------------------------------

    def finish(self, planner: LoadPlanner) -> bool:
        """With all bytes there: hands them to the planner -> False if the guess was wrong.

        Raises:
            S3Exception: The item is broken.
            ValueError: It has another size than the planner's tensor.
        """
        stored = self._stored
        if stored is not None:
            if self._head is not None and read_head(memoryview(self._head)) != stored:
                return False
            for run in self._runs:
                run.finish(planner, stored.dtype, contiguous_strides(stored.size))
            self._runs = []
        elif self._requests[0].type == LoadItemType.BYTE_IO:
            for request in self._requests:
                planner.load_bytes(request, io.BytesIO(b"" if self._whole is None else view_of(self._whole)))
        else:
            tensor = self._decoded()
            for request in self._requests:
                target = _target_of(planner, request)
                target.copy_(narrow_tensor_by_index(tensor, request.storage_offsets, request.lengths))
                planner.commit_tensor(request, target)
        self._whole = None
        return True

    def _decoded(self) -> torch.Tensor:
        whole = self._whole
        if whole is None:
            raise self._broken("it is empty")
        stored = read_head(view_of(whole)[:HEAD_BYTES])
        if (
            stored is not None
            and stored.start + stored.nbytes <= self.length
            and not stored.start % stored.dtype.itemsize
        ):
            at = stored.start // stored.dtype.itemsize + stored.offset
            return torch.empty(0, dtype=stored.dtype).set_(whole, at, stored.size, stored.strides)
        try:
            return torch.load(io.BytesIO(view_of(whole)), map_location="cpu", weights_only=True)  # type: ignore[no-any-return]
        except Exception as error:
            raise self._broken(str(error)) from error

    def _broken(self, why: str) -> S3Exception:
        names = ", ".join(sorted({request.storage_index.fqn for request in self._requests}))
        return S3Exception(
            f"{names} cannot be read from bytes [{self.offset}, {self.offset + self.length}) of {self.path}: {why}"
        )


def grouped(
    requests: Iterable[ReadItem], storage_data: Mapping[MetadataIndex, Any], chunks: Chunks
) -> tuple[list[Item], list[ReadItem]]:
    """-> stored items with all that is wanted of them, and what has to be read as a stream."""
    items: dict[MetadataIndex, Item] = {}
    streamed: list[ReadItem] = []
    for request in requests:
        index = request.storage_index
        info = storage_data[index]
        if getattr(info, "transform_descriptors", None):
            streamed.append(request)
            continue
        item = items.get(index)
        if item is None:
            item = items[index] = Item(info, chunks.of(index))
        item.add(request)
    return list(items.values()), streamed


def _target_of(planner: LoadPlanner, request: ReadItem) -> torch.Tensor:
    target = planner.resolve_tensor(request).detach()
    if target.size() != torch.Size(request.lengths):
        raise ValueError(
            f"{request.dest_index.fqn} takes a tensor of size {tuple(target.size())}, and the plan has one of "
            f"{tuple(request.lengths)} for it"
        )
    return target


def _takes_bytes(target: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether the stored bytes are its memory's."""
    return (
        type(target) is torch.Tensor
        and target.device.type == "cpu"
        and target.layout == torch.strided
        and target.dtype == dtype
        and target.is_contiguous()
        and not target.is_conj()
        and not target.is_neg()
    )


def _view_of(target: torch.Tensor) -> memoryview:
    start = target.storage_offset() * target.dtype.itemsize
    return view_of(target.untyped_storage())[start : start + target.nbytes]
