"""Distributed checkpoints in safetensors files: PyTorch's HuggingFaceStorageWriter and -Reader, on S3."""

import contextlib
import dataclasses
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadItemType,
    LoadPlan,
    LoadPlanner,
    ReadItem,
    SavePlan,
    SavePlanner,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from s3dataset._client import ClientRef
from s3dataset._config import S3ClientConfig
from s3dataset.dcp._hf_consolidate import consolidate_safetensors_files
from s3dataset.dcp._hf_files import Chunk, file_metadata, file_name, folder_of, stored_tensors
from s3dataset.errors import AccessDeniedError, ObjectChangedError
from s3dataset.safetensors._boxes import BoxRead, read_boxes
from s3dataset.safetensors._dtypes import dtype_of
from s3dataset.safetensors._save import write_file
from s3dataset.safetensors._sharded import delete_objects, index_bytes, old_shards, write_small
from s3dataset.safetensors._weights import INDEX_NAME, SUFFIX, within

__all__ = ["S3HuggingFaceStorageReader", "S3HuggingFaceStorageWriter"]

_SHARDED: Final = "sharded"
_STAGED_BYTES: Final = 512 << 20
"""Of tensors that are read before they are copied to another device or type, at a time."""


@dataclass(frozen=True, slots=True)
class _Naming:
    """What the coordinator tells the ranks of a save; goes with their plans."""

    shard: int | None
    token: str
    save: tuple[str, int] | None


