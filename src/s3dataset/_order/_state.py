"""Where a run over indexed data stands in its epoch: a value that JSON keeps."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, NamedTuple

from s3dataset._order._bad import BadSamples
from s3dataset._order._batches import BatchPlan
from s3dataset._order._fields import VERSION, Fields, state_kind
from s3dataset._order._row import Row
from s3dataset._order._split import Tail
from s3dataset.errors import ManifestMismatchError

_MOST_SEGMENTS: Final = 64


class Reader(NamedTuple):
    """One worker of one rank."""

    rank: int
    world_size: int
    worker: int = 0
    num_workers: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochState:
    """How far an epoch over samples with numbers is. Immutable; a few hundred bytes; equal on every rank.

    Without `reader` it is elastic: any number of ranks and workers can go on from it, and what they take together is
    what an uninterrupted run would have taken, batch by batch. With one it is what a single worker knows of, as
    torchdata's StatefulDataLoader keeps it: it fits the same topology, and `merge_states` makes an elastic one of all.

    Attributes:
        fingerprint: Of the manifest.
        num_samples: Samples of the epoch.
        seed: Of the shuffle; 0 where there is none.
        epoch: The epoch.
        shuffle: Whether the samples are shuffled.
        block_bytes: Of the blocks of shards, as resolved; None where objects are samples.
        streams: Canonical streams.
        batch_size: Samples of a batch, now.
        batches: Global batches taken with this batch size: where `BatchPlan.first` begins.
        repeat: Whether the row repeats, as with steps_per_epoch; else `batches` never goes beyond the row.
        segments: Earlier batch sizes in this epoch, oldest first, and global batches taken with each.
        reader: Whose state it is; None: everybody's.
        taken: Samples that this reader took since `batches`.
        bad: The ledger of bad samples.
    """

    fingerprint: str
    num_samples: int
    seed: int
    epoch: int
    shuffle: bool
    streams: int
    batch_size: int
    block_bytes: int | None = None
    batches: int = 0
    repeat: bool = False
    segments: tuple[tuple[int, int], ...] = ()
    reader: Reader | None = None
    taken: int = 0
    bad: BadSamples = field(default_factory=BadSamples)

    KIND: ClassVar[str] = "indexed"

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain values for JSON."""
        state: dict[str, Any] = {
            "version": VERSION,
            "kind": self.KIND,
            "fingerprint": self.fingerprint,
            "num_samples": self.num_samples,
            "seed": self.seed,
            "epoch": self.epoch,
            "shuffle": self.shuffle,
            "block_bytes": self.block_bytes,
            "streams": self.streams,
            "batch_size": self.batch_size,
            "batches": self.batches,
            "repeat": self.repeat,
            "segments": [list(segment) for segment in self.segments],
            "bad": self.bad.to_dict(),
        }
        if self.reader is not None:
            state |= {"reader": list(self.reader), "taken": self.taken}
        return state

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> "EpochState":
        """Reads what `to_dict` gave.

        Raises:
            ValueError: It is something else, or damaged, or of a newer release.
        """
        kind = state_kind(state)
        if kind != cls.KIND:
            raise ValueError(
                f"the state is of kind {kind!r}, and this data needs one of kind {cls.KIND!r}: it was saved by "
                "another kind of dataset"
            )
        fields = Fields(state, "the state")
        reader, taken = None, 0
        if fields.optional("reader") is not None:
            reader, taken = read_reader(state), fields.count("taken")
        return cls(
            fingerprint=fields.text("fingerprint"),
            num_samples=fields.count("num_samples"),
            seed=fields.integer("seed"),
            epoch=fields.integer("epoch"),
            shuffle=fields.flag("shuffle"),
            block_bytes=fields.optional_count("block_bytes", 1),
            streams=fields.count("streams", 1),
            batch_size=fields.count("batch_size", 1),
            batches=fields.count("batches"),
            repeat=fields.flag("repeat"),
            segments=tuple((size, batches) for size, batches in fields.counts("segments", 2, 1)),
            reader=reader,
            taken=taken,
            bad=BadSamples.from_dict(fields.optional("bad")),
        )

    def check(self, *, fingerprint: str, num_samples: int) -> None:
        """Compares with the data at hand.

        Raises:
            ManifestMismatchError: The state belongs to other data.
        """
        if (self.fingerprint, self.num_samples) != (fingerprint, num_samples):
            raise ManifestMismatchError(
                f"the state was saved over {self.num_samples} samples with fingerprint {self.fingerprint}, and this "
                f"data has {num_samples} with {fingerprint}: objects were added, removed or replaced since. Resume on "
                "the manifest of the first run (Manifest.save keeps it), or begin a new epoch"
            )

    def with_batch_size(self, batch_size: int) -> "EpochState":
        """Returns the state of a run that goes on with another batch size.

        Raises:
            ValueError: The size is not positive, or changed more than 64 times in this epoch, or the state is that of a
                single reader.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if batch_size == self.batch_size:
            return self
        if self.reader is not None:
            raise ValueError("the state of a single worker cannot take another batch size: merge_states makes it whole")
        if not self.batches:
            return replace(self, batch_size=batch_size)
        if len(self.segments) >= _MOST_SEGMENTS:
            raise ValueError(
                f"the batch size changed {_MOST_SEGMENTS} times in this epoch, which is as often as a state can hold: "
                f"keep batch_size={self.batch_size} until the next epoch"
            )
        segments = (*self.segments, (self.batch_size, self._within_row(self.batches)))
        return replace(self, batch_size=batch_size, batches=0, segments=segments)

    def after(self, batches: int) -> "EpochState":
        """Returns the elastic state when so many global batches more were taken by all ranks together."""
        return replace(self, batches=self._within_row(self.batches + batches), reader=None, taken=0)

    def _within_row(self, batches: int) -> int:
        return batches if self.repeat else min(batches, self._row_batches())

    def _row_batches(self) -> int:
        """Batches of the row, without making it; where it does not repeat."""
        left = self.num_samples
        for batch_size, batches in self.segments:
            left = max(0, left - batch_size * batches)
        return -(-left // self.batch_size)

    @property
    def is_over(self) -> bool:
        """Whether no batch of the epoch is left under an exact tail.

        Under "drop" an epoch also ends with a few batches left, and with a fixed number of steps it ends after those:
        `plan(...).is_over` tells.
        """
        return not self.repeat and self.num_samples > 0 and self.batches >= self._row_batches()

    def next_epoch(self) -> "EpochState":
        """Returns the state at the beginning of the next epoch."""
        return replace(self, epoch=self.epoch + 1, batches=0, segments=(), reader=None, taken=0)

    def row(self) -> Row:
        """Returns the row that the batches are cut from."""
        return Row(self.num_samples, self.streams, self.segments)

    def plan(
        self, *, world_size: int = 1, tail: Tail = "exact", steps_per_epoch: int | None = None, row: Row | None = None
    ) -> BatchPlan:
        """Returns the rest of the epoch, as the ranks share it: places of `row()`, which is made if not given."""
        return BatchPlan(
            num_samples=len(self.row() if row is None else row) if self.segments else self.num_samples,
            batch_size=self.batch_size,
            world_size=world_size,
            tail=tail,
            streams=self.streams,
            steps_per_epoch=steps_per_epoch,
            first=self.batches,
            before=sum(batches for _, batches in self.segments),
            lap=self.num_samples if self.segments else None,
        )


def read_reader(state: Mapping[str, Any]) -> Reader:
    """Reads the reader of a state.

    Raises:
        ValueError: It is none.
    """
    fields = Fields({"reader": [state["reader"]]}, "the state")
    reader = Reader(*fields.counts("reader", 4)[0])
    if reader.rank >= reader.world_size or reader.worker >= reader.num_workers:
        raise ValueError(f"the state is damaged: it is that of {reader}")
    return reader
