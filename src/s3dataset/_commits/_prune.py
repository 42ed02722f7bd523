"""Deleting: checkpoints that nobody wants any more, and what crashes have left.

A commit record goes first, then its files: at every moment each record has all of its files. Records go oldest first,
so that the newest one stays the same until the end.
"""

import logging
from collections.abc import Callable, Collection, Iterable
from typing import Final, NamedTuple

from s3dataset._commits._catalog import Catalog, Committed, Entry
from s3dataset._commits._checks import missing_files
from s3dataset._commits._marks import Mark, Marks
from s3dataset._commits._names import Attempt
from s3dataset._commits._retention import expendable
from s3dataset._progress import Progress
from s3dataset.errors import DecodeError, ObjectNotFoundError, S3Exception

__all__ = ["STALE_S", "Pruned", "Pruner"]

_LOGGER: Final = logging.getLogger("s3dataset")

STALE_S: Final = 86_400.0
"""What nobody has committed for so long is left over: no save takes a day between two of its requests."""


class Pruned(NamedTuple):
    """What a run of `prune` has deleted, or would delete.

    Attributes:
        steps: Checkpoints, oldest first.
        attempts: Saves that were never committed, or were replaced, as "<step>.<attempt>".
        uploads: Unfinished uploads, by key.
    """

    steps: list[int]
    attempts: list[str]
    uploads: list[str]


