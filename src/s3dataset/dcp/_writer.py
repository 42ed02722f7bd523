"""S3StorageWriter: saves distributed checkpoints to S3."""

import dataclasses
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.distributed.checkpoint import filesystem, staging
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future
from torch.utils._pytree import tree_map

from s3dataset._config import S3ClientConfig
from s3dataset.dcp._collection import uncollected
from s3dataset.dcp._file_system import S3FileSystem, uri_of
from s3dataset.dcp._files import DataObject, can_send_held, dealt, send_held, send_streamed, side_by_side
from s3dataset.dcp._prefixes import DefaultPrefixStrategy, S3PrefixStrategyBase
from s3dataset.dcp._publishing import Leftovers, conditions_are_unknown, new_suffix, publish
from s3dataset.errors import ConflictError, PreconditionFailedError, S3Exception

if TYPE_CHECKING:
    from s3dataset._io import S3Writer

__all__ = ["S3StorageWriter"]


@dataclasses.dataclass
class StorageMetadata:
    """What a rank is told of its data objects.

    Attributes:
        prefix: What their names begin with.
    """

    prefix: str


class S3StorageWriter(FileSystemWriter):
    """Saves distributed checkpoints to S3. Their data objects are files of PyTorch's own FileSystemWriter.

    Each rank's items go to `thread_count` objects, straight from the tensors' memory (since torch 2.6), many parts at
    once; `.metadata` makes them a checkpoint. At every moment of a save there is the old checkpoint or the new one,
    whole: data objects never replace others, `.metadata` is written with one request that has a condition on what was
    there, and only then the old objects, and what failed saves have left, are deleted. After it there are exactly
    world size x `thread_count` + 1 objects. (A store without conditional writes, which answers 501 to them or ignores
    them, does not notice that two saves go to one place at once.)

    Picklable, so that `async_save` can save in a process. Nothing may change the tensors before a save is done.

    Example:
        >>> writer = S3StorageWriter("us-west-2", "s3://bucket/run-7/step-1000")
        >>> torch.distributed.checkpoint.save(state_dict, storage_writer=writer)

    Args:
        region: Where the bucket is; default: from the environment, the profile, else the bucket itself tells.
        path: The checkpoint: "s3://bucket/prefix". Needed; it stands behind the region as in s3torchconnector.
        s3client_config: Everything else.
        prefix_strategy: Names of the objects of each rank, also as a function of the rank; default: all side by side.
        thread_count: Objects of a rank. One is enough for full speed: its parts are sent side by side.
        endpoint: URL of a service of one's own; default: from the environment, else Amazon's.
        **kwargs: For torch's FileSystemWriter: `overwrite` (False: an existing checkpoint is a RuntimeError),
            `single_file_per_rank` (False: an object for each item), `cache_staged_state_dict`, `_extensions`.

    Raises:
        InvalidUriError: `path` is something else.
        InvalidConfigError: The endpoint is no URL.
        TypeError: `prefix_strategy` is none, or an argument is unknown.
        ValueError: `thread_count` is less than 1.
    """

    def __init__(
        self,
        region: str | None = None,
        path: str | os.PathLike[str] = "",
        s3client_config: S3ClientConfig | None = None,
        prefix_strategy: S3PrefixStrategyBase | Callable[[int], str] | None = None,
        thread_count: int = 1,
        *,
        endpoint: str | None = None,
        **kwargs: Any,
    ) -> None:
        uri_of(path, need_key=False)
        if type(thread_count) is not int or thread_count < 1:
            raise ValueError(f"thread_count must be an integer of at least 1, not {thread_count!r}")
        given: object = prefix_strategy
        if given is not None and (isinstance(given, type) or not callable(given)):
            raise TypeError(
                "prefix_strategy must be an instance of an S3PrefixStrategyBase, such as HexPrefixStrategy(), or a "
                f"function of the rank, not {given!r}"
            )
        kwargs["sync_files"] = False  # there is nothing to sync: a request is answered when the object is kept
        super().__init__(path, thread_count=thread_count, **kwargs)
        self.fs: S3FileSystem = S3FileSystem(region, s3client_config=s3client_config, endpoint=endpoint)  # type: ignore[assignment]
        self.path = self.fs.init_path(path)
        self.prefix_strategy = prefix_strategy or DefaultPrefixStrategy()
        self.rank: int | None = None
        self.use_collectives = True
        self._replaces: str | None = None
        self._leftovers: Leftovers | None = None
        self._conditions = True

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """-> whether this can name a checkpoint in S3."""
        return S3FileSystem.validate_checkpoint_id(checkpoint_id)

    # -- Planning ----------------------------------------------------------------------------------------------------

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Learns whether ranks save together."""
        super().set_up_storage_writer(is_coordinator, *args, **kwargs)
        self.rank = kwargs.get("rank")
        self.use_collectives = kwargs.get("use_collectives", True)

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Looks what is there.

        Raises:
            RuntimeError: A checkpoint, and `overwrite` is False; or one of all ranks, where each saves by itself.
            S3Exception: It could not be found out.
        """
        together = self.fs.find(self._metadata_path(None))
        self._replaces = together
        own = self._own_rank
        if own is not None:
            if together is not None:
                raise RuntimeError(
                    f"{self.path} holds a checkpoint that all ranks saved together, which would hide those that ranks "
                    "save by themselves (use_collectives=False): save to another place, or delete it first"
                )
            self._replaces = self.fs.find(self._metadata_path(own))
        if self._replaces is not None and not self.overwrite:
            raise RuntimeError(f"Checkpoint already exists and {self.overwrite=}.")
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Gives each rank its prefix, and looks for what earlier saves have left."""
        own = self._own_rank
        prefixes = [self.prefix_strategy(rank) for rank in (range(len(plans)) if own is None else [own])]
        root = uri_of(self.fs.concat_path(self.path, ""), need_key=False)
        self._leftovers = Leftovers(self.fs.client, root, prefixes, alone=own is not None)
        self._leftovers.find()
        return [
            dataclasses.replace(plan, storage_data=StorageMetadata(prefix))
            for plan, prefix in zip(plans, prefixes, strict=True)
        ]

    @property
    def _own_rank(self) -> int | None:
        """The rank, where it saves by itself."""
        return None if self.use_collectives else self.rank

    def _metadata_path(self, rank: int | None) -> str:
        return self.fs.concat_path(self.path, ".metadata" if rank is None else f"__{rank}.metadata")

    # -- Writing -----------------------------------------------------------------------------------------------------

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> "Future[list[WriteResult]]":
        """Writes this rank's data objects.

        Raises:
            S3Exception: One was not saved. The checkpoint that was there stays.
        """
        shares = dealt(plan.items, self.thread_count) if self.single_file_per_rank else [[item] for item in plan.items]
        prefix = cast("StorageMetadata", plan.storage_data).prefix
        # Told by the rank itself, since planners that cache plans keep the storage data of an earlier save.
        suffix = new_suffix() if shares and self._is_taken(prefix) else ""
        targets = [
            DataObject(f"{prefix}{number}{suffix}.distcp", items, bool(suffix)) for number, items in enumerate(shares)
        ]
        stop = threading.Event()
        results = side_by_side(targets, lambda target: self._write(target, planner, stop), self.thread_count, stop)
        future: Future[list[WriteResult]] = Future()
        future.set_result(results)
        return future

    def _is_taken(self, prefix: str) -> bool:
        """Whether data objects of these names may be there: of a checkpoint, or of a save that failed."""
        return self._replaces is not None or self.fs.exists(self.fs.concat_path(self.path, f"{prefix}0.distcp"))

    def _write(self, target: DataObject, planner: SavePlanner, stop: threading.Event) -> list[WriteResult]:
        while True:
            only_new = self._conditions and not target.is_unique
            try:
                return self._send(target, planner, stop, only_new=only_new)
            except (PreconditionFailedError, ConflictError):
                if not only_new:
                    raise
                # Left by a save that failed, or written by one that goes on: neither is touched.
                target = DataObject(f"{target.name.removesuffix('.distcp')}{new_suffix()}.distcp", target.items, True)
            except S3Exception as error:
                if not (only_new and conditions_are_unknown(error)):
                    raise
                self._conditions = False

    def _send(
        self, target: DataObject, planner: SavePlanner, stop: threading.Event, *, only_new: bool
    ) -> list[WriteResult]:
        uri = uri_of(self.fs.concat_path(self.path, target.name))

        def open_writer(nbytes: int | None = None) -> "S3Writer":
            return self.fs.client.put_object(uri.bucket, uri.key, if_none_match=only_new, size=nbytes)

        if can_send_held(self):
            return send_held(open_writer, target, planner, stop)
        return send_streamed(open_writer, target, planner, self)

    # -- The end -----------------------------------------------------------------------------------------------------

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Makes what was written the checkpoint, and deletes what it replaces.

        Raises:
            PreconditionFailedError: Another save was published since this one began. It stays.
            S3Exception: It was not published. The checkpoint that was there stays.
        """
        version = getattr(filesystem, "CURRENT_DCP_VERSION", None)
        if version is not None:
            metadata.version = version
        with uncollected():
            metadata.storage_data = {result.index: result.storage_data for some in results for result in some}
        metadata.storage_meta = self.storage_meta()
        uri = uri_of(self._metadata_path(self._own_rank))
        leftovers, self._leftovers = self._leftovers, None
        if leftovers is not None and self._replaces:
            leftovers.find_replaced(uri, self._replaces)
        with uncollected():
            publish(self.fs.client, uri, metadata, replaces=self._replaces)
        if leftovers is not None:
            leftovers.delete({info.relative_path for info in metadata.storage_data.values()})

    def stage(self, state_dict: Any) -> Any:
        """Copies what `async_save` will save."""
        if not self.cache_staged_state_dict and hasattr(staging, "_offload_state_dict_to_cpu"):
            # torch 2.4 hands tensors of the CPU on as they are, to be changed by the next step while they are saved.
            state_dict = tree_map(_copied_on_cpu, state_dict)
        return super().stage(state_dict)

    def __getstate__(self) -> dict[str, Any]:
        # What was staged goes to the process by itself.
        return {**self.__dict__, "state_dict_cache": None, "_leftovers": None}


def _copied_on_cpu(value: Any) -> Any:
    is_there = isinstance(value, torch.Tensor) and value.device.type == "cpu"
    return value.detach().clone() if is_there else value
