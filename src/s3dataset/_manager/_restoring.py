"""A restore: the newest committed checkpoint that is whole, on all ranks or on none."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal, NamedTuple

from s3dataset._commits import Catalog, CommitRecord, Committed, Damage, Marks, find_damage, missing_files
from s3dataset._manager._ranks import LostRanksError, Ranks
from s3dataset._manager._types import Restored, Skipped
from s3dataset.errors import (
    ChecksumMismatchError,
    DecodeError,
    ObjectChangedError,
    ObjectNotFoundError,
    S3Exception,
)

__all__ = ["Restorer"]

_LOGGER: Final = logging.getLogger("s3dataset")

_MOST_TOLD: Final = 4
_DEEPEST_CAUSE: Final = 8
_DAMAGE: Final = (ObjectNotFoundError, ObjectChangedError, ChecksumMismatchError)


class _Choice(NamedTuple):
    """The checkpoint that is tried next; None: there is none."""

    record: CommitRecord | None
    skipped: list[Skipped]


class _Outcome(NamedTuple):
    """How a rank's attempt to load it ended."""

    kind: Literal["loaded", "damaged", "failed"]
    text: str = ""


class Restorer:
    """One restore. Made and called on all ranks.

    Args:
        catalog: Where.
        ranks: Who.
        load: Loads the files of a record -> the state.
        step: Only this one; None: the newest that is whole.
        damaged: Takes the ETags of the records of damaged steps.
        verify: Read every byte beforehand; the ranks share the files.
    """

    def __init__(
        self,
        catalog: Catalog,
        ranks: Ranks,
        load: Callable[[CommitRecord], Any],
        step: int | None,
        damaged: dict[int, str],
        *,
        verify: bool,
    ) -> None:
        self._catalog = catalog
        self._marks = Marks(catalog)
        self._ranks = ranks
        self._load = load
        self._step = step
        self._damaged = damaged
        self._verify = verify
        self._tried: set[tuple[int, str]] = set()
        self._skipped: list[Skipped] = []
        self._chosen: Committed | None = None
        self._mark: str | None = None

    def run(self) -> Restored | None:
        """Restores; None when nothing is committed.

        Raises:
            ObjectNotFoundError: The step asked for is not committed.
            S3Exception: Nothing that is committed is whole, or it could not be loaded.
        """
        try:
            while True:
                record, skipped = self._ranks.lead(self._choose)
                if record is None:
                    return None
                if self._verify and not self._together(self._compare, record)[0]:
                    continue
                is_loaded, state = self._together(self._load, record)
                if is_loaded:
                    return Restored(record.step, state, record.dataset_state, record.metadata, skipped)
        finally:
            self._marks.end(self._mark)

    def _together(self, work: Callable[[CommitRecord], Any], record: CommitRecord) -> tuple[bool, Any]:
        """Every rank does `work` -> whether all could, and its result; False: the checkpoint is damaged."""
        result: Any = None
        error: Exception | None = None
        outcome = _Outcome("loaded")
        try:
            result = work(record)
        except Exception as failed:  # noqa: BLE001 - the ranks decide what becomes of it
            outcome = _Outcome("damaged" if _is_damage(failed) else "failed", f"{type(failed).__name__}: {failed}")
            error = failed
        outcomes = self._ranks.gather(outcome) or []
        try:
            return self._ranks.lead(partial(self._judge, outcomes)), result
        except LostRanksError:
            raise
        except S3Exception:
            if error is not None:
                raise error from None
            raise

    def _compare(self, record: CommitRecord) -> None:
        """Reads this rank's share of the files."""
        damages = find_damage(self._catalog, record, share=(self._ranks.rank, self._ranks.world_size))
        if damages:
            raise ChecksumMismatchError(_summary(damages))

    # -- On rank 0 ---------------------------------------------------------------------------------------------------

    def _choose(self) -> _Choice:
        while (candidate := self._next()) is not None:
            self._tried.add(candidate)
            step = candidate[0]
            self._mark = self._marks.begin(step)  # before the record is read: see Marks
            try:
                found = self._catalog.read(step)
            except ObjectNotFoundError:  # deleted or replaced since it was listed
                self._end_mark()
                continue
            except DecodeError as error:
                self._skip(candidate, str(error))
                continue
            candidate = (step, found.etag)
            self._tried.add(candidate)
            damages = missing_files(self._catalog, found.record)
            if not damages:
                self._chosen = found
                return _Choice(found.record, list(self._skipped))
            self._skip(candidate, _summary(damages))
        if self._skipped:
            reasons = "; ".join(f"step {skipped.step}: {skipped.reason}" for skipped in self._skipped)
            raise S3Exception(f"no checkpoint of {self._catalog.layout} can be restored: {reasons}")
        if self._step is not None:
            raise ObjectNotFoundError(
                f"{self._catalog.layout} has no checkpoint of step {self._step}: list() tells those there are",
                uri=self._catalog.layout.uri(self._catalog.layout.commit(self._step)),
            )
        return _Choice(None, [])

    def _next(self) -> tuple[int, str] | None:
        """The newest (step, ETag of its record) that was not tried, as the store has it now."""
        if self._step is not None:
            etag = self._catalog.find(self._step)
            found = [] if etag is None else [(self._step, etag)]
        else:
            found = [(entry.step, entry.etag) for entry in self._catalog.entries()]
        return next((candidate for candidate in found if candidate not in self._tried), None)

    def _judge(self, outcomes: list[_Outcome]) -> bool:
        """-> whether all ranks have it; False: the next one is to be tried.

        Raises:
            S3Exception: The checkpoint is whole, and yet a rank could not load it: an older one would fail too, or,
                which is worse, would not.
        """
        chosen = self._chosen
        if chosen is None or all(outcome.kind == "loaded" for outcome in outcomes):
            return True
        record = chosen.record
        told = [f"rank {rank}: {outcome.text}" for rank, outcome in enumerate(outcomes) if outcome.kind != "loaded"]
        reason = "; ".join(told[:_MOST_TOLD]) if len(outcomes) > 1 else outcomes[0].text
        if not any(outcome.kind == "damaged" for outcome in outcomes):
            damages = find_damage(self._catalog, record)
            if not damages:
                raise S3Exception(f"step {record.step} of {self._catalog.layout} is whole and was not loaded: {reason}")
            reason = f"{_summary(damages)} ({reason})"
        self._skip((record.step, chosen.etag), reason)
        return False

    def _skip(self, candidate: tuple[int, str], reason: str) -> None:
        step, etag = candidate
        self._end_mark()
        self._damaged[step] = etag
        self._skipped.append(Skipped(step, reason))
        then = ", and an older one is tried" if self._step is None else ""
        _LOGGER.warning("step %d of %s is damaged%s: %s", step, self._catalog.layout, then, reason)

    def _end_mark(self) -> None:
        self._marks.end(self._mark)
        self._mark = None


def _is_damage(error: BaseException) -> bool:
    """Whether a file is missing or damaged, as far as the error and what caused it tell."""
    seen: BaseException | None = error
    for _ in range(_DEEPEST_CAUSE):
        if isinstance(seen, _DAMAGE):
            return True
        seen = seen.__cause__ if seen is not None else None
    return False


def _summary(damages: list[Damage]) -> str:
    told = "; ".join(map(str, damages[:_MOST_TOLD]))
    more = len(damages) - _MOST_TOLD
    return f"{told}; and {more:,} more" if more > 0 else told