class Pruner:
    """Deletes below one catalog.

    Args:
        catalog: Where.
        stale_s: Age in seconds from which on what was never committed is left over.
    """

    def __init__(self, catalog: Catalog, *, stale_s: float = STALE_S) -> None:
        self._catalog = catalog
        self._marks = Marks(catalog)
        self._stale_s = stale_s
        self._whole: set[tuple[int, str]] = set()  # steps and ETags of records, found whole before

    def prune(
        self,
        *,
        keep_last: int | None,
        keep_every: int | None,
        damaged: Collection[int] = (),
        mine: Collection[Attempt] = (),
        lost: Collection[Attempt] = (),
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> Pruned:
        """Deletes checkpoints beyond the retention, then what crashes have left.

        Args:
            keep_last: As of `expendable`.
            keep_every: As of `expendable`.
            damaged: As of `expendable`.
            mine: Attempts under way in this process, which are never left over.
            lost: Attempts of this process that failed, which are left over at once.
            dry_run: Delete nothing, and tell what would be deleted.
            progress: Is called with (deletions done, all deletions).

        Raises:
            S3Exception: Something could not be asked for, or not deleted. What is left is deleted by the next run.
        """
        attempts = self._catalog.attempts()  # before the records: what is committed meanwhile has its record below
        entries = self._catalog.entries()
        steps = [entry.step for entry in entries]
        marks = self._marks.restoring()
        now = self._catalog.now() if marks else 0.0
        kept = self._marks.pinned() | self._fresh(marks, now)
        gone = self._expendable(entries, keep_last, keep_every, kept, set(damaged))
        orphans = self._orphans(attempts, set(steps), mine, lost, self._fresh(marks, now))
        uploads = self._stale_uploads(mine, lost)
        pruned = Pruned(
            gone,
            [f"{attempt.step}.{attempt.name}" for attempt in orphans if attempt.step not in gone],
            [key for key, _ in uploads],
        )
        if dry_run:
            return pruned
        back, named = self._delete_records(gone)
        leaving = [attempt for attempt in attempts if attempt in orphans or (attempt not in mine and named(attempt))]
        for done, attempt in enumerate(leaving, 1):
            if attempt.step not in back:
                self._catalog.delete_files(attempt)
            if progress is not None:
                progress(done, len(leaving))
        for key, upload_id in uploads:
            self._catalog.abort_upload(key, upload_id)
        self._catalog.delete(mark.key for mark in marks if now - mark.last_modified > self._stale_s)
        return pruned._replace(steps=[step for step in gone if step not in back])

    def _expendable(
        self,
        entries: list[Entry],
        keep_last: int | None,
        keep_every: int | None,
        kept: Collection[int],
        damaged: set[int],
    ) -> list[int]:
        """What may go while those that count among the last ones are whole, as far as a listing tells."""
        etags = {entry.step: entry.etag for entry in entries}
        while True:
            gone = expendable(etags, keep_last=keep_last, keep_every=keep_every, keep=kept, damaged=damaged)
            if not gone or keep_last is None:
                return gone
            last = [step for step in etags if step not in damaged][:keep_last]
            found = self._damaged_of({step: etags[step] for step in last})
            if not found:
                return gone
            damaged |= found

    def _damaged_of(self, etags: dict[int, str]) -> set[int]:
        """Those of these steps whose records cannot be read, or whose files are not all there."""
        unknown = [step for step, etag in etags.items() if (step, etag) not in self._whole]
        damaged = set()
        for step, committed in self._catalog.read_many(unknown).items():
            if isinstance(committed, Committed):
                reason = "; ".join(map(str, missing_files(self._catalog, committed.record)[:1]))
            else:
                reason = str(committed) if isinstance(committed, DecodeError | ObjectNotFoundError) else ""
            if reason:
                damaged.add(step)
                _LOGGER.warning("step %d is damaged, and an older one is kept in its place: %s", step, reason)
            else:
                self._whole.add((step, etags[step]))
        return damaged

    def delete_steps(self, steps: Iterable[int]) -> list[int]:
        """Deletes these checkpoints, in this order, unless somebody restores them -> those deleted.

        Raises:
            S3Exception: Something could not be asked for, or not deleted.
        """
        wanted = list(steps)
        attempts = [attempt for attempt in self._catalog.attempts() if attempt.step in set(wanted)]
        back, named = self._delete_records(wanted, one_by_one=True)
        for attempt in attempts:
            if attempt.step not in back and named(attempt):
                self._catalog.delete_files(attempt)
        return [step for step in wanted if step not in back]

    def delete_replaced(self, attempt: Attempt) -> None:
        """Deletes the files that an overwritten checkpoint had, unless somebody restores that step.

        Raises:
            S3Exception: They could not be deleted; they are left over now.
        """
        marks = [mark for mark in self._marks.restoring() if mark.step == attempt.step]
        if not self._fresh(marks, self._catalog.now() if marks else 0.0):
            self._catalog.delete_files(attempt)

    def _fresh(self, marks: Iterable[Mark], now: float) -> set[int]:
        return {mark.step for mark in marks if now - mark.last_modified <= self._stale_s}

    def _delete_records(
        self, steps: list[int], *, one_by_one: bool = False
    ) -> tuple[set[int], Callable[[Attempt], bool]]:
        """Deletes commit records.

        Returns:
            Steps that were pinned, or begun to be restored, meanwhile: theirs are back. And whether an attempt is one
            that a record named: another job may be writing a further one of the same step.
        """
        if not steps:
            return set(), lambda _: False
        catalog = self._catalog
        found = catalog.read_many(steps)
        keys = [catalog.layout.commit(step) for step in steps]
        if one_by_one:
            for key in keys:
                catalog.delete([key])
        else:
            catalog.delete(keys)
        marks = [mark for mark in self._marks.restoring() if mark.step in found]
        now = catalog.now() if marks else 0.0
        back = (self._marks.pinned() | self._fresh(marks, now)) & set(found)
        for step in back:
            committed = found[step]
            if isinstance(committed, Committed):
                catalog.put_back(committed)

        def named(attempt: Attempt) -> bool:
            committed = found.get(attempt.step)
            if isinstance(committed, Committed):
                return committed.record.attempt == attempt.name
            return isinstance(committed, S3Exception) and not isinstance(committed, ObjectNotFoundError)

        return back, named

    def _orphans(
        self,
        attempts: list[Attempt],
        committed: set[int],
        mine: Collection[Attempt],
        lost: Collection[Attempt],
        restored: set[int],
    ) -> list[Attempt]:
        """Attempts that no record names, and that nobody writes any more."""
        of_step: dict[int, list[Attempt]] = {}
        for attempt in attempts:
            of_step.setdefault(attempt.step, []).append(attempt)
        doubtful = [step for step, several in of_step.items() if step in committed and len(several) > 1]
        records = self._catalog.read_many(doubtful)
        found = []
        for step, several in of_step.items():
            if step in restored or (step in committed and step not in doubtful):
                continue  # files of which somebody reads, or the one attempt that the record must mean
            record = records.get(step)
            if isinstance(record, S3Exception):
                continue  # nobody knows which of them it means
            named = record.record.attempt if record is not None else ""
            found += [attempt for attempt in several if attempt.name != named and attempt not in mine]
        fresh = [attempt for attempt in found if attempt not in lost]
        now = self._catalog.now() if fresh else 0.0
        return [attempt for attempt in found if attempt in lost or self._age(attempt, now) > self._stale_s]

    def _age(self, attempt: Attempt, now: float) -> float:
        """Seconds since something was last written for it."""
        newest = max((info.last_modified for info in self._catalog.list_files(attempt)), default=0)
        return now - newest

    def _stale_uploads(self, mine: Collection[Attempt], lost: Collection[Attempt]) -> list[tuple[str, str]]:
        """(key, upload id) of uploads below data/ that nobody goes on with."""
        uploads = self._catalog.uploads()
        now = self._catalog.now() if uploads else 0.0
        found = []
        for upload in uploads:
            attempt = self._catalog.layout.attempt_of(upload.key)
            if attempt is None or attempt in mine:
                continue
            if attempt in lost or (upload.initiated and now - upload.initiated > self._stale_s):
                found.append((upload.key, upload.upload_id))
        return found
