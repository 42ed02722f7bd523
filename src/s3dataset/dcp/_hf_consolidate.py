"""Files of whole tensors, from files that hold parts of them: streamed, in little memory."""

import secrets
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import torch
import torch.distributed as dist

from s3dataset._checkpoint._parts import Cutter
from s3dataset._client import Client, ClientRef
from s3dataset._config import S3ClientConfig
from s3dataset._io import S3Writer
from s3dataset._uri import S3Uri
from s3dataset.dcp._hf_files import Chunk, Stored, file_name, folder_of, stored_tensors
from s3dataset.safetensors._boxes import BoxRead, read_boxes
from s3dataset.safetensors._dtypes import dtype_of, shape_in_file
from s3dataset.safetensors._format import BITS, build_header
from s3dataset.safetensors._memory import bytes_of
from s3dataset.safetensors._sharded import delete_objects, index_bytes, old_shards, write_small
from s3dataset.safetensors._slices import blocks_of
from s3dataset.safetensors._weights import INDEX_NAME, within

__all__ = ["consolidate_safetensors_files", "consolidate_safetensors_files_on_every_rank"]

_JOB_BYTES: Final = 16 << 20
_READERS: Final = 4
_AHEAD: Final = 6
"""Jobs that are read, or wait to be sent."""
_PARTS: Final = 16
"""On their way at once."""


def consolidate_safetensors_files(
    input_dir: str,
    output_dir: str,
    fqn_to_index_mapping: Mapping[str, int],
    num_threads: int = 1,
    *,
    region: str | None = None,
    endpoint: str | None = None,
    s3client_config: S3ClientConfig | None = None,
) -> None:
    """Makes files of whole tensors, and their index, of a checkpoint in parts.

    What `S3HuggingFaceStorageWriter(save_distributed=True)` or PyTorch's has written is streamed: each output file
    takes some 300 MiB of memory, however large its tensors are (more beyond 80 GB, where parts are larger). The index
    is written last; files of an earlier one are not overwritten, and deleted in the end.

    Args:
        input_dir: The folder of the parts, "s3://bucket/run/step-100/sharded".
        output_dir: The folder for the files.
        fqn_to_index_mapping: The file of each tensor, from 1 on.
        num_threads: Files that are written at the same time.
        region: As of `S3HuggingFaceStorageWriter`.
        endpoint: As of `S3HuggingFaceStorageWriter`.
        s3client_config: As of `S3HuggingFaceStorageWriter`.

    Raises:
        DecodeError: The parts are of several saves, or some are missing.
        ValueError: A tensor has no file, or is not there.
        S3Exception: Something could not be read or written.
    """
    client = ClientRef(region, endpoint, s3client_config).get()
    plan = _Plan.make(client, input_dir, output_dir, fqn_to_index_mapping, _token(client, output_dir))
    with plan.undone_by_failure(plan.files):
        plan.write(plan.files, num_threads)
    plan.publish()


def consolidate_safetensors_files_on_every_rank(
    input_dir: str,
    output_dir: str,
    fqn_to_index_mapping: Mapping[str, int],
    num_threads: int = 1,
    process_group: Any = None,
    *,
    region: str | None = None,
    endpoint: str | None = None,
    s3client_config: S3ClientConfig | None = None,
) -> None:
    """As `consolidate_safetensors_files`, with the files dealt out to the ranks of a group, alike in bytes.

    Every rank calls it. It returns on all of them, when the index is there, or raises on all of them.

    Args:
        input_dir: As of `consolidate_safetensors_files`.
        output_dir: As of `consolidate_safetensors_files`.
        fqn_to_index_mapping: As of `consolidate_safetensors_files`, the same on every rank.
        num_threads: Files that each rank writes at the same time.
        process_group: Default: all ranks; without torch.distributed this process alone.
        region: As of `S3HuggingFaceStorageWriter`.
        endpoint: As of `S3HuggingFaceStorageWriter`.
        s3client_config: As of `S3HuggingFaceStorageWriter`.

    Raises:
        RuntimeError: Another rank failed.
        DecodeError, S3Exception: As `consolidate_safetensors_files`.
    """
    client = ClientRef(region, endpoint, s3client_config).get()
    group = _Group(process_group)
    token = group.share(lambda: _token(client, output_dir) if group.rank == 0 else "")[0]

    made: list[_Plan] = []
    group.share(lambda: made.append(_Plan.make(client, input_dir, output_dir, fqn_to_index_mapping, token)))
    (plan,) = made
    mine = plan.dealt(group.size)[group.rank]
    with plan.undone_by_failure(mine):
        group.share(lambda: plan.write(mine, num_threads))
    group.share(lambda: plan.publish() if group.rank == 0 else None)


