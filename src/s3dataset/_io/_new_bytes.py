"""A bytes object whose content is read straight into it.

`read()` must return bytes. Reading into other memory first and copying would hold a large object twice and touch fresh
memory a second time (0.4 CPU s/GB in 4 KiB pages). CPython lets the creator of a bytes object fill it before anyone
else sees it (`PyBytes_FromStringAndSize` with NULL); the only way to that from Python is ctypes.
"""

import ctypes
import mmap
from typing import Any, Final

__all__ = ["new_bytes"]

_PYBUF_WRITE: Final = 0x200
_HUGE_PAGE_BYTES: Final = 2 << 20
_HUGE_FROM_BYTES: Final = 4 * _HUGE_PAGE_BYTES  # numpy, too, asks for huge pages from about this size on

_from_string_and_size = ctypes.pythonapi.PyBytes_FromStringAndSize
_from_string_and_size.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t]
_from_string_and_size.restype = ctypes.py_object

_as_string = ctypes.pythonapi.PyBytes_AsString
_as_string.argtypes = [ctypes.py_object]
_as_string.restype = ctypes.c_void_p

_view_from_memory = ctypes.pythonapi.PyMemoryView_FromMemory
_view_from_memory.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int]
_view_from_memory.restype = ctypes.py_object


def _find_madvise() -> Any:
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    if madvise is not None:
        madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return madvise


_madvise: Final = _find_madvise()


def new_bytes(nbytes: int) -> tuple[bytes, memoryview]:
    """A bytes object of undefined content, and a writable view of its memory.

    The view does not keep the bytes alive: the caller holds them until the last view is gone, shows them to nobody
    before every byte is written, and writes none afterwards.

    Args:
        nbytes: at least 2. Shorter bytes objects are shared by the interpreter and must never be written.
    """
    if nbytes < 2:
        raise ValueError("bytes of fewer than 2 bytes are shared by the interpreter")
    data: bytes = _from_string_and_size(None, nbytes)
    address: int = _as_string(data)
    if nbytes >= _HUGE_FROM_BYTES and _madvise is not None:
        # Advice only: where it is not taken, the pages are small.
        start = -(-address // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES
        end = (address + nbytes) // _HUGE_PAGE_BYTES * _HUGE_PAGE_BYTES
        _madvise(start, end - start, mmap.MADV_HUGEPAGE)
    view: memoryview = _view_from_memory(address, nbytes, _PYBUF_WRITE)
    return data, view
