"""Parts of stored tensors, read into tensors."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Final, cast

import torch

from s3dataset._client import Client
from s3dataset.errors import InternalError, S3Exception
from s3dataset.safetensors._dtypes import raw_dtype, shape_of
from s3dataset.safetensors._files import StoredFile
from s3dataset.safetensors._format import Entry
from s3dataset.safetensors._memory import bytes_of
from s3dataset.safetensors._slices import Block, Box, blocks_of

if TYPE_CHECKING:
    from s3dataset._client import Body, RequestQueue

__all__ = ["BoxRead", "read_boxes"]

_UNDER_WAY: Final = 1024
"""Requests handed over at once; the bytes that wait are bounded by the engine's budget."""


@dataclass(frozen=True, slots=True)
class BoxRead:
    """A box of a stored tensor, and the tensor on the CPU, of the same type and of the box's shape, to fill with it."""

    file: StoredFile
    entry: Entry
    box: Box
    target: torch.Tensor


def read_boxes(client: Client, reads: Iterable[BoxRead]) -> None:
    """Fills all targets, all requests at once: without a gap straight into a contiguous target.

    Raises:
        S3Exception: One could not be read; targets may be partly filled.
    """
    jobs = _jobs(client, reads)
    waiting: dict[int, tuple[Block, BoxRead, torch.Tensor]] = {}
    more = True
    with client.queue() as queue:
        while more or waiting:
            while more and len(waiting) < _UNDER_WAY:
                job = next(jobs, None)
                if job is None:
                    more = False
                    break
                waiting[_ask(queue, *job)] = job
            for index, result in queue.next(1) if waiting else ():
                if isinstance(result, S3Exception):
                    raise result
                block, read, target = waiting.pop(index)
                if not _is_direct(block, target):
                    _copy(cast("Body", result), block, read, target)


def _jobs(client: Client, reads: Iterable[BoxRead]) -> Iterator[tuple[Block, BoxRead, torch.Tensor]]:
    for read in reads:
        itemsize = read.target.element_size()
        target = read.target.detach().view(raw_dtype(itemsize))
        shape = shape_of(read.entry)
        for block in blocks_of(shape, read.box, itemsize, any_length=target.is_contiguous()):
            part = target[block.where]
            if not block.dense or block.nbytes <= client.part_size or not part.is_contiguous():
                yield block, read, part
                continue
            # Straight into place, and more than one request's worth.
            raw = part.reshape(-1)
            step = client.part_size // itemsize
            for first, last in pairwise([*range(0, raw.numel(), step), raw.numel()]):
                start, nbytes = block.start + first * itemsize, (last - first) * itemsize
                yield Block(start, nbytes, (), dense=True), read, raw[first:last]


def _is_direct(block: Block, target: torch.Tensor) -> bool:
    return block.dense and target.is_contiguous()


def _ask(queue: "RequestQueue", block: Block, read: BoxRead, target: torch.Tensor) -> int:
    file, start = read.file, read.entry.start + block.start
    if _is_direct(block, target):
        return queue.get_into([(file.uri.bucket, file.uri.key, start, file.etag, bytes_of(target))]).start
    end = start + block.nbytes
    return queue.get([(file.uri.bucket, file.uri.key, start, end, file.size, file.etag)]).start


def _copy(body: "Body", block: Block, read: BoxRead, target: torch.Tensor) -> None:
    if len(body) != block.nbytes:
        raise InternalError(f"{read.file.uri}: {len(body):,} bytes came for {block.nbytes:,}", uri=str(read.file.uri))
    source = torch.frombuffer(body, dtype=torch.uint8).view(target.dtype)
    target.copy_(source.as_strided(target.shape, _strides(shape_of(read.entry))))


def _strides(shape: Sequence[int]) -> list[int]:
    return [prod(shape[at + 1 :]) for at in range(len(shape))]
