"""One reader's epoch through the stages behind a dataset, and where it stands in them."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast

import torch
import torch.utils.data

from s3dataset._datasets._sample_rng import MAKING
from s3dataset._order import ShardsState

if TYPE_CHECKING:
    from s3dataset._datasets._position import Part
    from s3dataset._datasets._stages import StagedDataset

__all__ = ["Packing", "Stage", "StagedIteration"]

_ENDLESS: Final = 1 << 40  # steps of a source that repeats until enough has come through
_LOOKED_AT: Final = 1024


class Stage(NamedTuple):
    name: Literal["filter", "flat_map"]
    function: Callable[[Any], Any]


class Packing(NamedTuple):
    length: int
    key: Any
    keep_tail: bool


class _Place(NamedTuple):
    """Before a sample of the source: how many of what the stages make of it are used up, and of the next, how much."""

    source: Any
    outputs: int = 0
    tokens: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {"source": self.source.to_dict(), "outputs": self.outputs, "tokens": self.tokens}


_END: Final = object()


class StagedIteration:
    """One reader's epoch through the stages.

    Args:
        dataset: What is iterated over.
        part: The reader.
        resume: Where it goes on; None: at the beginning.
        wanted: How many it gives; None: all that there are.
    """

    def __init__(
        self, dataset: "StagedDataset[Any]", part: "Part", resume: Mapping[str, Any] | None, wanted: int | None
    ) -> None:
        source = dataset._source  # noqa: SLF001
        self._dataset = dataset
        self._reader = part.reader
        self._wanted = wanted
        self._ended = resume is not None and bool(resume.get("ended"))
        source._position.run = None  # noqa: SLF001
        source._steps = None if self._wanted is None else _ENDLESS  # noqa: SLF001
        try:
            self._samples = iter(source)
        finally:
            source._steps = None  # noqa: SLF001
        run = source._position.run  # noqa: SLF001
        if run is None:
            raise RuntimeError("the source does not say where it stands")
        self._run = run
        outputs, tokens = (0, 0) if resume is None else (int(resume["outputs"]), int(resume["tokens"]))
        self._given = 0 if resume is None else int(resume.get("given", 0))
        self._place = _Place(run.state(in_worker=True), outputs, tokens)
        self._begun = self._place.source
        self._done = False

    def state(self, *, between_epochs: bool) -> dict[str, Any]:
        """Where it stands.

        Args:
            between_epochs: Behind the end, tell of the next epoch's beginning; else that this one has ended here.
        """
        dataset, reader, epoch = self._dataset, self._reader, self._begun.epoch
        if self._done and between_epochs:
            return dataset._state(reader, epoch + 1, {})  # noqa: SLF001
        ended = {"ended": True} if self._done and torch.utils.data.get_worker_info() is None else {}
        place = _Place(self._begun).to_dict() | {"ended": True} if self._done else self._place.to_dict()
        place["given"] = self._given
        # Whose turn is next only a loader knows.
        return dataset._state(reader, epoch, {str(reader.worker): place}) | ended  # noqa: SLF001

    def __iter__(self) -> Iterator[Any]:
        if self._ended:
            self._done = True
            return
        packing = self._dataset._packing  # noqa: SLF001
        try:
            outputs = self._one_by_one() if packing is None else self._packed(packing)
            while self._given != self._wanted:
                self._given += 1
                output = next(outputs, _END)
                if output is _END:
                    self._given -= 1
                    break
                yield output
            self._done = True
        finally:
            cast(Any, self._samples).close()  # a traceback may keep it for long

    def _one_by_one(self) -> Iterator[Any]:
        for place, output in self._outputs():
            self._place = place._replace(outputs=place.outputs + 1)
            yield output

    def _outputs(self) -> Iterator[tuple[_Place, Any]]:
        """What comes through the stages, and the place before each."""
        stages = self._dataset._stages  # noqa: SLF001
        before, skip = self._place.source, self._place.outputs
        fruitless, laps = 0, None
        while True:
            try:
                sample, drawing = MAKING.noted(self._samples)
            except StopIteration:
                return
            fruitless += 1
            outputs = _drawing(drawing, _through(sample, stages, 0))
            for number, output in enumerate(islice(outputs, skip, None), skip):
                yield _Place(before, number), output
                fruitless, laps = 0, None
            if self._wanted is not None and fruitless and not fruitless % _LOOKED_AT:
                laps = self._check_fruit(fruitless, laps)
            before, skip = self._run.state(in_worker=True), 0
            if not self._run.done:
                self._between(before)

    def _check_fruit(self, fruitless: int, laps: list[int] | None) -> list[int] | None:
        """Ends an epoch of so many steps that would never end.

        Raises:
            ValueError: The source was gone through, and nothing came of it.
        """
        state = self._run.state(in_worker=True)
        now = None
        if not isinstance(state, ShardsState):
            over = fruitless > state.num_samples
        else:
            now = [part.lap for part in state.parts]
            over = laps is not None and all(lap > before + 1 for lap, before in zip(now, laps, strict=True))
        if over:
            raise ValueError(
                f"nothing came through {self._dataset!r} of all the samples of its source, and steps_per_epoch asks "
                "for more: look at what filter and flat_map let through"
            )
        return laps or now

    def _between(self, before: Any) -> None:
        """A sample is used up; where sequences wait to be packed, their place stays."""
        if self._dataset._packing is None:  # noqa: SLF001
            self._place = _Place(before)

    def _packed(self, packing: Packing) -> Iterator[Any]:
        pending: deque[tuple[_Place, Any]] = deque()
        count, cut = 0, self._place.tokens
        for place, output in self._outputs():
            sequence = _sequence(output if packing.key is None else output[packing.key])
            pending.append((place._replace(tokens=cut), sequence[cut:] if cut else sequence))
            count += len(sequence) - cut
            cut = 0
            while count >= packing.length:
                chunk = _cut(pending, packing.length)
                count -= packing.length
                # Behind the last one the place is that of the next sequence, which only the next step finds.
                self._place = pending[0][0] if pending else place._replace(outputs=place.outputs + 1)
                yield chunk
        if count and packing.keep_tail:
            self._done = True  # there is nothing behind it
            yield _cut(pending, count)


def _drawing(making: list[Any] | None, outputs: Iterator[Any]) -> Iterator[Any]:
    """What is made of a sample, where `sample_rng` goes on with its numbers."""
    while True:
        before, MAKING.of = MAKING.of, making
        try:
            output = next(outputs, _END)
        finally:
            MAKING.of = before
        if output is _END:
            return
        yield output


def _through(sample: Any, stages: tuple[Stage, ...], first: int) -> Iterator[Any]:
    for number in range(first, len(stages)):
        stage = stages[number]
        if stage.name == "flat_map":
            for output in stage.function(sample):
                yield from _through(output, stages, number + 1)
            return
        if not stage.function(sample):
            return
    yield sample


def _sequence(value: Any) -> Any:
    """Refuses what has no one dimension.

    Raises:
        TypeError: It is no sequence.
        ValueError: It has several dimensions.
    """
    if isinstance(value, list | tuple):
        return value
    dimensions = getattr(value, "ndim", None)
    if dimensions is None:
        raise TypeError(
            f"pack_sequences joins lists, arrays and tensors, and this is a {type(value).__name__}: key= chooses it "
            "out of a sample"
        )
    if dimensions != 1:
        raise ValueError(f"pack_sequences joins sequences of one dimension, and this has shape {tuple(value.shape)}")
    return value


def _cut(pending: "deque[tuple[_Place, Any]]", length: int) -> Any:
    """Takes so many tokens from the left."""
    pieces = []
    while length:
        place, sequence = pending.popleft()
        if len(sequence) > length:
            pending.appendleft((place._replace(tokens=place.tokens + length), sequence[length:]))
            sequence = sequence[:length]
        length -= len(sequence)
        pieces.append(sequence)
    while pending and not len(pending[0][1]):
        pending.popleft()
    first = pieces[0]
    if isinstance(first, torch.Tensor):
        return torch.cat([torch.as_tensor(piece) for piece in pieces])
    if isinstance(first, list | tuple):
        return [token for piece in pieces for token in piece]
    import numpy as np  # noqa: PLC0415 - there, as an array is

    return np.concatenate(pieces)
