"""Stacking a batch of tensors into the shared memory that brings it to the loop.

PyTorch copies each tensor into pages that are new and have to be cleared and mapped first, one fault a page: in a
worker that is more than half of what a batch costs once its bytes are there. Written through the file descriptor they
are filled by the kernel, in one call and without a fault. What comes of it is the same kind of tensor.
"""

import ctypes
import errno
import os
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import torch
import torch.multiprocessing
from torch.utils.data._utils.collate import collate_tensor_fn, default_collate_fn_map

__all__ = ["stack_by_writing"]

_LEAST_BYTES: Final = 16 << 10
"""Of a tensor: with less Python's share of the work, some 3 us each, outweighs the few faults saved."""

_MOST_PIECES: Final = 512
"""Of one call; Linux takes 1,024."""


@cache
def stack_by_writing() -> None:
    """Has torch's `default_collate` in this process, a DataLoader worker, stack large tensors so."""
    # Where somebody has said how tensors are collated, that holds.
    is_torchs = default_collate_fn_map.get(torch.Tensor) is collate_tensor_fn
    if sys.platform == "linux" and is_torchs and hasattr(torch.UntypedStorage, "_share_fd_cpu_"):
        default_collate_fn_map[torch.Tensor] = _stacked


def _stacked(batch: list[torch.Tensor], *, collate_fn_map: Any = None) -> torch.Tensor:
    if not _can_be_written(batch):
        stacked: torch.Tensor = collate_tensor_fn(batch, collate_fn_map=collate_fn_map)
        return stacked
    first = batch[0]
    nbytes = len(batch) * first.nbytes
    storage = torch.UntypedStorage._new_shared(nbytes, device="cpu")  # type: ignore[no-untyped-call] # noqa: SLF001 - as PyTorch does in this place
    descriptor, _ = storage._share_fd_cpu_()  # the storage keeps and closes it
    try:
        _write(descriptor, [_memory(tensor) for tensor in batch])
    except OSError as error:
        if error.errno == errno.ENOSPC:
            error.add_note(
                "Batches of DataLoader workers come through shared memory (/dev/shm), and there is no room left. Give "
                "the container more (docker run --shm-size=8g; Kubernetes: an emptyDir of medium Memory at /dev/shm), "
                "or take fewer workers, a smaller prefetch_factor or smaller batches"
            )
        raise
    return first.new_empty(0).set_(storage).view(len(batch), *first.shape)


def _memory(tensor: torch.Tensor) -> memoryview:
    """Its bytes, which live as long as it does. PyTorch's own way there needs NumPy, which not everybody has."""
    return memoryview((ctypes.c_ubyte * tensor.nbytes).from_address(tensor.data_ptr())).cast("B")


def _can_be_written(batch: Sequence[torch.Tensor]) -> bool:
    """Whether all are plain memory of one shape. What is odd about others is PyTorch's affair to say."""
    if not all(map(_is_plain, batch)):
        return False
    first = batch[0]
    shape, dtype = first.shape, first.dtype
    return (
        first.nbytes >= _LEAST_BYTES
        and torch.multiprocessing.get_sharing_strategy() == "file_descriptor"  # type: ignore[no-untyped-call]
        and all(tensor.shape == shape and tensor.dtype == dtype for tensor in batch)
    )


def _is_plain(tensor: torch.Tensor) -> bool:
    return (
        type(tensor) is torch.Tensor
        and not tensor.is_nested
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not (tensor.is_quantized or tensor.is_conj() or tensor.is_neg() or tensor._is_zerotensor())  # noqa: SLF001 - as PyTorch tells them
        and not tensor.requires_grad
        and tensor.is_contiguous()
    )


def _write(descriptor: int, pieces: list[memoryview]) -> None:
    at, offset = 0, 0
    while at < len(pieces):
        written = os.pwritev(descriptor, pieces[at : at + _MOST_PIECES], offset)
        if not written:
            raise OSError(errno.EIO, "shared memory takes no bytes")
        offset += written
        while at < len(pieces) and written >= len(pieces[at]):
            written -= len(pieces[at])
            at += 1
        if written:
            pieces[at] = pieces[at][written:]
