"""How an epoch is shuffled."""

from dataclasses import dataclass
from typing import Final

from s3dataset._order._numbers import whole_number

_SAMPLES_IN_BLOCK: Final = 8192
_SMALLEST: Final = 1 << 20
_LARGEST: Final = 256 << 20

_BUFFER_BYTES: Final = 64 << 20
_LARGEST_BUFFER_SAMPLES: Final = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Shuffle:
    """Says in which order the samples of an epoch come. Frozen, hashable, picklable; each epoch is an order of its own.

    Objects that are samples are permuted as a whole. Samples in shards are shuffled in three steps, so that reading
    stays in large pieces: the shards; then blocks of neighbouring samples, over the whole epoch; then the samples in a
    block. All of it follows from `seed` and the epoch. Shards without an index can only be read from their beginning:
    there the shards are permuted, several are read at a time, and samples are permuted in blocks of what was read.

    Attributes:
        seed: Names the orders, any integer; the same on every rank.
        block_bytes: Bytes of a block, at most, by the mean size of a shard's samples. Larger blocks mix better; where
            samples are small, each stream holds one in memory, or, where the byte budget is less, as much of it as
            fits. None: about 8,192 samples of the data's mean size, not under 1 MiB nor over 256 MiB. Of shards without
            an index, where each stream holds a whole one: 64 MiB, and not over 8,192 samples.
        open_shards: Shards without an index that a stream reads in turn.
        streams: Canonical streams: contiguous parts of the order that batches are taken from in turn. Runs of different
            world sizes or numbers of workers give the same batches if it is the same. A multiple of ranks x workers
            reads best. None: chosen at the first start, and kept in the state.
    """

    seed: int = 0
    block_bytes: int | None = None
    open_shards: int = 8
    streams: int | None = None

    def __post_init__(self) -> None:
        """Checks the arguments.

        Raises:
            TypeError: One is no integer.
            ValueError: One is out of range.
        """
        for name in ("seed", "block_bytes", "open_shards", "streams"):
            value = getattr(self, name)
            if value is None and name in {"block_bytes", "streams"}:
                continue
            value = whole_number(f"Shuffle({name}=)", value)
            if name != "seed" and value < 1:
                raise ValueError(f"Shuffle({name}=) must be at least 1, got {value}")
            object.__setattr__(self, name, value)

    def resolved_block_bytes(self, num_samples: int, num_bytes: int) -> int:
        """Returns the bytes of a block for data of that many samples and bytes: a function of them alone.

        So it is the same on every rank, whatever memory that has. docs/decisions/0019 gives the reasons.
        """
        if self.block_bytes is not None:
            return self.block_bytes
        wanted = _SAMPLES_IN_BLOCK * num_bytes // max(1, num_samples)
        return min(max(wanted, _SMALLEST), _LARGEST)

    def buffer_limits(self) -> tuple[int, int]:
        """Returns the bytes and the samples at which a block of shards without an index is full."""
        if self.block_bytes is None:
            return _BUFFER_BYTES, _SAMPLES_IN_BLOCK
        return self.block_bytes, _LARGEST_BUFFER_SAMPLES
