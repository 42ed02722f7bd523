"""Where a run over shards without an index stands in its epoch: a value that JSON keeps."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from s3dataset._order._bad import BadSamples
from s3dataset._order._fields import VERSION, Fields, state_kind
from s3dataset._order._shards import ShardPosition, StreamState
from s3dataset.errors import ManifestMismatchError


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardsState:
    """How far an epoch over un-indexed shards is, stream by stream. Immutable; about 30 bytes for each open shard.

    A reader knows of its own streams. With all of them the state is elastic: any number of ranks, up to that of
    streams, and of workers can go on from it.

    Attributes:
        fingerprint: Of the manifest.
        num_shards: Shards of the manifest.
        seed: Of the shuffle; 0 where there is none.
        epoch: The epoch.
        shuffle: Whether samples are shuffled.
        block_bytes: Bytes with which a block is full, as resolved.
        block_samples: Samples with which a block is full.
        open_shards: Shards that a stream reads in turn.
        streams: How many streams there are.
        parts: The state of each stream that is known, by number.
        bad: The ledger of bad samples.
    """

    fingerprint: str
    num_shards: int
    seed: int
    epoch: int
    shuffle: bool
    block_bytes: int
    block_samples: int
    open_shards: int
    streams: int
    parts: tuple[StreamState, ...] = ()
    bad: BadSamples = field(default_factory=BadSamples)

    KIND: ClassVar[str] = "shards"

    @property
    def missing(self) -> list[int]:
        """The streams that it says nothing of."""
        return sorted(set(range(self.streams)) - {part.stream for part in self.parts})

    @property
    def is_over(self) -> bool:
        """Whether all streams have ended; never where one is missing."""
        if self.missing:
            return False
        of_each, longer = divmod(self.num_shards, self.streams)
        return self.num_shards > 0 and all(part.has_ended(of_each + (part.stream < longer)) for part in self.parts)

    def part(self, stream: int) -> StreamState:
        """Returns where a stream stands.

        Raises:
            ValueError: The state does not say.
        """
        for part in self.parts:
            if part.stream == stream:
                return part
        raise ValueError(
            f"the state holds {len(self.parts)} of {self.streams} streams, and stream {stream} is not among them: it "
            "is that of other readers. Resume with the same ranks and workers, or put the states of all together with "
            "s3dataset.merge_states"
        )

    def next_epoch(self) -> "ShardsState":
        """Returns the state of the same streams at the beginning of the next epoch."""
        return replace(self, epoch=self.epoch + 1, parts=tuple(StreamState(part.stream) for part in self.parts))

    def check(self, *, fingerprint: str, num_shards: int) -> None:
        """Compares with the data at hand.

        Raises:
            ManifestMismatchError: The state belongs to other data.
        """
        if (self.fingerprint, self.num_shards) != (fingerprint, num_shards):
            raise ManifestMismatchError(
                f"the state was saved over {self.num_shards} shards with fingerprint {self.fingerprint}, and this data "
                f"has {num_shards} with {fingerprint}: objects were added, removed or replaced since. Resume on the "
                "manifest of the first run (Manifest.save keeps it), or begin a new epoch"
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain values for JSON."""
        return {
            "version": VERSION,
            "kind": self.KIND,
            "fingerprint": self.fingerprint,
            "num_shards": self.num_shards,
            "seed": self.seed,
            "epoch": self.epoch,
            "shuffle": self.shuffle,
            "block_bytes": self.block_bytes,
            "block_samples": self.block_samples,
            "open_shards": self.open_shards,
            "streams": self.streams,
            "parts": [
                [
                    part.stream,
                    part.given,
                    part.lap,
                    part.next_shard,
                    part.block,
                    part.taken,
                    [list(p) for p in part.open],
                ]
                for part in self.parts
            ],
            "bad": self.bad.to_dict(),
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> "ShardsState":
        """Reads what `to_dict` gave.

        Raises:
            ValueError: It is something else, or damaged, or of a newer release.
        """
        kind = state_kind(state)
        if kind != cls.KIND:
            raise ValueError(
                f"the state is of kind {kind!r}, and shards without an index need one of kind {cls.KIND!r}: it was "
                "saved by another kind of dataset, or before the shards were indexed or packed"
            )
        fields = Fields(state, "the state")
        streams, num_shards = fields.count("streams", 1), fields.count("num_shards")
        parts = []
        for row in fields.rows("parts", 7):
            part = Fields({"part": [row[:6]], "open": row[6]}, "the state of a stream")
            opened = tuple(ShardPosition(*position) for position in part.counts("open", 3))
            stream, given, lap, next_shard, block, taken = part.counts("part", 6)[0]
            parts.append(StreamState(stream, given, lap, next_shard, block, taken, opened))
        parts.sort(key=lambda part: part.stream)
        numbers = [part.stream for part in parts]
        if len(set(numbers)) < len(numbers) or any(number >= streams for number in numbers):
            raise ValueError(f"the state is damaged: it holds the streams {numbers[:20]} of {streams}")
        if any(position.shard >= num_shards for part in parts for position in part.open):
            raise ValueError(f"the state is damaged: it names a shard beyond the {num_shards} of the manifest")
        return cls(
            fingerprint=fields.text("fingerprint"),
            num_shards=num_shards,
            seed=fields.integer("seed"),
            epoch=fields.integer("epoch"),
            shuffle=fields.flag("shuffle"),
            block_bytes=fields.count("block_bytes", 1),
            block_samples=fields.count("block_samples", 1),
            open_shards=fields.count("open_shards", 1),
            streams=streams,
            parts=tuple(parts),
            bad=BadSamples.from_dict(fields.optional("bad")),
        )
