"""Memory of torch's storages as Python sees it."""

import base64
import ctypes
from typing import Any

import torch

from s3dataset._client import checksum, prefer_huge_pages

__all__ = ["allocate", "crc32_of", "view_of"]

_HUGE_FROM_BYTES = 4 << 20


def view_of(storage: torch.UntypedStorage) -> memoryview:
    """The bytes of a storage on the CPU, writable. It does not keep the storage alive."""
    nbytes = storage.nbytes()
    if not nbytes:
        return memoryview(b"")
    return memoryview((ctypes.c_char * nbytes).from_address(storage.data_ptr())).cast("B")


def allocate(nbytes: int) -> torch.UntypedStorage:
    """A storage on the CPU, to be filled."""
    make: Any = torch.UntypedStorage
    storage: torch.UntypedStorage = make(nbytes, device="cpu")
    if nbytes >= _HUGE_FROM_BYTES:
        prefer_huge_pages(view_of(storage))
    return storage


def crc32_of(data: memoryview) -> int:
    """As in zip archives."""
    return int.from_bytes(base64.b64decode(checksum("CRC32", data)), "big")
