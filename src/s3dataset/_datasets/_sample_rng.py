"""sample_rng: what is random about a sample, the same whoever makes it, and when."""

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast

from s3dataset._order import sample_seed

if TYPE_CHECKING:
    import numpy as np

__all__ = ["BARE", "MAKING", "Draws", "name_of_unindexed", "sample_rng"]

T = TypeVar("T")


class Draws(NamedTuple):
    """What the random numbers of an iteration's samples depend on.

    Attributes:
        seed: Of the order.
        epoch: The epoch.
        id_of: Names a sample. It is asked only when somebody draws.
    """

    seed: int
    epoch: int
    id_of: Callable[[Any], int | str]


def _uri(row: Any) -> str:
    return f"s3://{row[0]}/{row[1]}"


def name_of_unindexed(place: tuple[str, int]) -> str:
    """Names a sample of a shard without an index: its shard, and its number there."""
    return f"{place[0]}#{place[1]}"


BARE: Final = Draws(0, 0, _uri)


class _Making(threading.local):
    """The sample that this thread makes: a list of draws, what names it, its generator."""

    of: list[Any] | None = None
    _notes = False
    _last: list[Any] | None = None

    def begin(self, making: list[Any]) -> None:
        """A sample is being made."""
        self.of = making
        if self._notes:  # only then, as it holds the dataset
            self._last = making

    def noted(self, samples: Iterator[T]) -> tuple[T, list[Any] | None]:
        """Takes a sample, and with it what it draws from, for the stages that it goes through.

        Raises:
            StopIteration: There is none left.
        """
        before = self._notes, self._last
        self._notes, self._last = True, None
        try:
            return next(samples), self._last
        finally:
            self._notes, self._last = before


MAKING: Final = _Making()


def sample_rng() -> "np.random.Generator":
    """The random numbers of the sample that is being made; to be called in a transform, `filter` or `flat_map`.

    They depend on the seed, the epoch and the sample, and on nothing else: not on the worker, the rank, the batch, nor
    on what was drawn for other samples. So augmented samples are bit-equal when a run goes on from a state, with other
    numbers of ranks and workers too. Each epoch draws others. Calls for the same sample go on in one generator.

    The seed is that of `Shuffle` or of `s3dataset.DataLoader` and `BatchSampler`; 0 where nothing is shuffled or
    `dataset[i]` is asked for, which is also epoch 0. A sample is named by its number in the manifest; in a shard
    without an index by its shard and its number there.

    ::

        def augment(sample):
            image, rng = sample["jpg"], s3dataset.sample_rng()
            return image[:, ::-1] if rng.random() < 0.5 else image

    Raises:
        RuntimeError: No sample is being made on this thread.
        ImportError: NumPy is not installed.
    """
    making = MAKING.of
    if making is None:
        raise RuntimeError(
            "sample_rng() belongs to the sample that is being made: call it within the transform, filter() or "
            "flat_map() of an s3dataset dataset, on the thread that calls these. What runs on samples later "
            "(collate_fn, the training loop) needs a generator of its own"
        )
    if making[2] is None:
        try:
            from numpy.random import PCG64, Generator  # noqa: PLC0415 - optional
        except ImportError as error:
            raise ImportError("sample_rng() needs NumPy: pip install 's3dataset[shards]'") from error
        draws, sample, _ = making
        seed = sample_seed(draws.seed, draws.epoch, draws.id_of(sample))
        making[2] = Generator(PCG64(seed))
    return cast("np.random.Generator", making[2])
