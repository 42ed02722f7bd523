"""S3StorageReader: loads distributed checkpoints from S3."""

import dataclasses
import os
import pickle
from collections.abc import Iterable
from typing import Any, cast

from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner
from torch.futures import Future

from s3dataset._config import S3ClientConfig
from s3dataset._io import (
    DCPS3ReaderConstructorProtocol,
    ReaderConstructor,
    S3Reader,
    S3ReaderConstructor,
    S3ReaderConstructorProtocol,
    check_constructor,
)
from s3dataset.dcp._collection import uncollected
from s3dataset.dcp._file_system import S3FileSystem, uri_of
from s3dataset.dcp._items import Chunks, Item, grouped
from s3dataset.dcp._transfer import Transfer
from s3dataset.errors import ObjectChangedError, ObjectNotFoundError

__all__ = ["S3StorageReader"]


class S3StorageReader(FileSystemReader):
    """Loads distributed checkpoints from S3: those of `S3StorageWriter`, of s3torchconnector, and copies of others.

    Only the bytes that the plan needs are read: of a large item that is resharded, only the rows wanted. All ranges of
    all objects are asked for at once, and arrive in the tensors' memory without a copy where a tensor lies on the CPU,
    contiguous and of the type that was saved. Items that went through a stream transform (an extension such as zstd)
    are read as streams, by torch's own code.

    No mixture of two versions of an object is loaded: that is an `ObjectChangedError`. Tensors that were loaded into
    hold anything after an error. Picklable.

    Example:
        >>> reader = S3StorageReader("us-west-2", "s3://bucket/run-7/step-1000")
        >>> torch.distributed.checkpoint.load(state_dict, storage_reader=reader)

    Args:
        region: Where the bucket is; default: from the environment, the profile, else the bucket itself tells.
        path: The checkpoint: "s3://bucket/prefix". Needed; it stands behind the region as in s3torchconnector.
        s3client_config: Everything else.
        reader_constructor: `S3ReaderConstructor.dcp_optimized(max_gap_size)`, the default, limits the gaps that are
            read along, which stay under 5 % of what is wanted in any case. The others choose the read-ahead of what is
            read as a stream; one of your own makes everything be read by it, as torch's reader reads.
        endpoint: URL of a service of one's own; default: from the environment, else Amazon's.
        **kwargs: For torch's FileSystemReader, such as `_extension_registry`.

    Raises:
        InvalidUriError: `path` is something else.
        InvalidConfigError: The endpoint is no URL.
    """

    def __init__(
        self,
        region: str | None = None,
        path: str | os.PathLike[str] = "",
        s3client_config: S3ClientConfig | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
        *,
        endpoint: str | None = None,
        **kwargs: Any,
    ) -> None:
        uri_of(path, need_key=False)
        check_constructor(reader_constructor)
        super().__init__(path, **kwargs)
        self._reader_constructor = reader_constructor or S3ReaderConstructor.dcp_optimized()
        self.fs: S3FileSystem = S3FileSystem(  # type: ignore[assignment] # torch's own knows files alone
            region, s3client_config=s3client_config, reader_constructor=self._reader_constructor, endpoint=endpoint
        )
        self.path = self.fs.init_path(path)
        self.sync_files = False
        self._metadata: Metadata | None = None
        self._metadata_etag = ""
        self._metadata_path = ""

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """-> whether this can name a checkpoint in S3."""
        return S3FileSystem.validate_checkpoint_id(checkpoint_id)

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Begins anew, with another checkpoint if one is named."""
        super().reset(checkpoint_id)
        self._metadata = None

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:  # noqa: ARG002 - torch's signature grows
        """Reads what the checkpoint consists of; with `rank=` what that rank has saved for itself.

        It is a pickle, as torch writes it: load only checkpoints that you trust.

        Raises:
            ObjectNotFoundError: There is no checkpoint here.
        """
        rank = kwargs.get("rank")
        name = ".metadata" if rank is None else f"__{rank}.metadata"
        path = self.fs.concat_path(self.path, name)
        with self.fs.create_stream(path, "rb") as stream:
            try:
                data = cast("S3Reader", stream).read()
            except ObjectNotFoundError as error:
                error.add_note(f"There is no checkpoint at {self.path}: none was saved there, or not to its end.")
                raise
            etag = cast("S3Reader", stream).etag
        with uncollected():
            metadata = cast("Metadata", pickle.loads(data))  # noqa: S301 - it is what torch writes
        if getattr(metadata, "storage_meta", None) is None:
            metadata.storage_meta = StorageMeta()
        cast("StorageMeta", metadata.storage_meta).load_id = self.load_id
        self._metadata_path, self._metadata_etag = path, etag or ""
        return metadata

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Notes what the checkpoint consists of."""
        super().set_up_storage_reader(metadata, is_coordinator, *args, **kwargs)
        self._metadata = metadata

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Puts the items in the order in which they lie, tells the reader constructor of them, and whose they are."""
        data = self.storage_data
        if isinstance(self._reader_constructor, DCPS3ReaderConstructorProtocol):
            self._reader_constructor.set_item_ranges_by_file(plan.items, data, str(self.path))
        items = sorted(plan.items, key=lambda item: data[item.storage_index].offset)
        return dataclasses.replace(plan, items=items, storage_data=(self._metadata_path, self._metadata_etag))

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Sees to it that all ranks load one checkpoint.

        Raises:
            ObjectChangedError: Another one was saved here while they began.
        """
        told = {plan.storage_data for plan in plans if isinstance(plan.storage_data, tuple)}
        if len({path for path, _ in told}) < len(told):  # ranks that saved by themselves have metadata of their own
            raise ObjectChangedError(
                f"The checkpoint {self.path} was replaced by another save while the ranks began to load it; load it "
                "again",
                operation="GetObject",
                uri=str(uri_of(self._metadata_path)),
            )
        return super().prepare_global_plan(plans)

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> "Future[None]":
        """Loads the items of the plan.

        Raises:
            ObjectChangedError: An object, or the whole checkpoint, was replaced meanwhile.
            ObjectNotFoundError: An object that belongs to the checkpoint is not there.
            S3Exception: It could not be read.
        """
        try:
            self._read(plan, planner)
        except ObjectNotFoundError as error:
            raise self._what_is_missing(error) from None
        future: Future[None] = Future()
        future.set_result(None)
        return future

    def _read(self, plan: LoadPlan, planner: LoadPlanner) -> None:
        if not isinstance(self._reader_constructor, ReaderConstructor):
            self._stream(plan, planner)  # one of the user's own, which may do anything with the bytes
            return
        with uncollected():
            items, streamed = grouped(plan.items, self.storage_data, Chunks(self._metadata))
        if items:
            self._fetch(items, planner)
        if streamed:
            self._stream(dataclasses.replace(plan, items=streamed), planner)

    def _stream(self, plan: LoadPlan, planner: LoadPlanner) -> None:
        """By torch's own code."""
        if isinstance(self._reader_constructor, DCPS3ReaderConstructorProtocol):
            base = str(uri_of(self.path, need_key=False))
            self._reader_constructor.set_item_ranges_by_file(plan.items, self.storage_data, base)
        super().read_data(plan, planner)

    def _fetch(self, items: Iterable[Item], planner: LoadPlanner) -> None:
        policy = cast("ReaderConstructor", self._reader_constructor).policy
        with Transfer(self.fs.client, self._uri, policy.gap_bytes) as transfer:
            transfer.load(items, planner)

    def _uri(self, relative_path: str) -> Any:
        return uri_of(self.fs.concat_path(self.path, relative_path))

    def _what_is_missing(self, error: ObjectNotFoundError) -> Exception:
        """A new save over this checkpoint removes what the load has begun with."""
        if self._metadata_path and self.fs.find(self._metadata_path) != self._metadata_etag:
            return ObjectChangedError(
                f"The checkpoint {self.path} was replaced by another save while it was loaded; load it again",
                operation=error.operation,
                uri=error.uri,
            )
        error.add_note(
            f"{self._metadata_path or self.path} names it: the checkpoint was not copied whole, or is no longer whole."
        )
        return error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_metadata": None, "storage_data": {}}
