"""CheckpointManager: a run's checkpoints below one URI."""

import builtins
import logging
from types import TracebackType
from typing import Any, Final, Literal, Self

from s3dataset._client import ClientRef
from s3dataset._commits import (
    Attempt,
    Catalog,
    CommitRecord,
    Committed,
    Damage,
    Layout,
    Marks,
    Pruned,
    Pruner,
    check_retention,
    check_step,
    find_damage,
)
from s3dataset._config import S3ClientConfig
from s3dataset._manager._background import Background, CheckpointFuture
from s3dataset._manager._formats import FORMATS, LoadOptions, Place, make_format
from s3dataset._manager._ranks import Ranks
from s3dataset._manager._restoring import Restorer
from s3dataset._manager._saving import Draft, Retention, Saver, Wish
from s3dataset._manager._types import CheckpointInfo, Restored, info_of
from s3dataset._progress import Progress
from s3dataset.errors import ConflictError, DecodeError, ObjectNotFoundError, S3Exception

__all__ = ["CheckpointManager"]

_LOGGER: Final = logging.getLogger("s3dataset")

FormatName = Literal["torch", "dcp", "safetensors"]


class CheckpointManager:
    """Saves a run's checkpoints below one URI, and restores the newest one that is whole.

    A checkpoint is its files and a commit record, which is written last: until then nothing of it is seen, and from
    then on all of it is. Whatever ends a save, the newest committed checkpoint can be restored, and what was left of
    the attempt is deleted later.

    With torch.distributed, `save`, `save_async`, `restore`, `latest`, `rollback`, `prune` and `close` are collective:
    all ranks call them, in the same order. They fail on all ranks when they fail on one. Rank 0 reads and writes commit
    records, and tells the others over a group that nothing else uses, so that nothing gets between the collectives of
    the training. `list`, `pin`, `unpin` and `verify` are of the calling rank alone.

    One job at a time saves to a URI. Not safe between threads, and not for forked children.

    Example:
        >>> with CheckpointManager("s3://bucket/run-7", keep_last=3) as manager:
        ...     restored = manager.restore()
        ...     if restored is not None:
        ...         model.load_state_dict(restored.state["model"])
        ...     for step, batch in enumerate(loader, restored.step + 1 if restored else 0):
        ...         ...
        ...         if step % 1000 == 0:
        ...             manager.save_async(step, {"model": model.state_dict()})

    Args:
        uri: "s3://bucket/run-7"; nothing else should be below it.
        format: "torch": one file of torch.save, of what rank 0 gives. "dcp": torch.distributed.checkpoint, for states
            that are spread over ranks. "safetensors": one file of a flat dict of tensors, of what rank 0 gives.
        keep_last: So many of the newest checkpoints are kept; None: all.
        keep_every: Those whose step it divides are kept for good, beside the last ones.
        process_group: Whose ranks save together, and over which they agree: one with a backend for the CPU that nothing
            else uses, `torch.distributed.new_group(ranks, backend="gloo")`. Default: all ranks of the default group,
            over a gloo group that is made at the first call that is collective.
        region: Where the bucket is; default: from the environment, the profile, else the bucket itself tells.
        endpoint: URL of a service of one's own; default: from the environment, else Amazon's.
        s3client_config: Everything else.

    Raises:
        InvalidUriError: `uri` is something else.
        ValueError: `format` is unknown, or a number is less than 1.
        InvalidConfigError: The endpoint is no URL. It is a ValueError too.
        TypeError: An argument is of another kind.
    """

    def __init__(
        self,
        uri: str,
        *,
        format: FormatName = "torch",  # noqa: A002 - as api and files name it
        keep_last: int | None = 3,
        keep_every: int | None = None,
        process_group: Any = None,
        region: str | None = None,
        endpoint: str | None = None,
        s3client_config: S3ClientConfig | None = None,
    ) -> None:
        self._layout: Final = Layout.at(uri)
        check_retention(keep_last, keep_every)
        self._place = Place(region, endpoint, s3client_config)
        self._format_name = format
        self._files = make_format(format, self._place)
        ref = ClientRef(region, endpoint, s3client_config)
        ref.get()  # checks what was given; reads and sends nothing
        self._catalog = Catalog(self._layout, ref)
        self._ranks = Ranks(process_group)
        self._background = Background()
        self._saver = Saver(self._catalog, self._ranks, format, self._files, Retention(keep_last, keep_every))

    @property
    def uri(self) -> str:
        """Where the checkpoints are."""
        return str(self._layout)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.uri!r}, format={self._format_name!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except Exception:
            if value is None:  # an exception on its way counts for more; this one was logged
                raise

    # -- Saving ------------------------------------------------------------------------------------------------------

    def save(
        self,
        step: int,
        state: Any,
        *,
        dataset_state: Any = None,
        metadata: Any = None,
        overwrite: bool = False,
        progress: Progress | bool | None = None,
    ) -> CheckpointInfo:
        """Saves a checkpoint; returns when it is committed. Then deletes what the retention does not keep.

        Collective.

        Args:
            step: Of the training, from 0 to 999,999,999,999; newer than all that are committed.
            state: What the format saves: see `format`.
            dataset_state: Any JSON value, such as a loader's `state_dict()`; it goes into the commit record. That of
                rank 0 counts, as with `metadata`.
            metadata: Any JSON value, such as {"loss": 0.3}.
            overwrite: Replace a checkpoint of the same step, and allow one older than the newest.
            progress: As of `S3Checkpoint.save`.

        Raises:
            PreconditionFailedError: The step is committed already, and `overwrite` is False; or another job committed
                it meanwhile.
            ValueError: `step` is older than the newest committed one, and `overwrite` is False; or no step.
            TypeError: `state` cannot be saved in this format, or what should be JSON is none.
            S3Exception: It was not saved, or an earlier `save_async` failed and nobody has asked for its result. What
                was committed before is as it was.
        """
        draft = self._begin(Wish(step, dataset_state, metadata, overwrite), state)
        prefix = self._prefix(draft)
        return self._saver.write(draft, lambda: self._files.save(state, prefix, self._ranks, progress))

    def save_async(
        self, step: int, state: Any, *, dataset_state: Any = None, metadata: Any = None, overwrite: bool = False
    ) -> CheckpointFuture:
        """Copies the state and returns; a thread saves the copy and commits it while the program goes on.

        When this returns, `state` may change. The copy takes as much memory of this machine again as the state does.
        If an earlier save is still under way, this waits for it first. The end of the interpreter waits too; `close`
        before `destroy_process_group`. Collective.

        Args:
            step: As of `save`.
            state: As of `save`.
            dataset_state: As of `save`.
            metadata: As of `save`.
            overwrite: As of `save`.

        Returns:
            A future of the committed checkpoint. An error is raised by its `result()`; where nobody asks, by the next
            call on the manager, and it is logged in any case.

        Raises:
            PreconditionFailedError, ValueError, TypeError, S3Exception: As of `save`.
        """
        draft = self._begin(Wish(step, dataset_state, metadata, overwrite), state)
        try:
            wait = self._files.save_async(state, self._prefix(draft), self._ranks)
        except Exception as failed:  # noqa: BLE001 - the other ranks hear of it in the background
            wait = _raising(failed)
        return self._background.submit(
            lambda: self._saver.write(draft, wait), f"the checkpoint of step {step} of {self.uri} was NOT saved"
        )

    def rollback(self, step: int) -> builtins.list[int]:
        """Makes an older checkpoint the newest one, by deleting all that are newer, oldest first. Collective.

        Until the last of them is gone, the newest one is what it was.

        Args:
            step: The one to go back to.

        Returns:
            The steps that were deleted.

        Raises:
            ObjectNotFoundError: It is not committed.
            ConflictError: A newer one is pinned, or somebody restores it.
            S3Exception: Not all of them could be deleted; calling it again goes on.
        """

        def lead(steps: list[int]) -> builtins.list[int]:
            if self._catalog.find(steps[0]) is None:
                raise self._not_there(steps[0])
            return self._delete_newer(steps[0])

        return self._ranks.together(lambda: self._settled(check_step(step)), lead, f"{self.uri} was not rolled back")

    def _delete_newer(self, step: int) -> builtins.list[int]:
        newer = sorted(entry.step for entry in self._catalog.entries() if entry.step > step)
        kept = Marks(self._catalog).pinned() & set(newer)
        if kept:
            raise ConflictError(f"step {max(kept)} of {self.uri} is newer and pinned: unpin it first")
        deleted = Pruner(self._catalog).delete_steps(newer)
        left = sorted(set(newer) - set(deleted))
        if left:
            raise ConflictError(f"step {left[-1]} of {self.uri} is being restored or was pinned: it stays, try again")
        for gone in deleted:
            self._saver.damaged.pop(gone, None)
        return deleted

    # -- Restoring ---------------------------------------------------------------------------------------------------

    def restore(
        self,
        state: Any = None,
        *,
        step: int | None = None,
        map_location: Any = None,
        weights_only: bool = True,
        verify: bool = False,
        progress: Progress | bool | None = None,
    ) -> Restored | None:
        """Restores the newest committed checkpoint that is whole. Collective.

        Names, sizes and ETags of its files are compared with the commit record, and while they are read their bytes
        with the checksums that the service has stored. If a file is missing or damaged on any rank, all of them go on
        with the next older one, and `skipped` says why. Any other failure (the network, a model that does not fit) is
        raised: an older checkpoint would not help.

        Args:
            state: With format "dcp": the state dict that is filled in place. Otherwise None.
            step: This one, or none.
            map_location: As torch.load's; with format "safetensors" a device.
            weights_only: As torch.load's.
            verify: Read every byte beforehand and compare it. Only format "dcp" gains: it reads ranges, for which no
                checksums are stored.
            progress: As of `S3Checkpoint.load`.

        Returns:
            What was restored; None when nothing is committed.

        Raises:
            ObjectNotFoundError: `step` is not committed.
            TypeError: `state` is not what the format wants.
            S3Exception: All that is committed is damaged, a newer s3dataset wrote it, or it could not be loaded.
        """

        def mine() -> int | None:
            wanted = None if step is None else check_step(step)
            self._files.check_restore(state)
            self._settled(None)
            return wanted

        wanted = self._ranks.together(mine, lambda steps: steps[0], f"{self.uri} was not restored")
        options = LoadOptions(map_location, weights_only, progress)

        def load(record: CommitRecord) -> Any:
            attempt = Attempt(record.step, record.attempt)
            files = self._files
            if record.format != self._format_name:
                if record.format not in FORMATS:
                    raise S3Exception(
                        f"step {record.step} of {self.uri} has the format {record.format!r}, unknown here"
                    )
                files = make_format(record.format, self._place)
                files.check_restore(state)
            return files.load(state, self._layout.uri(self._layout.files(attempt)), self._ranks, options)

        return Restorer(self._catalog, self._ranks, load, wanted, self._saver.damaged, verify=verify).run()

    # -- What there is -----------------------------------------------------------------------------------------------

    def latest(self) -> int | None:
        """The newest committed step, None when there is none: one request. Collective."""

        def lead(_: Any) -> int | None:
            entries = self._catalog.entries(all_pages=False)
            return entries[0].step if entries else None

        newest: int | None = self._ranks.together(lambda: self._settled(None), lead, f"{self.uri} was not listed")
        return newest

    def list(self) -> builtins.list[CheckpointInfo]:
        """The committed checkpoints, newest first. Those whose commit records are damaged are logged, and left out.

        Of this rank alone.

        Raises:
            S3Exception: A newer s3dataset wrote one of them, or the service could not be asked.
        """
        steps = [entry.step for entry in self._catalog.entries()]
        pinned = Marks(self._catalog).pinned()
        found = self._catalog.read_many(steps)
        infos = []
        for step in steps:
            committed = found[step]
            if isinstance(committed, Committed):
                infos.append(self._info(committed, pinned=step in pinned))
            elif isinstance(committed, DecodeError):
                _LOGGER.warning("%s", committed)
            elif not isinstance(committed, ObjectNotFoundError):  # deleted meanwhile
                raise committed
        return infos

    def pin(self, step: int) -> None:
        """Keeps a checkpoint until `unpin`, whatever the retention says. Of this rank alone.

        Raises:
            ObjectNotFoundError: The step is not committed.
        """
        Marks(self._catalog).pin(check_step(step))

    def unpin(self, step: int) -> None:
        """Takes a pin away; nothing happens where there is none. Of this rank alone."""
        Marks(self._catalog).unpin(check_step(step))

    def verify(self, step: int | None = None, *, progress: Progress | None = None) -> builtins.list[Damage]:
        """Reads every byte of a checkpoint, and compares names, sizes, ETags and checksums. Of this rank alone.

        Args:
            step: Which; None: the newest.
            progress: Is called with (bytes done, all bytes) now and then.

        Returns:
            What is wrong; [] when it is whole.

        Raises:
            ObjectNotFoundError: The step is not committed.
            S3Exception: The service could not be asked.
        """
        if step is None:
            entries = self._catalog.entries(all_pages=False)
            if not entries:
                raise ObjectNotFoundError(f"{self.uri} has no checkpoint", uri=self.uri)
            step = entries[0].step
        number = check_step(step)
        try:
            record = self._catalog.read(number).record
        except ObjectNotFoundError:
            raise self._not_there(number) from None
        with Marks(self._catalog).restore(number):
            return find_damage(self._catalog, record, progress)

    def prune(self, *, dry_run: bool = False) -> Pruned:
        """Deletes what the retention does not keep, and what crashes have left for more than a day. Collective.

        Every save does so too. Pinned checkpoints stay, and those that somebody restores.

        Args:
            dry_run: Delete nothing, and tell what would be deleted.

        Raises:
            S3Exception: Not all of it could be deleted; the next run goes on.
        """
        return self._ranks.together(
            lambda: self._settled(None),
            lambda _: self._saver.prune(dry_run=dry_run),
            f"{self.uri} was not pruned",
        )

    def close(self) -> None:
        """Waits for the save under way, and ends the group of the manager's own. Collective. Idempotent.

        Raises:
            S3Exception: That save failed, and nobody has asked for its result.
        """
        error = self._background.settle()
        self._background.close()
        self._ranks.close()
        if error is not None:
            raise error

    # -- Parts of it -------------------------------------------------------------------------------------------------

    def _begin(self, wish: Wish, state: Any) -> Draft:
        return self._saver.begin(wish, state, self._background.settle())

    def _settled(self, value: Any) -> Any:
        """`value`, once no save is under way.

        Raises:
            S3Exception: It failed, and nobody has asked for its result.
        """
        error = self._background.settle()
        if error is not None:
            raise error
        return value

    def _prefix(self, draft: Draft) -> str:
        return self._layout.uri(self._layout.files(draft.attempt))

    def _info(self, committed: Committed, *, pinned: bool) -> CheckpointInfo:
        record = committed.record
        files = self._layout.files(Attempt(record.step, record.attempt))
        return info_of(record, self._layout.uri(files), pinned=pinned)

    def _not_there(self, step: int) -> ObjectNotFoundError:
        return ObjectNotFoundError(
            f"{self.uri} has no checkpoint of step {step}: list() tells those there are",
            uri=self._layout.uri(self._layout.commit(step)),
        )


def _raising(error: Exception) -> Any:
    def wait() -> None:
        raise error

    return wait
