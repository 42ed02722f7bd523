"""A save, from the agreement to begin it to the commit record and what is deleted after it."""

import logging
import platform
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import torch

import s3dataset
from s3dataset._commits import (
    Attempt,
    Catalog,
    CommitRecord,
    Committed,
    Pruned,
    Pruner,
    check_json,
    check_step,
)
from s3dataset._manager._formats import Format
from s3dataset._manager._ranks import LostRanksError, Ranks
from s3dataset._manager._types import CheckpointInfo, info_of
from s3dataset.errors import DecodeError, ObjectNotFoundError, PreconditionFailedError, S3Exception

__all__ = ["Draft", "Retention", "Saver", "Wish"]

_LOGGER: Final = logging.getLogger("s3dataset")


class Retention(NamedTuple):
    """What is kept; see `CheckpointManager`."""

    keep_last: int | None
    keep_every: int | None


class Wish(NamedTuple):
    """What a rank asks to be saved, besides the state."""

    step: Any
    dataset_state: Any
    metadata: Any
    overwrite: bool


class Draft(NamedTuple):
    """A save that all ranks have agreed to.

    Attributes:
        attempt: Whose files are written.
        replaces: ETag of the commit record that it replaces, None where the step has none.
        replaced: The attempt which that record names.
    """

    attempt: Attempt
    replaces: str | None
    replaced: Attempt | None
    dataset_state: Any
    metadata: Any


