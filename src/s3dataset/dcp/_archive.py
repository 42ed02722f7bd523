"""Where in the bytes that torch.save writes of one tensor its elements lie.

Such an item of a checkpoint is an archive: a pickle, a few short records, the elements, the directory. Only what stands
before the elements is looked at, and only the pickles that torch writes of plain tensors are understood; torch.load has
to read everything else.
"""

import io
import pickle
import sys
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import torch

from s3dataset._checkpoint._skeleton import Skeleton
from s3dataset._torch_archive import data_start

__all__ = ["HEAD_BYTES", "StoredTensor", "contiguous_strides", "expected", "read_head"]

HEAD_BYTES: Final = 2048
"""So many bytes of an item hold what stands before the elements: 448 or 704, more with sizes of many dimensions."""

_LOCAL_HEADER: Final = b"PK\x03\x04"
_LOCAL_HEADER_BYTES: Final = 30
_METHOD_AT: Final = 8
_MOST_RECORDS: Final = 8
_DTYPES: Final = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A plain tensor in an item."""

    dtype: torch.dtype
    start: int
    """Byte of the item at which its storage begins."""
    nbytes: int
    """Of the storage."""
    offset: int
    """Element of the storage at which the tensor begins."""
    size: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements are the storage, in the order of their indices."""
        return self.offset == 0 and (
            self.strides == contiguous_strides(self.size) or _is_contiguous(self.size, self.strides)
        )


def contiguous_strides(size: tuple[int, ...]) -> tuple[int, ...]:
    """Strides, in elements, of a tensor of this size whose elements lie in the order of their indices."""
    strides = []
    step = 1
    for length in reversed(size):
        strides.append(step)
        step *= max(length, 1)
    return tuple(reversed(strides))


def _is_contiguous(size: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    step = 1
    for length, stride in zip(reversed(size), reversed(strides), strict=True):
        if length == 0:
            return True
        if length > 1 and stride != step:  # that of a dimension of one element means nothing
            return False
        step *= length
    return True


def read_head(head: bytes | memoryview) -> StoredTensor | None:
    """What an item is whose first bytes these are; None where torch.load has to be asked."""
    data = bytes(head)
    at = 0
    found: tuple[str, _Described] | None = None
    for _ in range(_MOST_RECORDS):
        start = data_start(data[at : at + _LOCAL_HEADER_BYTES], at)
        if start is None or start > len(data) or data[at + _METHOD_AT : at + _METHOD_AT + 2] != b"\0\0":
            return None
        name_bytes = int.from_bytes(data[at + 26 : at + 28], "little")
        name = data[at + _LOCAL_HEADER_BYTES : at + _LOCAL_HEADER_BYTES + name_bytes].decode("utf-8", "replace")
        folder, _, record = name.partition("/")
        if record == "data.pkl":
            described, end = _unpickle(data, start)
            if described is None:
                return None
            found = folder, described
        elif record == "byteorder":
            end = start + len(sys.byteorder)
            if data[start:end] != sys.byteorder.encode():
                return None
        elif found is not None and name == f"{found[0]}/data/{found[1].key}":
            return found[1].at(start)
        else:
            end = start
        at = data.find(_LOCAL_HEADER, end)
        if at < 0:
            return None
    return None


@lru_cache(maxsize=4096)
def expected(dtype: torch.dtype, size: tuple[int, ...]) -> tuple[StoredTensor, int] | None:
    """How this torch writes a contiguous tensor, and the length of it; None where it cannot tell (before 2.6)."""
    if not Skeleton.is_possible():
        return None
    try:
        skeleton = Skeleton(torch.empty(size, dtype=dtype))  # memory that nobody touches
    except RuntimeError:
        return None  # more than there is
    stored = read_head(next(skeleton.pieces())[0][:HEAD_BYTES])
    return None if stored is None else (stored, skeleton.nbytes)


# -- The pickle --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Storage:
    dtype: torch.dtype | None
    """None: of bytes; the tensor's own is told."""
    key: str
    length: int


@dataclass(frozen=True, slots=True)
class _Described:
    dtype: torch.dtype
    key: str
    nbytes: int
    offset: int
    size: tuple[int, ...]
    strides: tuple[int, ...]

    def at(self, start: int) -> StoredTensor:
        return StoredTensor(self.dtype, start, self.nbytes, self.offset, self.size, self.strides)


class _UnknownError(Exception):
    """It is no plain tensor."""


class _Unpickler(pickle.Unpickler):
    """Knows the few names that the pickle of a plain tensor has, and makes a description of it. Runs nothing."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_tensor_v3"):
            return _describe if name.endswith("v2") else _describe_v3
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) == ("torch.storage", "UntypedStorage"):
            return None
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise _UnknownError

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _location, length = pid
        if kind != "storage":
            raise _UnknownError
        return _Storage(dtype, key, length)


def _describe(
    storage: _Storage,
    offset: int,
    size: tuple[int, ...],
    strides: tuple[int, ...],
    _requires_grad: bool,
    _hooks: Any,
    metadata: Any = None,
) -> _Described:
    return _describe_v3(storage, offset, size, strides, False, None, storage.dtype, metadata)


def _describe_v3(
    storage: _Storage,
    offset: int,
    size: tuple[int, ...],
    strides: tuple[int, ...],
    _requires_grad: bool,
    _hooks: Any,
    dtype: torch.dtype | None,
    metadata: Any = None,
) -> _Described:
    if dtype is None or metadata:  # such as: conjugated
        raise _UnknownError
    itemsize = 1 if storage.dtype is None else storage.dtype.itemsize
    return _Described(dtype, storage.key, storage.length * itemsize, offset, tuple(size), tuple(strides))


def _unpickle(data: bytes, start: int) -> tuple[_Described | None, int]:
    """-> what the pickle describes, and where it ends."""
    file = io.BytesIO(data)
    file.seek(start)
    try:
        described = _Unpickler(file).load()
    except Exception:  # noqa: BLE001 - whatever is in it: torch.load will say what is wrong with it
        return None, start
    if not isinstance(described, _Described):
        return None, start
    fits = described.offset >= 0 and len(described.size) == len(described.strides)
    last = described.offset + sum(
        (length - 1) * stride for length, stride in zip(described.size, described.strides, strict=False)
    )
    if not fits or min((*described.size, *described.strides, 0)) < 0:
        return None, start
    if 0 not in described.size and (last + 1) * described.dtype.itemsize > described.nbytes:
        return None, start
    return described, file.tell()
