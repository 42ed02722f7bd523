"""Which epoch an iteration is, and where in it that begins: the same for all workers of a rank."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from s3dataset._page import Page

__all__ = ["Epochs", "Turn"]

_EPOCH_BITS = 32
_EPOCH_MASK = (1 << _EPOCH_BITS) - 1


class Turn(NamedTuple):
    """One iteration.

    Attributes:
        epoch: Its number.
        resume: The state that it goes on from; None: it begins at the epoch's beginning.
    """

    epoch: int
    resume: dict[str, Any] | None


class Epochs:
    """Counts epochs in the page, for a main process and its workers, whether these live for one epoch or for many.

    Whoever names an epoch begins a count: the first iteration from then on is that epoch, and each further one of the
    same reader is the next. Readers of a rank count alike, as each begins one iteration in every epoch of a DataLoader.

    Args:
        page: Gives the page that the processes share.
    """

    def __init__(self, page: Callable[[], Page]) -> None:
        self._page = page

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
                self._resume_path(page, rank).write_text(json.dumps(resume))
            count = (page.get(f"epoch.{rank}") >> _EPOCH_BITS) + 1
            page.set(f"resume.{rank}", count if resume is not None else 0)
            page.set(f"epoch.{rank}", count << _EPOCH_BITS | epoch)

    def begin(self, rank: int, reader: str) -> Turn:
        """Begins an iteration of one reader of a rank: "main", "worker 3" or "loader"."""
        page = self._page()
        with page.locked():
            named = page.get(f"epoch.{rank}")
            count = named >> _EPOCH_BITS
            begun = page.get(f"begun.{rank}.{reader}")
            number = begun & _EPOCH_MASK if begun >> _EPOCH_BITS == count else 0
            page.set(f"begun.{rank}.{reader}", count << _EPOCH_BITS | number + 1)
            return self._turn(page, rank, named, number)

    def goes_on(self, rank: int, reader: str, epoch: int) -> None:
        """Notes that a reader went on with an epoch by itself, so that its next iteration is the one behind that."""
        page = self._page()
        with page.locked():
            named = page.get(f"epoch.{rank}")
            number = max(0, epoch - (named & _EPOCH_MASK))
            page.set(f"begun.{rank}.{reader}", named >> _EPOCH_BITS << _EPOCH_BITS | number + 1)

    def last(self, rank: int, reader: str) -> Turn | None:
        """The iteration that a reader began last; None: none since the epoch was named."""
        page = self._page()
        with page.locked():
            named, begun = page.get(f"epoch.{rank}"), page.get(f"begun.{rank}.{reader}")
            if begun >> _EPOCH_BITS != named >> _EPOCH_BITS or not begun & _EPOCH_MASK:
                return None
            return self._turn(page, rank, named, (begun & _EPOCH_MASK) - 1)

    def coming(self, rank: int, reader: str) -> Turn:
        """The iteration that a reader will begin next."""
        page = self._page()
        with page.locked():
            named, begun = page.get(f"epoch.{rank}"), page.get(f"begun.{rank}.{reader}")
            same = begun >> _EPOCH_BITS == named >> _EPOCH_BITS
            return self._turn(page, rank, named, begun & _EPOCH_MASK if same else 0)

    def _turn(self, page: Page, rank: int, named: int, number: int) -> Turn:
        resume = None
        if number == 0 and page.get(f"resume.{rank}") == named >> _EPOCH_BITS != 0:
            resume = json.loads(self._resume_path(page, rank).read_text())
        return Turn((named & _EPOCH_MASK) + number, resume)

    @staticmethod
    def _resume_path(page: Page, rank: int) -> Path:
        return Path(f"{page.path}.resume.{rank}")