class _Group:
    """Ranks that go on together or fail together."""

    def __init__(self, process_group: Any) -> None:
        self._group = process_group
        self._alone = not (dist.is_available() and dist.is_initialized())
        self.rank = 0 if self._alone else dist.get_rank(process_group)
        self.size = 1 if self._alone else dist.get_world_size(process_group)

    def share(self, step: Any) -> list[Any]:
        """Takes a step on every rank -> what came of it on each.

        Raises:
            The step's own exception, and RuntimeError where another rank had one.
        """
        failure: BaseException | None = None
        result: Any = None
        try:
            result = step()
        except Exception as error:
            if self._alone:
                raise
            failure = error
        if self._alone:
            return [result]
        told: list[Any] = [None] * self.size
        mine = (result, None if failure is None else f"{type(failure).__name__}: {failure}")
        dist.all_gather_object(told, mine, group=self._group)
        if failure is not None:
            raise failure
        for rank, (_, reason) in enumerate(told):
            if reason is not None:
                raise RuntimeError(f"rank {rank} failed: {reason}")
        return [one for one, _ in told]


def _token(client: Client, output_dir: str) -> str:
    """Tells the new files from those of an index that is there."""
    old = old_shards(client, folder_of(output_dir))
    return secrets.token_hex(4) if old or old is None else ""


@dataclass(frozen=True, slots=True)
class _Plan:
    """Files to write: by their names, the tensors of each."""

    client: Client
    output: S3Uri
    files: dict[str, list[Stored]]

    @classmethod
    def make(cls, client: Client, input_dir: str, output_dir: str, mapping: Mapping[str, int], token: str) -> "_Plan":
        stored = stored_tensors(client, folder_of(input_dir))
        if set(stored) != set(mapping):
            name = min(set(stored) ^ set(mapping))
            where = f"is not in {input_dir}" if name in mapping else "has no file in fqn_to_index_mapping"
            raise ValueError(f"{output_dir} cannot be made: tensor {name!r} {where}")
        count = max(mapping.values(), default=1)
        files: dict[str, list[Stored]] = defaultdict(list)
        for name, index in mapping.items():
            files[file_name(index, count, token=token)].append(stored[name])
        return cls(client, folder_of(output_dir), dict(files))

    def dealt(self, ranks: int) -> list[list[str]]:
        """Names of files for each rank: the largest first, to whoever has least."""
        hands: list[list[str]] = [[] for _ in range(ranks)]
        held = [0] * ranks
        for name in sorted(self.files, key=lambda name: (-self._nbytes(name), name)):
            least = held.index(min(held))
            hands[least].append(name)
            held[least] += self._nbytes(name)
        return hands

    def _nbytes(self, name: str) -> int:
        return sum(_nbytes(stored) for stored in self.files[name])

    @contextmanager
    def undone_by_failure(self, names: Iterable[str]) -> Iterator[None]:
        """Deletes these files when they are of no use: their names are those of no file that an index names."""
        try:
            yield
        except BaseException:
            delete_objects(self.client, self.output, set(names))
            raise

    def write(self, names: Iterable[str], threads: int) -> None:
        with ThreadPoolExecutor(max(1, threads), "s3dataset-consolidate") as pool:
            tasks = [pool.submit(_write, self.client, within(self.output, name), self.files[name]) for name in names]
            for task in tasks:
                task.result()

    def publish(self) -> None:
        """Makes the files the checkpoint."""
        old = old_shards(self.client, self.output)
        weight_map = {stored.name: name for name, tensors in self.files.items() for stored in tensors}
        total = sum(map(self._nbytes, self.files))
        write_small(self.client, within(self.output, INDEX_NAME), index_bytes(weight_map, total))
        delete_objects(self.client, self.output, (old or set()) - set(self.files))


