"""Batches that name those which follow them at the same worker."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import Any, Final

__all__ = ["Batch", "DrawnBatch", "LookAhead", "look_ahead"]

_BATCHES_AHEAD: Final = 4
_SAMPLES_AHEAD: Final = (
    128  # 4 batches of 32: at 25 ms to the first byte a worker may then reach 5,000 samples a second
)


_iterations: Final = count(1)


class DrawnBatch(list[int]):
    """The indices of a batch, whose samples draw random numbers of an epoch. A list in every other respect.

    Attributes:
        drawn: Seed and epoch, for `sample_rng`.
    """

    __slots__ = ("drawn",)

    def __init__(self, indices: Sequence[int], drawn: tuple[int, int] = (0, 0)) -> None:
        super().__init__(indices)
        self.drawn = drawn

    def __reduce__(self) -> tuple[Any, ...]:
        return DrawnBatch, (list(self), self.drawn)


class Batch(DrawnBatch):
    """The indices of a batch, and those of the batches that the same worker will be asked for next.

    A list in every other respect; pickles with `ahead`.

    Attributes:
        ahead: The next batches of the worker that gets this one, nearest first.
        iteration: Number of the iteration, in the process that names the batches.
    """

    __slots__ = ("ahead", "iteration")

    def __init__(
        self,
        indices: Sequence[int],
        ahead: Sequence[Sequence[int]] = (),
        iteration: int = 0,
        drawn: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__(indices, drawn)
        self.ahead = ahead
        self.iteration = iteration

    def __reduce__(self) -> tuple[Any, ...]:
        return Batch, (list(self), [list(batch) for batch in self.ahead], self.iteration, self.drawn)


def look_ahead(
    batches: Iterable[Iterable[int]], num_workers: int, ahead: int | None = None, drawn: tuple[int, int] = (0, 0)
) -> Iterator[list[int]]:
    """Reads batches ahead of who takes them, and names to each those that its worker gets next.

    Args:
        batches: What to read.
        num_workers: Batch k goes to worker k mod num_workers; 0: all go to the one process there is.
        ahead: How many are named; default: 4, and enough for 128 samples.
        drawn: See `DrawnBatch`.
    """
    source = iter(batches)
    iteration = next(_iterations)
    stride = max(1, num_workers)
    coming: deque[list[int]] = deque()
    reach: int | None = None if ahead is None else stride * ahead
    while True:
        while reach is None or len(coming) <= reach:
            batch = next(source, None)
            if batch is None:
                break
            coming.append(list(batch))
            if reach is None:
                reach = stride * max(_BATCHES_AHEAD, -(-_SAMPLES_AHEAD // max(1, len(coming[0]))))
        if not coming or reach is None:
            return
        current = coming.popleft()
        ahead_of_it = [coming[i] for i in range(stride - 1, min(len(coming), reach), stride)]
        yield Batch(current, ahead_of_it, iteration, drawn)


class LookAhead:
    """A batch sampler of somebody else's, read ahead. Otherwise it has that sampler's attributes."""

    def __init__(self, batches: Iterable[list[int]], num_workers: int, ahead: int | None) -> None:
        self._batches = batches
        self._num_workers = num_workers
        self._ahead = ahead

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_batches" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._batches, name)

    def __len__(self) -> int:
        return len(self._batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[int]]:
        return look_ahead(self._batches, self._num_workers, self._ahead)
