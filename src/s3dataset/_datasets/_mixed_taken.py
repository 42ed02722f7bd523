"""What a loop took of a mixture: batches, and where the streams of shards without an index stand behind them."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from s3dataset._datasets._rank import Rank

if TYPE_CHECKING:
    from s3dataset._datasets._mixed import MixedDataset

__all__ = ["MixedTaken"]


class MixedTaken:
    """What a loop took of a mixture: so many batches.

    Args:
        dataset: The mixture.
        begun: Where the epoch began.
        rank: Of this process.
        batch_size: Samples of a batch.
        num_workers: The loader's.
        end: The slot at which the epoch ends; None: only its readers can tell.
    """

    def __init__(
        self,
        dataset: "MixedDataset",
        begun: dict[str, Any],
        rank: Rank,
        batch_size: int,
        num_workers: int,
        end: int | None,
    ) -> None:
        self._dataset = dataset
        self._begun = begun
        self._rank = rank
        self._batch_size = batch_size
        self._num_workers = num_workers
        self._end = end
        self._run: Any = None
        self._batches = 0
        self._taken: dict[int, int] = {}
        self._streams: dict[str, dict[str, Any]] = dict(begun.get("streams", {}))
        self._done = False
        self.going_on = False

    def batch(self) -> None:
        """See `Taken`."""
        self._batches += 1
        if self._run is not None and self._streams:
            self._note(0, self._run.taken, self._run.streams())

    def reads(self, run: Any) -> None:
        """See `Taken`."""
        self._run = None if self._num_workers else run

    def carried(self, state: bytes) -> None:
        """See `Taken`."""
        came = json.loads(state)
        self._note(came["worker"], came["taken"], came["streams"])

    def _note(self, worker: int, taken: int, streams: Mapping[str, Any]) -> None:
        self._taken[worker] = taken
        for number, standing in streams.items():
            before = self._streams[number]
            parts = {part[0]: part for part in (*before["parts"], *standing["parts"])}
            self._streams[number] = {**before, "parts": [parts[stream] for stream in sorted(parts)]}

    def end(self) -> None:
        """See `Taken`."""
        self._done = True

    def state(self) -> "MixedTaken":
        """See `Taken`."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """The state, as values for JSON."""
        begun, workers = self._begun, max(1, self._num_workers)
        if self._done:
            return self._next_epoch()
        if not self._streams:
            return self._at(begun, self._batches)
        before = begun.get("readers")
        taken = [self._taken.get(worker, before["taken"][worker] if before else 0) for worker in range(workers)]
        state = {**begun, "streams": self._streams}
        if before is None:
            batches = sum(taken) // self._batch_size
            even = [self._batch_size * len(range(worker, batches, workers)) for worker in range(workers)]
            if taken == even:
                return self._at(state, batches)
        # Some reader has come to its end, so that turns are no longer even.
        return {**state, "readers": {"rank": self._rank.rank, "world_size": self._rank.world_size, "taken": taken}}

    def _at(self, state: dict[str, Any], batches: int) -> dict[str, Any]:
        slot = state["slot"] + batches * self._rank.world_size * self._batch_size
        return self._next_epoch() if self._end is not None and slot >= self._end else {**state, "slot": slot}

    def _next_epoch(self) -> dict[str, Any]:
        dataset = self._dataset
        return dataset._resolved(self._begun["epoch"] + 1, None, dataset._part(), max(1, self._num_workers))  # noqa: SLF001 - of the same package
