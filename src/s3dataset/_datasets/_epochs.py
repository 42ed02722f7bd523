"""Which epoch an iteration is, and where in it that begins: the same for all workers of a rank."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from s3dataset._page import Page

__all__ = ["LOADER", "MAIN", "WORKERS", "Epochs", "Turn"]

_EPOCH_BITS: Final = 32
_EPOCH_MASK: Final = (1 << _EPOCH_BITS) - 1
_MOST_LOADERS: Final = 16

MAIN: Final = "main"
"""A process that iterates by itself."""
LOADER: Final = "loader"
"""A loader of this package, which hands the epoch to its workers."""
WORKERS: Final = "workers"
"""All workers of a loader of somebody else's."""

_READERS: Final = (MAIN, LOADER, WORKERS)


class Turn(NamedTuple):
    """One iteration.

    Attributes:
        epoch: Its number.
        resume: The state that it goes on from; None: it begins at the epoch's beginning.
        loaded: The state that the user loaded last, for copies.
        begun: What its reader noted.
        batch_size: Of the batches; None: not known from whoever begins it.
        in_loader: Whether a loader of this package reads.
        first_worker: Whose batch comes first.
    """

    epoch: int
    resume: Mapping[str, Any] | None
    loaded: Mapping[str, Any] | None = None
    begun: int = 0
    batch_size: int | None = None
    in_loader: bool = False
    first_worker: int = 0

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left of it."""
        return self.resume is not None and self.resume.get("ended") is True


_FIRST = Turn(0, None)


class Epochs:
    """Counts epochs in the page, for a main process and its workers, whether these live for one epoch or for many.

    Whoever names an epoch begins a count: the first iteration from then on is that epoch, and each further one of the
    same kind of reader is the next. The kinds count by themselves, so that looking at a sample in the main process of
    one rank does not put its workers an epoch ahead of other ranks'.

    Args:
        page: Gives the page that the processes share.
        origin: Where a copy or a pickle begins to count.
    """

    def __init__(self, page: Callable[[], Page], origin: Turn = _FIRST) -> None:
        self._page = page
        self._origin = origin

    def name(self, rank: int, epoch: int, resume: Mapping[str, Any] | None = None) -> None:
        """Names the epoch of the next iteration, and perhaps the state that it goes on from.

        Raises:
            ValueError: The epoch is negative.
        """
        if not 0 <= epoch <= _EPOCH_MASK:
            raise ValueError(f"an epoch is a number from 0 on, got {epoch}")
        page = self._page()
        with page.locked():
            if resume is not None:
                self._path(page, "resume", rank).write_text(json.dumps(resume))
            count = (self._named(page, rank) >> _EPOCH_BITS) + 1
            page.set(f"resume.{rank}", count if resume is not None else 0)
            page.set(f"epoch.{rank}", count << _EPOCH_BITS | epoch)

    def load(self, rank: int, state: Mapping[str, Any]) -> None:
        """Names the epoch of a state that the user loaded, whose order later epochs keep."""
        page = self._page()
        with page.locked():
            self._path(page, "loaded", rank).write_text(json.dumps(state))
            page.set(f"loaded.{rank}", 1)
        self.name(rank, int(state["epoch"]), state)

    def loaded(self, rank: int) -> Mapping[str, Any] | None:
        """The state that the user loaded last."""
        page = self._page()
        with page.locked():
            if not page.get(f"loaded.{rank}"):
                return self._origin.loaded
            return cast("dict[str, Any]", json.loads(self._path(page, "loaded", rank).read_text()))

    def begin(self, rank: int, reader: str) -> Turn:
        """Begins an iteration of the main process or of a loader."""
        page = self._page()
        with page.locked():
            return self._begin(page, rank, reader)

    def begin_with(self, rank: int, workers: str, worker: int, number: int) -> Turn:
        """Begins an iteration of one of the workers of a loader of somebody else's, who all begin the same.

        The first of them to come decides.

        Args:
            rank: The rank.
            workers: Names the loader's workers.
            worker: The number of this one.
            number: How many iterations this one began, this one included.
        """
        page = self._page()
        path = self._path(page, "workers", rank)
        with page.locked():
            loaders: dict[str, Any] = json.loads(path.read_text()) if page.get(f"workers_began.{rank}") else {}
            known = loaders.pop(workers, None)
            if known is not None and known["number"] >= number and worker not in known["begun"]:
                turn = Turn(*known["turn"])
            else:
                known = {"number": number, "begun": []}
                turn = self._begin(page, rank, WORKERS)
            loaders[workers] = {**known, "begun": [*known["begun"], worker], "turn": turn}
            path.write_text(json.dumps(dict(list(loaders.items())[-_MOST_LOADERS:])))
            page.set(f"workers_began.{rank}", 1)
            return turn

    def _begin(self, page: Page, rank: int, reader: str) -> Turn:
        named = self._named(page, rank)
        number = self._number(page, rank, reader, named)
        begun = named >> _EPOCH_BITS << _EPOCH_BITS | number + 1
        page.set(f"begun.{rank}.{reader}", begun)
        return self._turn(page, rank, named, number)._replace(begun=begun)

    def give_back(self, rank: int, reader: str, turn: Turn) -> None:
        """Takes back the iteration that a reader began last, unless an epoch was named since."""
        page = self._page()
        with page.locked():
            named = self._named(page, rank)
            if page.get(f"begun.{rank}.{reader}") == turn.begun and turn.begun >> _EPOCH_BITS == named >> _EPOCH_BITS:
                page.set(f"begun.{rank}.{reader}", turn.begun - 1)

    def goes_on(self, rank: int, reader: str, epoch: int) -> None:
        """Notes that a reader went on with an epoch by itself, so that its next iteration is the one behind that.

        Where a later epoch is named already, that comes next.
        """
        page = self._page()
        with page.locked():
            named = self._named(page, rank)
            number = epoch - (named & _EPOCH_MASK)
            if number >= 0:
                page.set(f"begun.{rank}.{reader}", named >> _EPOCH_BITS << _EPOCH_BITS | number + 1)

    def last(self, rank: int, reader: str) -> Turn | None:
        """The iteration that a reader began last; None: none since the epoch was named."""
        page = self._page()
        with page.locked():
            named = self._named(page, rank)
            begun = self._number(page, rank, reader, named)
            if not begun:
                return None
            return self._turn(page, rank, named, begun - 1)._replace(begun=page.get(f"begun.{rank}.{reader}"))

    def coming(self, rank: int, reader: str) -> Turn:
        """The iteration that a reader will begin next."""
        page = self._page()
        with page.locked():
            named = self._named(page, rank)
            return self._turn(page, rank, named, self._number(page, rank, reader, named))

    def furthest(self, rank: int) -> Turn:
        """What the furthest reader will begin next."""
        page = self._page()
        with page.locked():
            named = self._named(page, rank)
            turn = self._turn(page, rank, named, max(self._number(page, rank, reader, named) for reader in _READERS))
        return turn._replace(loaded=self.loaded(rank))

    def note_workers(self, rank: int, num_workers: int) -> None:
        """Notes of how many workers one is."""
        self._page().set(f"workers.{rank}", num_workers)

    def workers(self, rank: int) -> int:
        """How many workers read last; 0: none did."""
        return self._page().get(f"workers.{rank}")

    def _named(self, page: Page, rank: int) -> int:
        """The epoch named last, and how many were."""
        return page.get(f"epoch.{rank}") or self._origin.epoch

    def _number(self, page: Page, rank: int, reader: str, named: int) -> int:
        """How many iterations a reader began since then."""
        begun = page.get(f"begun.{rank}.{reader}")
        return begun & _EPOCH_MASK if begun >> _EPOCH_BITS == named >> _EPOCH_BITS else 0

    def _turn(self, page: Page, rank: int, named: int, number: int) -> Turn:
        resume = None
        count = named >> _EPOCH_BITS
        if number == 0 and not count:
            resume = self._origin.resume
        elif number == 0 and page.get(f"resume.{rank}") == count:
            resume = json.loads(self._path(page, "resume", rank).read_text())
        return Turn((named & _EPOCH_MASK) + number, resume)

    @staticmethod
    def _path(page: Page, what: str, rank: int) -> Path:
        return Path(f"{page.path}.{what}.{rank}")
