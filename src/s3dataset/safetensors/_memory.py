"""Where the bytes of a file go: tensors of this machine's memory, or of another device by way of buffers."""

from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

import torch

from s3dataset._checkpoint._memory import allocate, view_of
from s3dataset.safetensors._dtypes import dtype_of, shape_of
from s3dataset.safetensors._format import Entry

if TYPE_CHECKING:
    from s3dataset._client import Pieces

__all__ = ["HostMemory", "StagedMemory", "Staging", "bytes_of", "empty_tensor", "raw_of"]

_STAGED: Final = 16
"""Buffers of a part each for a GPU: as many requests as keep a connection of 10 Gbit/s busy, in 128 MiB."""


def empty_tensor(entry: Entry, uri: str, device: torch.device) -> torch.Tensor:
    """A tensor of this type and shape, with memory of its own, to be filled.

    Raises:
        TypeError: This torch has no such type.
    """
    dtype, shape = dtype_of(entry, uri), shape_of(entry)
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    if not entry.nbytes:
        return torch.empty(shape, dtype=dtype)
    tensor: Any = torch.empty(0, dtype=dtype)
    return cast("torch.Tensor", tensor.set_(allocate(entry.nbytes), 0, shape))


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """The memory of a contiguous tensor on the CPU, writable. It does not keep the tensor alive."""
    nbytes = tensor.numel() * tensor.element_size()
    start = tensor.storage_offset() * tensor.element_size()
    return view_of(tensor.untyped_storage())[start : start + nbytes]


def raw_of(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a contiguous tensor, as a tensor of one dimension."""
    return tensor.detach().reshape(-1).view(torch.uint8)


class HostMemory:
    """Bytes of a file that go straight to where they stay. What no tensor wants goes to memory that nobody looks at."""

    def __init__(self, start: int, end: int) -> None:
        self._at = start
        self._end = end
        self._starts: list[int] = []
        self._memory: list[memoryview] = []

    def place(self, start: int, memory: memoryview) -> None:
        """Says where bytes go, in the order of the file.

        Raises:
            ValueError: They do not follow what was said before.
        """
        if start < self._at:
            raise ValueError("places are given in the order of the file")
        self._add(self._at, memoryview(bytearray(start - self._at)))
        self._add(start, memory)

    def _add(self, start: int, memory: memoryview) -> None:
        if len(memory):
            self._starts.append(start)
            self._memory.append(memory)
            self._at = start + len(memory)

    def pieces(self, start: int, end: int) -> "Pieces":
        """The memory of bytes [start, end)."""
        self._add(self._at, memoryview(bytearray(self._end - self._at)))
        found: list[memoryview] = []
        at = bisect_right(self._starts, start) - 1
        while start < end:
            begin = self._starts[at]
            found.append(self._memory[at][start - begin : end - begin])
            start += len(found[-1])
            at += 1
        return found


class Staging:
    """Buffers of this machine's memory, pinned where the device is CUDA's, that bytes pass through to a device.

    A copy runs beside the next requests, on a stream of its own; a buffer is used again when its copy is done.
    """

    def __init__(self, device: torch.device, buffer_bytes: int, count: int = _STAGED) -> None:
        self._stream: Any = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._stream.wait_stream(torch.cuda.current_stream(device))  # memory there may be in use until then
        self._buffer_bytes = buffer_bytes
        self._unmade = count
        self._free: deque[tuple[torch.Tensor, Any]] = deque()

    def take(self) -> torch.Tensor | None:
        """A buffer that nothing is copied from any more; None while all of them wait for bytes."""
        if self._free:
            buffer, copied = self._free.popleft()
            if copied is not None:
                copied.synchronize()
            return buffer
        if not self._unmade:
            return None
        self._unmade -= 1
        return torch.empty(self._buffer_bytes, dtype=torch.uint8, pin_memory=self._stream is not None)

    def give(self, buffer: torch.Tensor, copies: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Starts copies (to, from) out of a buffer, which is free after them."""
        if self._stream is None:
            for to, source in copies:
                to.copy_(source)
            self._free.append((buffer, None))
            return
        with torch.cuda.stream(self._stream):
            for to, source in copies:
                to.copy_(source, non_blocking=True)
            self._free.append((buffer, self._stream.record_event()))

    def finish(self) -> None:
        """Returns when everything is where it belongs."""
        if self._stream is not None:
            self._stream.synchronize()


class StagedMemory:
    """Bytes of a file that go to tensors of another device."""

    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self._starts: list[int] = []
        self._places: list[torch.Tensor] = []
        self._waiting: dict[int, torch.Tensor] = {}

    def place(self, start: int, raw: torch.Tensor) -> None:
        """Says where bytes go, in the order of the file: a tensor of bytes."""
        if raw.numel():
            self._starts.append(start)
            self._places.append(raw)

    def pieces(self, start: int, end: int) -> "Pieces | None":
        buffer = self._staging.take()
        if buffer is None:
            return None
        self._waiting[start] = buffer
        return [view_of(buffer.untyped_storage())[: end - start]]

    def landed(self, start: int, end: int) -> None:
        buffer = self._waiting.pop(start)
        copies = []
        at = max(bisect_right(self._starts, start) - 1, 0)
        while at < len(self._starts) and self._starts[at] < end:
            begin, place = self._starts[at], self._places[at]
            first, last = max(start, begin), min(end, begin + place.numel())
            if first < last:
                copies.append((place[first - begin : last - begin], buffer[first - start : last - start]))
            at += 1
        self._staging.give(buffer, copies)