class S3HuggingFaceStorageWriter(StorageWriter):
    """Saves distributed checkpoints as safetensors, which `HuggingFaceStorageReader`, transformers and others read.

    As `torch.distributed.checkpoint.HuggingFaceStorageWriter`, with tensors sent from where they lie. Only tensors can
    be saved. Each file appears whole or not at all. Files of an earlier save with an index are kept until the new index
    is there; among files without an index (`save_distributed` alone) those of two saves are told apart by
    `S3HuggingFaceStorageReader`, and earlier ones are deleted in the end.

    Args:
        path: The folder, "s3://bucket/run/step-100".
        fqn_to_index_mapping: The file of each tensor, from 1 on; None: one file (of each rank).
        thread_count: Files of a rank that are sent at the same time, each of them in parallel parts.
        save_distributed: Whether each rank saves its own parts of tensors; else one rank saves all of them.
        enable_consolidation: Whether the parts, which then go to the folder "sharded", become files of whole tensors in
            the end. The coordinator does that; `consolidate_safetensors_files_on_every_rank` shares the work.
        thread_count_consolidation: Consolidated files that are written at the same time.
        region: Where the bucket is; default: from the environment, the profile, else the bucket itself tells.
        endpoint: URL of a service of one's own; default: from the environment, else Amazon's.
        s3client_config: Everything else.

    Raises:
        InvalidUriError: `path` is something else.
        ValueError: Consolidation is asked for, and nothing is distributed.
    """

    def __init__(
        self,
        path: str,
        fqn_to_index_mapping: dict[str, int] | None = None,
        thread_count: int = 1,
        save_distributed: bool = False,
        enable_consolidation: bool = False,
        thread_count_consolidation: int = 1,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        s3client_config: S3ClientConfig | None = None,
    ) -> None:
        super().__init__()
        if enable_consolidation and not save_distributed:
            raise ValueError("enable_consolidation puts parts of tensors together: it needs save_distributed=True")
        self._ref = ClientRef(region, endpoint, s3client_config)
        self._ref.get()
        self.fqn_to_index_mapping = fqn_to_index_mapping
        self.thread_count = thread_count
        self.save_distributed = save_distributed
        self.enable_consolidation = enable_consolidation
        self.thread_count_consolidation = thread_count_consolidation
        self._set_path(path)

    def _set_path(self, path: str) -> None:
        self._output = folder_of(path)
        self._folder = within(self._output, f"{_SHARDED}/") if self.enable_consolidation else self._output
        self.checkpoint_id = path
        self.path = str(self._folder)

    # -- What torch calls -------------------------------------------------------------------------------------------

    def reset(self, checkpoint_id: Any = None) -> None:
        """A new save begins, to another folder if one is given."""
        if checkpoint_id:
            self._set_path(str(checkpoint_id))

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Refuses `use_collectives=False`: somebody has to tell the ranks apart."""
        if not kwargs.get("use_collectives", True):
            raise ValueError(f"{self.checkpoint_id}: safetensors files are planned together: use_collectives=True")

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Refuses what is no tensor, before anything is sent."""
        for item in plan.items:
            if item.type == WriteItemType.BYTE_IO:
                raise ValueError(
                    f"{self.checkpoint_id}: {item.index.fqn!r} is no tensor, and safetensors hold nothing else: leave "
                    "it out, or save with S3StorageWriter"
                )
            if self.fqn_to_index_mapping is not None and item.index.fqn not in self.fqn_to_index_mapping:
                raise ValueError(f"{self.checkpoint_id}: fqn_to_index_mapping has no file for {item.index.fqn!r}")
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Names the files of all ranks."""
        if not self.save_distributed:
            if sum(bool(plan.items) for plan in plans) > 1:
                raise ValueError(
                    f"{self.checkpoint_id}: several ranks have tensors to save: pass save_distributed=True, or save "
                    "whole tensors with one rank (no_dist=True)"
                )
            names = {file_name(index, self._count) for index in range(1, self._count + 1)}
            old = old_shards(self._ref.get(), self._folder)
            is_free = old is not None and old.isdisjoint(names)
            naming = _Naming(None, "" if is_free else secrets.token_hex(4), None)
            return [dataclasses.replace(plan, storage_data=naming) for plan in plans]
        save = (secrets.token_hex(8), sum(len(self._files(plan.items)) for plan in plans))
        return [
            dataclasses.replace(plan, storage_data=_Naming(rank, "", save)) for rank, plan in enumerate(plans, start=1)
        ]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Sends this rank's files.

        Raises:
            S3Exception: One was not saved.
        """
        naming: _Naming = plan.storage_data
        files = self._files(plan.items)
        names = [
            file_name(index, self._count, shard=naming.shard, token=naming.token, number=number)
            for index, number in files
        ]
        with ThreadPoolExecutor(max(1, self.thread_count), "s3dataset-safetensors") as pool:
            tasks = [
                pool.submit(self._write, name, items, planner, naming)
                for name, items in zip(names, files.values(), strict=True)
            ]
            try:
                results = [result for task in tasks for result in task.result()]
            except BaseException:
                if not self.save_distributed:  # else earlier files may have had these names, and are gone
                    wait(tasks)
                    delete_objects(self._ref.get(), self._folder, set(names))
                raise
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Writes the index, or consolidates; deletes files of earlier saves. Called on the coordinator."""
        client = self._ref.get()
        written = {result.storage_data.relative_path for of_rank in results for result in of_rank}
        if not self.save_distributed:
            old = old_shards(client, self._folder)
            weight_map = {r.index.fqn: r.storage_data.relative_path for of_rank in results for r in of_rank}
            total = sum(result.size_in_bytes for of_rank in results for result in of_rank)
            write_small(client, within(self._folder, INDEX_NAME), index_bytes(weight_map, total))
            delete_objects(client, self._folder, (old or set()) - written)
            return
        delete_objects(client, self._folder, self._leftovers() - written)
        if self.enable_consolidation:
            mapping = self.fqn_to_index_mapping or dict.fromkeys(metadata.state_dict_metadata, 1)
            consolidate_safetensors_files(
                str(self._folder),
                str(self._output),
                mapping,
                self.thread_count_consolidation,
                region=self._ref.region,
                endpoint=self._ref.endpoint,
                s3client_config=self._ref.config,
            )

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        """Whether it is an S3 URI."""
        return str(checkpoint_id).startswith("s3://")

    def storage_meta(self) -> StorageMeta | None:
        """Where this is."""
        return StorageMeta(checkpoint_id=self.checkpoint_id)

    # -- Files ------------------------------------------------------------------------------------------------------

    @property
    def _count(self) -> int:
        return max(self.fqn_to_index_mapping.values()) if self.fqn_to_index_mapping else 1

    def _index_of(self, item: WriteItem) -> int:
        return 1 if self.fqn_to_index_mapping is None else self.fqn_to_index_mapping[item.index.fqn]

    def _files(self, items: Sequence[WriteItem]) -> dict[tuple[int, int], list[WriteItem]]:
        """Items by (file, number of its further file): a second part of one tensor needs one, as names are unique."""
        files: dict[tuple[int, int], list[WriteItem]] = {}
        met: dict[str, int] = {}
        for item in items:
            number = met.get(item.index.fqn, 0)
            met[item.index.fqn] = number + 1
            files.setdefault((self._index_of(item), number), []).append(item)
        return files

    def _write(self, name: str, items: Sequence[WriteItem], planner: SavePlanner, naming: _Naming) -> list[WriteResult]:
        tensors: dict[str, torch.Tensor] = {}
        offsets: dict[str, Sequence[int]] = {}
        results = []
        for item in items:
            found: Any = planner.resolve_data(item)
            tensor = tensors[item.index.fqn] = found.detach().contiguous()
            chunk = item.tensor_data.chunk if item.tensor_data is not None else None
            offsets[item.index.fqn] = tuple(chunk.offsets) if chunk is not None else (0,) * tensor.dim()
            nbytes = tensor.numel() * tensor.element_size()
            results.append(WriteResult(item.index, nbytes, _StorageInfo(name, 0, nbytes)))
        write_file(self._ref.get(), within(self._folder, name), tensors, file_metadata(offsets, naming.save))
        return results

    def _leftovers(self) -> set[str]:
        names: set[str] = set()
        with contextlib.suppress(AccessDeniedError):  # whoever may not list has to tidy up by other means
            for page in self._ref.get().list_objects(self._folder.bucket, self._folder.key, "/"):
                names |= {info.key.removeprefix(self._folder.key) for info in page.object_info}
        return {name for name in names if name.startswith("shard-") and name.endswith(SUFFIX)}


class S3HuggingFaceStorageReader(StorageReader):
    """Loads checkpoints of safetensors files, whole tensors or parts of them, into tensors that are sharded otherwise.

    As `torch.distributed.checkpoint.HuggingFaceStorageReader`: of each tensor only the bytes that this rank wants are
    read, all of them at once, straight into tensors of the same type on the CPU. Reads are pinned to the versions that
    were there for `read_metadata`. Where the folder has an index, the files that it names are read, else all.

    Args:
        path: The folder, "s3://bucket/run/step-100".
        thread_count: Taken, as PyTorch's does, and not needed: all files are read at the same time.
        region: As of `S3HuggingFaceStorageWriter`.
        endpoint: As of `S3HuggingFaceStorageWriter`.
        s3client_config: As of `S3HuggingFaceStorageWriter`.

    Raises:
        InvalidUriError: `path` is something else.
    """

    def __init__(
        self,
        path: str,
        thread_count: int = 1,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        s3client_config: S3ClientConfig | None = None,
    ) -> None:
        super().__init__()
        self._ref = ClientRef(region, endpoint, s3client_config)
        self._ref.get()
        self.thread_count = thread_count
        self._folder = folder_of(path)
        self.path = path
        self.storage_data: Mapping[MetadataIndex, Chunk] = {}

    @property
    def checkpoint_id(self) -> str:
        """The folder."""
        return self.path

    def reset(self, checkpoint_id: Any = None) -> None:
        """A new load begins, from another folder if one is given."""
        self.storage_data = {}
        if checkpoint_id:
            self._folder = folder_of(str(checkpoint_id))
            self.path = str(checkpoint_id)

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:  # noqa: ARG002
        """Reads the headers of all files.

        Raises:
            DecodeError: One is none, files of several saves are there, or parts of tensors are missing.
            ObjectNotFoundError: There are no files.
            S3Exception: One could not be read.
        """
        tensors: dict[str, Any] = {}
        places: dict[MetadataIndex, Chunk] = {}
        for name, stored in stored_tensors(self._ref.get(), self._folder).items():
            dtype = dtype_of(stored.chunks[0].entry, str(stored.chunks[0].file.uri))
            tensors[name] = TensorStorageMetadata(
                properties=TensorProperties(dtype=dtype),
                size=torch.Size(stored.shape),
                chunks=[ChunkStorageMetadata(torch.Size(c.offsets), torch.Size(c.shape)) for c in stored.chunks],
            )
            places |= {MetadataIndex(name, torch.Size(chunk.offsets)): chunk for chunk in stored.chunks}
        return Metadata(tensors, storage_data=places, storage_meta=StorageMeta(checkpoint_id=self.path))

    def set_up_storage_reader(
        self,
        metadata: Metadata,
        is_coordinator: bool,  # noqa: ARG002
        *args: Any,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Takes what `read_metadata` found."""
        self.storage_data = metadata.storage_data

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """With the versions of the files that this rank has found."""
        files = {(str(chunk.file.uri), chunk.file.etag) for chunk in self.storage_data.values()}
        digest = hashlib.sha256(repr(sorted(files, key=str)).encode()).hexdigest()
        return dataclasses.replace(plan, storage_data=(digest,))

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Sees to it that all ranks load the same files.

        Raises:
            ObjectChangedError: They were replaced while the ranks began.
        """
        if len({plan.storage_data for plan in plans if isinstance(plan.storage_data, tuple)}) > 1:
            raise ObjectChangedError(
                f"Files of {self.path} were replaced while the ranks began to load them; load them again",
                operation="GetObject",
                uri=self.path,
            )
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Fills the tensors of this rank.

        Raises:
            ObjectChangedError: A file was replaced since `read_metadata`.
            S3Exception: One could not be read.
        """
        direct: list[tuple[ReadItem, torch.Tensor]] = []
        staged: list[tuple[ReadItem, torch.Tensor]] = []
        for item in plan.items:
            if item.type == LoadItemType.BYTE_IO:
                raise ValueError(
                    f"{self.path}: {item.storage_index.fqn!r} is no tensor, and safetensors hold nothing else"
                )
            target = planner.resolve_tensor(item).detach()
            if tuple(target.shape) != tuple(item.lengths):
                raise ValueError(
                    f"{self.path}: {item.storage_index.fqn!r} is to be loaded into {tuple(target.shape)}, and the part "
                    f"that was planned for it is {tuple(item.lengths)}"
                )
            chunk = self.storage_data[item.storage_index]
            same = target.device.type == "cpu" and target.dtype == dtype_of(chunk.entry, str(chunk.file.uri))
            (direct if same else staged).append((item, target))
        read_boxes(self._ref.get(), (self._read(item, target) for item, target in direct))
        self._read_staged(staged)
        for item, target in (*direct, *staged):
            planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _read(self, item: ReadItem, target: torch.Tensor) -> BoxRead:
        chunk = self.storage_data[item.storage_index]
        ranges = zip(item.storage_offsets, item.lengths, strict=True)
        return BoxRead(chunk.file, chunk.entry, tuple((start, start + length) for start, length in ranges), target)

    def _read_staged(self, items: list[tuple[ReadItem, torch.Tensor]]) -> None:
        """By way of memory here, some at a time."""
        waiting: list[tuple[ReadItem, torch.Tensor, torch.Tensor]] = []
        held = 0
        for at, (item, target) in enumerate(items):
            chunk = self.storage_data[item.storage_index]
            buffer = torch.empty(tuple(item.lengths), dtype=dtype_of(chunk.entry, str(chunk.file.uri)))
            waiting.append((item, target, buffer))
            held += buffer.numel() * buffer.element_size()
            if held >= _STAGED_BYTES or at == len(items) - 1:
                read_boxes(self._ref.get(), (self._read(one, memory) for one, _, memory in waiting))
                for _, destination, memory in waiting:
                    destination.copy_(memory)
                waiting, held = [], 0

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        """Whether it is an S3 URI."""
        return str(checkpoint_id).startswith("s3://")