def _nbytes(stored: Stored) -> int:
    return prod(shape_in_file(stored.name, stored.dtype, stored.shape)) * BITS[stored.dtype] // 8


# -- One file ----------------------------------------------------------------------------------------------------------


def _write(client: Client, uri: S3Uri, tensors: Sequence[Stored]) -> None:
    by_name = {stored.name: stored for stored in tensors}
    header, order = build_header(
        [
            (stored.name, stored.dtype, shape_in_file(stored.name, stored.dtype, stored.shape), _nbytes(stored))
            for stored in tensors
        ],
        {"format": "pt"},
    )
    total = len(header) + sum(map(_nbytes, tensors))
    writer = S3Writer(client, uri.bucket, uri.key, size=total)
    with ThreadPoolExecutor(_READERS, "s3dataset-consolidate-read") as pool:
        writer.save_held(
            total, Cutter(_pieces(client, header, [by_name[name] for name in order], pool)), most_parts=_PARTS
        )


def _pieces(
    client: Client, header: bytes, tensors: Sequence[Stored], pool: ThreadPoolExecutor
) -> Iterator[tuple[memoryview, object]]:
    yield memoryview(header), None
    ahead: deque[Future[list[torch.Tensor]]] = deque()
    try:
        for job in _jobs(tensors):
            ahead.append(pool.submit(_read, client, job))
            if len(ahead) == _AHEAD:
                yield from ((bytes_of(part), part) for part in ahead.popleft().result())
        while ahead:
            yield from ((bytes_of(part), part) for part in ahead.popleft().result())
    finally:
        for task in ahead:
            task.cancel()


_Region = tuple[tuple[int, int], ...]


def _jobs(tensors: Sequence[Stored]) -> Iterator[list[tuple[Stored, _Region]]]:
    """The tensors from their first number to the last: regions that lie without a gap, some MiB at a time."""
    job: list[tuple[Stored, _Region]] = []
    held = 0
    for stored in tensors:
        itemsize = dtype_of(stored.chunks[0].entry, str(stored.chunks[0].file.uri)).itemsize
        whole = tuple((0, length) for length in stored.shape)
        for block in blocks_of(stored.shape, whole, itemsize, any_length=False):
            region = tuple((part.start, part.stop) for part in block.where) + whole[len(block.where) :]
            job.append((stored, region))
            held += block.nbytes
            if held >= _JOB_BYTES // 2:
                yield job
                job, held = [], 0
    if job:
        yield job


def _read(client: Client, job: Sequence[tuple[Stored, _Region]]) -> list[torch.Tensor]:
    parts = []
    reads = []
    for stored, region in job:
        dtype = dtype_of(stored.chunks[0].entry, str(stored.chunks[0].file.uri))
        part = torch.empty([stop - start for start, stop in region], dtype=dtype)
        parts.append(part)
        for chunk in stored.chunks:
            read = _overlap(chunk, region, part)
            if read is not None:
                reads.append(read)
    read_boxes(client, reads)
    return parts


def _overlap(chunk: Chunk, region: _Region, part: torch.Tensor) -> BoxRead | None:
    box = []
    where = []
    for (start, stop), offset, length in zip(region, chunk.offsets, chunk.shape, strict=True):
        first, last = max(start, offset), min(stop, offset + length)
        if first >= last:
            return None
        box.append((first - offset, last - offset))
        where.append(slice(first - start, last - start))
    return BoxRead(chunk.file, chunk.entry, tuple(box), part[tuple(where)])