class Saver:
    """Saves of one manager. One at a time; each method is called on all ranks.

    Args:
        catalog: Where.
        ranks: Who.
        name: Of the format.
        files: The format.
        retention: What is kept after a save.
    """

    def __init__(self, catalog: Catalog, ranks: Ranks, name: str, files: Format, retention: Retention) -> None:
        self._catalog = catalog
        self._ranks = ranks
        self._name = name
        self._files = files
        self._retention = retention
        self._pruner = Pruner(catalog)
        self._mine: set[Attempt] = set()
        self._lost: set[Attempt] = set()
        self._doubtful: set[Attempt] = set()
        self.damaged: dict[int, str] = {}
        """Of committed steps that turned out to be damaged, the ETags of their records; on rank 0."""

    def begin(self, wish: Wish, state: Any, earlier: BaseException | None) -> Draft:
        """Agrees to a save.

        Args:
            wish: What this rank asks for.
            state: Of this rank.
            earlier: Error of a save before that nobody has asked about; it is raised.

        Raises:
            PreconditionFailedError: The step is committed already.
            ValueError: A newer step is committed.
        """

        def mine() -> int:
            if earlier is not None:
                raise earlier
            step = check_step(wish.step)
            check_json(wish.dataset_state, "dataset_state")
            check_json(wish.metadata, "metadata")
            self._files.check(state, self._ranks)
            return step

        def lead(steps: list[int]) -> Draft:
            if len(set(steps)) > 1:
                raise ValueError(f"the ranks save different steps at once: {steps[:16]}")
            return self._draft(steps[0], wish)

        return self._ranks.together(mine, lead, f"{self._catalog.layout}: no checkpoint was saved")

    def write(self, draft: Draft, write: Callable[[], None]) -> CheckpointInfo:
        """Writes this rank's files; when those of all ranks are there, rank 0 commits them, and deletes what it may."""
        attempt = draft.attempt
        what = f"step {attempt.step} of {self._catalog.layout} was not saved"
        try:
            record = self._ranks.together(write, lambda _: self._commit(draft), what)
        except BaseException as error:
            others_write = isinstance(error, LostRanksError) or not isinstance(error, Exception)
            if self._ranks.rank == 0:
                self._give_up(attempt, may_delete=self._ranks.world_size == 1 or not others_write)
            raise
        if self._ranks.rank == 0:
            self._mine.discard(attempt)
            self._tidy(draft)
        return info_of(record, self._catalog.layout.uri(self._catalog.layout.files(attempt)), pinned=False)

    def prune(self, *, dry_run: bool = False) -> Pruned:
        """Deletes what the retention does not keep, and what crashes have left. On rank 0."""
        pruned = self._pruner.prune(
            **self._retention._asdict(),
            damaged=self.damaged,
            mine=self._mine,
            lost=self._lost,
            dry_run=dry_run,
        )
        if not dry_run:
            self._lost.clear()
        return pruned

    # -- On rank 0 ---------------------------------------------------------------------------------------------------

    def _draft(self, step: int, wish: Wish) -> Draft:
        catalog = self._catalog
        whole = [entry for entry in catalog.entries(all_pages=False) if self.damaged.get(entry.step) != entry.etag]
        newest = whole[0].step if whole else -1
        etag = catalog.find(step) if step <= max([newest, *self.damaged]) else None
        if etag is None:
            if step < newest and not wish.overwrite:
                raise ValueError(
                    f"step {step} is older than the newest checkpoint of {catalog.layout}, which is of step {newest} "
                    "and would still be the one that restore() takes. Call rollback(step) to go back to an older one "
                    "for good, save to another URI, or give overwrite=True to save it all the same"
                )
        elif not wish.overwrite and self.damaged.get(step) != etag:
            raise PreconditionFailedError(
                f"step {step} of {catalog.layout} is committed already: give overwrite=True to replace it",
                uri=catalog.layout.uri(catalog.layout.commit(step)),
            )
        attempt = Attempt.new(step)
        self._mine.add(attempt)
        return Draft(attempt, etag, self._named(step) if etag else None, wish.dataset_state, wish.metadata)

    def _named(self, step: int) -> Attempt | None:
        """The attempt that a step's commit record names, if that can be read."""
        try:
            return Attempt(step, self._catalog.read(step).record.attempt)
        except (DecodeError, ObjectNotFoundError):
            return None

    def _commit(self, draft: Draft) -> CommitRecord:
        attempt = draft.attempt
        objects = self._catalog.stored(attempt)
        if not objects:
            raise S3Exception(f"{self._catalog.layout.uri(self._catalog.layout.files(attempt))} has no files")
        record = CommitRecord(
            step=attempt.step,
            attempt=attempt.name,
            format=self._name,
            world_size=self._ranks.world_size,
            time=round(time.time(), 3),
            objects=objects,
            dataset_state=draft.dataset_state,
            metadata=draft.metadata,
            libraries={
                "s3dataset": s3dataset.__version__,
                "torch": str(torch.__version__),
                "python": platform.python_version(),
            },
        )
        try:
            self._catalog.commit(record, replaces=draft.replaces)
        except S3Exception as error:
            if not self._committed_after_all(attempt, error):
                raise
        self.damaged.pop(attempt.step, None)
        return record

    def _committed_after_all(self, attempt: Attempt, error: S3Exception) -> bool:
        refused = 400 <= error.status < 500
        try:
            found: Committed | None = self._catalog.read(attempt.step)
        except ObjectNotFoundError:
            found = None
        except S3Exception as unknown:
            error.add_note(f"Whether it was committed all the same could not be found out: {unknown}")
            refused = False
            found = None
        if found is not None and found.record.attempt == attempt.name:
            return True
        if not refused:
            self._doubtful.add(attempt)
        return False

    def _give_up(self, attempt: Attempt, *, may_delete: bool) -> None:
        """Deletes the files of a save that failed, unless somebody may still write them, or a record name them."""
        self._mine.discard(attempt)
        if attempt in self._doubtful or not may_delete:
            _LOGGER.warning(
                "files of a save that failed stay for a day, since it is not known how it ended: %s",
                self._catalog.layout.uri(self._catalog.layout.files(attempt)),
            )
            return
        try:
            self._catalog.delete_files(attempt)
        except S3Exception as error:
            self._lost.add(attempt)
            _LOGGER.warning("files of a save that failed are deleted later: %s", error)

    def _tidy(self, draft: Draft) -> None:
        """What follows a commit, and does not make it fail."""
        try:
            if draft.replaced is not None:
                self._pruner.delete_replaced(draft.replaced)
            self.prune()
        except S3Exception as error:
            _LOGGER.warning("%s: older checkpoints are deleted later: %s", self._catalog.layout, error)
