"""A rank's items as data objects: dealt out, and each object sent from the tensors' memory."""

import heapq
import io
import math
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from inspect import signature
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import torch
from torch.distributed.checkpoint import filesystem
from torch.distributed.checkpoint.planner import SavePlanner, WriteItem, WriteItemType
from torch.distributed.checkpoint.storage import WriteResult

from s3dataset._checkpoint._parts import Cutter
from s3dataset._checkpoint._save import skeleton_of
from s3dataset._checkpoint._skeleton import Skeleton
from s3dataset.errors import CancelledError

if TYPE_CHECKING:
    from s3dataset._io import S3Writer

__all__ = ["DataObject", "can_send_held", "dealt", "send_held", "send_streamed", "side_by_side"]

_THREADS: Final = 16
"""For objects of one item each, which are many and mostly small."""


class DataObject(NamedTuple):
    """A data object to be written."""

    name: str
    """Relative to the checkpoint."""
    items: list[WriteItem]
    is_unique: bool
    """Whether the name was made for this save, so that nothing can be there."""


def dealt(items: Sequence[WriteItem], count: int) -> list[list[WriteItem]]:
    """Deals items out over `count` objects of about the same size, each in the items' order.

    Neighbours of the plan are what is loaded together, a model without its optimizer's state for one.
    """
    if count == 1:
        return [list(items)]
    heap = [(0, place) for place in range(count)]
    of_item: dict[int, int] = {}
    for position in sorted(range(len(items)), key=lambda position: -_nbytes(items[position])):
        filled, place = heapq.heappop(heap)
        of_item[position] = place
        heapq.heappush(heap, (filled + max(_nbytes(items[position]), 1), place))
    shares: list[list[WriteItem]] = [[] for _ in range(count)]
    for position, item in enumerate(items):
        shares[of_item[position]].append(item)
    return shares


def _nbytes(item: WriteItem) -> int:
    """Of a tensor; what else there is, is small and not known before it is pickled."""
    data = item.tensor_data
    return 0 if data is None else math.prod(data.size) * data.properties.dtype.itemsize


# -- Zero-copy ---------------------------------------------------------------------------------------------------------


class _Part:
    """One item as torch.save's bytes."""

    __slots__ = ("_data", "_tensor", "nbytes")

    def __init__(self, nbytes: int, data: "Skeleton | bytes | memoryview | None", tensor: torch.Tensor | None) -> None:
        self.nbytes = nbytes
        self._data = data
        self._tensor = tensor

    @classmethod
    def of_bytes(cls, data: io.BytesIO) -> "_Part":
        # Not getbuffer(): a file that is collected together with a view of it says so on stderr (Python 3.13).
        whole = data.getvalue()  # no copy
        return cls(len(whole), whole, None)

    @classmethod
    def of_tensor(cls, tensor: torch.Tensor, lengths: dict[Any, int]) -> "_Part":
        """A tensor that is copied first, from a GPU or out of a larger storage, is so when its turn has come.

        Args:
            tensor: As the planner gives it.
            lengths: Of plain tensors as torch.save writes them, by type, size and strides.
        """
        tensor = tensor.detach()
        if _is_plain(tensor) and not _is_alone(tensor):
            like = _strides_of_a_copy(tensor)
            key = tensor.dtype, tuple(tensor.size()), like
            if key not in lengths:
                lengths[key] = Skeleton(torch.empty_strided(tensor.size(), like, dtype=tensor.dtype)).nbytes
            return cls(lengths[key], None, tensor)
        tensor = _on_cpu(tensor)
        skeleton = skeleton_of(tensor)
        if skeleton is not None:
            return cls(skeleton.nbytes, skeleton, None)
        file = io.BytesIO()
        torch.save(tensor, file)
        return cls.of_bytes(file)

    def pieces(self) -> Iterator[tuple[memoryview, object]]:
        if isinstance(self._data, Skeleton):
            skeleton = self._data
        elif self._tensor is None:
            yield memoryview(cast("memoryview", self._data)), self._data
            return
        else:
            skeleton = Skeleton(_copied(self._tensor))
        self._data = self._tensor = None
        if skeleton.nbytes != self.nbytes:
            raise RuntimeError("a tensor's size or type was changed while it was saved")
        yield from skeleton.pieces()


def _is_plain(tensor: torch.Tensor) -> bool:
    return (
        type(tensor) is torch.Tensor
        and tensor.layout == torch.strided
        and not tensor.is_quantized
        and not tensor.is_conj()
        and not tensor.is_neg()
    )


def _is_alone(tensor: torch.Tensor) -> bool:
    """Whether it can be sent from where it is: its storage holds nothing else."""
    return tensor.device.type == "cpu" and tensor.untyped_storage().nbytes() == tensor.nbytes


