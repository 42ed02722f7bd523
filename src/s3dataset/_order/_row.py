"""What is left of an epoch when the batch size changes in its middle."""

from array import array
from bisect import bisect_right
from collections.abc import Sequence

from s3dataset._order._batches import BatchPlan


class Row:
    """The row that batches are cut from: all places of the epoch, or those that earlier segments left.

    A segment is what was taken with one batch size. When it changes, the rest of each stream is laid end to end, and
    this is the new row, to be cut into streams and batches again. `take` leads from its places to those of the first
    row. Over all segments each place of the first row is taken once.

    Memory: 16 bytes for each stream and segment. `take` needs 0.3 microseconds a place, and nothing where there is but
    one segment. Immutable.
    """

    def __init__(self, num_samples: int, streams: int, segments: Sequence[tuple[int, int]] = ()) -> None:
        """Makes the row.

        Args:
            num_samples: Samples of the epoch.
            streams: Canonical streams.
            segments: The earlier ones, oldest first: batch size, and global batches taken with it.

        Raises:
            ValueError: A number is out of range.
        """
        self._whole = num_samples
        self._pieces = [range(num_samples)] if num_samples else []
        self._ends = array("Q", [num_samples] if num_samples else [])
        for number, (batch_size, batches) in enumerate(segments):
            plan = BatchPlan(len(self), batch_size, streams=streams, lap=num_samples if number else None)
            left = [piece for places in plan.left(batches) for piece in self.pieces(places)]
            ends = array("Q")
            total = 0
            for piece in left:
                total += len(piece)
                ends.append(total)
            self._pieces, self._ends = left, ends

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def pieces(self, places: range) -> list[range]:
        """Returns the places of the first row that a contiguous range of this one stands for, as ranges, in order.

        Places from len(self) on belong to the next lap over the first row, as in `BatchPlan.lap`.
        """
        found = []
        place, stop = places.start, min(places.stop, len(self))
        number = bisect_right(self._ends, place)
        while place < stop:
            piece, end = self._pieces[number], self._ends[number]
            upto = min(stop, end)
            found.append(range(piece.stop - (end - place), piece.stop - (end - upto)))
            place, number = upto, number + 1
        if place < places.stop:
            found.append(range(place - len(self), places.stop - len(self)))
        return found

    def take(self, places: Sequence[int]) -> Sequence[int]:
        """Returns the places of the first row that stand at `places` of this one."""
        whole = len(self)
        if len(self._pieces) <= 1 and whole == self._whole:
            return places if not places or max(places) < whole else [place % whole for place in places]
        taken = []
        start = end = shift = 0
        for place in places:
            if not start <= place < end:
                number = bisect_right(self._ends, place)
                if number == len(self._ends):
                    start, end, shift = whole, whole + self._whole, -whole
                else:
                    start, end = self._ends[number - 1] if number else 0, self._ends[number]
                    shift = self._pieces[number].start - start
            taken.append(place + shift)
        return taken