def _strides_of_a_copy(tensor: torch.Tensor) -> tuple[int, ...]:
    return torch.empty_like(tensor, device="meta").stride()


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of the CPU with a storage of its own."""
    copy = torch.empty_strided(tensor.size(), _strides_of_a_copy(tensor), dtype=tensor.dtype)
    return copy.copy_(tensor)


def _on_cpu(tensor: torch.Tensor) -> torch.Tensor:
    """As torch's own writer does it, for tensors of all kinds."""
    tensor = tensor.cpu()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def can_send_held(writer: filesystem.FileSystemWriter) -> bool:
    """Whether objects can be sent from the tensors' memory: with this torch, and with what the writer was told."""
    transforms = getattr(writer, "transforms", None)
    form = getattr(writer, "serialization_format", None)
    return (
        Skeleton.is_possible()
        and not getattr(transforms, "extensions", ())
        and (form is None or form.name == "TORCH_SAVE")
    )


def send_held(
    open_writer: "Callable[[int], S3Writer]", target: DataObject, planner: SavePlanner, stop: threading.Event
) -> list[WriteResult]:
    """Sends an object straight from the tensors' memory.

    Args:
        open_writer: Of an object of so many bytes.
        target: What to write.
        planner: Has the data.
        stop: Ends it with a `CancelledError`.

    Raises:
        S3Exception: It was not saved.
    """
    lengths: dict[Any, int] = {}
    parts: deque[_Part] = deque()
    results: list[WriteResult] = []
    nbytes = 0
    for item in sorted(target.items, key=lambda item: item.type != WriteItemType.BYTE_IO):
        data = planner.resolve_data(item)
        part = _Part.of_tensor(data, lengths) if isinstance(data, torch.Tensor) else _Part.of_bytes(data)
        place = filesystem._StorageInfo(target.name, nbytes, part.nbytes)  # noqa: SLF001 - part of the format
        results.append(WriteResult(index=item.index, size_in_bytes=part.nbytes, storage_data=place))
        parts.append(part)
        nbytes += part.nbytes

    def all_pieces() -> Iterator[tuple[memoryview, object]]:
        while parts:
            yield from parts.popleft().pieces()

    cutter = Cutter(all_pieces())

    def take(nbytes: int) -> tuple[list[memoryview], object]:
        if stop.is_set():
            raise CancelledError(f"{target.name} was given up, because another object of this rank was not saved")
        return cutter(nbytes)

    writer = open_writer(nbytes)
    if nbytes:
        writer.save_held(nbytes, take)
    else:
        writer.close()
    return results


def send_streamed(
    open_writer: "Callable[[], S3Writer]", target: DataObject, planner: SavePlanner, writer: filesystem.FileSystemWriter
) -> list[WriteResult]:
    """Writes an object by torch's own code: with stream transforms, in other formats, and before torch 2.6.

    Raises:
        S3Exception: It was not saved.
    """

    @contextmanager
    def create_stream(_path: Any, _mode: str) -> "Iterator[S3Writer]":
        with open_writer() as stream:
            yield stream

    todo: queue.Queue[Any] = queue.Queue()
    todo.put((target.name, target.name, target.items))
    done: queue.Queue[list[WriteResult]] = queue.Queue()
    known = {
        "create_stream": create_stream,
        "file_queue": todo,
        "result_queue": done,
        "planner": planner,
        "transforms": getattr(writer, "transforms", None),
        "inflight_threshhold": writer.per_thread_copy_ahead,
        "use_fsync": False,
        "thread_count": writer.thread_count,
        "serialization_format": getattr(writer, "serialization_format", None),
    }
    write: Any = filesystem._write_files_from_queue  # noqa: SLF001 - what FileSystemWriter's threads run
    write(**{name: known[name] for name in signature(write).parameters})
    return done.get_nowait()


def side_by_side(
    targets: Sequence[DataObject],
    write: Callable[[DataObject], list[WriteResult]],
    thread_count: int,
    stop: threading.Event,
) -> list[WriteResult]:
    """Writes objects in threads, all or none -> what was written.

    Raises:
        S3Exception: The first failure; the others were given up.
    """
    if len(targets) <= 1:  # none: another rank writes all that this one has
        return [result for target in targets for result in write(target)]
    with ThreadPoolExecutor(min(len(targets), max(thread_count, _THREADS)), "s3dataset-dcp") as pool:
        futures = [pool.submit(write, target) for target in targets]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            if not all(future.done() and not future.cancelled() and future.exception() is None for future in futures):
                stop.set()
                for future in futures:
                    future.cancel()
    _raise_first(futures)
    return [result for future in futures for result in future.result()]


def _raise_first(futures: "Sequence[Future[Any]]") -> None:
    """Raises what went wrong first, rather than what was given up because of it."""
    errors = [error for future in futures if not future.cancelled() and (error := future.exception()) is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, CancelledError)):
        raise error
