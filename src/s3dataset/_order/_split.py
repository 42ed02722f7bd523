"""Who takes part in an epoch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from s3dataset._order._numbers import whole_number

Tail: TypeAlias = Literal["pad", "drop", "exact"]

_TAILS: Final = ("pad", "drop", "exact")


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Says over whom the samples of an epoch are split, and what happens where they do not divide evenly.

    Frozen, hashable unless a mesh is in it, and picklable. Nothing is looked up when it is made: rank and world size
    are found when an iteration begins, in this order: `rank` and `world_size` given here; `mesh`; torch.distributed,
    when it is initialised in the process; the process group of the parent that spawned this worker; the variables RANK
    and WORLD_SIZE; else one rank alone.

    Attributes:
        ranks: Split over ranks; False: every rank reads everything (its workers still share, unless `workers` is False
            too).
        workers: Split over the workers of a DataLoader; False: every worker reads all that the rank reads.
        rank: This process's rank, for programs that do not use torch.distributed; together with `world_size`.
        world_size: How many ranks take part.
        mesh: A `torch.distributed.DeviceMesh`: ranks that differ only in other dimensions than `dp_dims` (tensor,
            pipeline or context parallel peers) read the same samples.
        dp_dims: Names of the mesh's data-parallel dimensions, outermost first; needed unless the mesh has one
            dimension.
        tail: "pad": the last step is filled up with samples from the epoch's beginning (fewer than there are ranks), so
            that every rank takes as many steps; "drop": the last step is left out unless every rank has a full batch
            for it; "exact": every sample once, so ranks may differ by a step (wrap the loop in
            `torch.distributed.algorithms.Join`, or DDP waits for ever). None: "pad" when there are several ranks, else
            "exact".
        steps_per_epoch: Every rank takes exactly so many batches an epoch, begins again at the epoch's first batch when
            there are fewer, and leaves the rest when there are more. `tail` then has no part.
    """

    ranks: bool = True
    workers: bool = True
    rank: int | None = None
    world_size: int | None = None
    mesh: Any = None
    dp_dims: str | Sequence[str] | None = None
    tail: Tail | None = None
    steps_per_epoch: int | None = None

    def __post_init__(self) -> None:
        """Checks the arguments against one another.

        Raises:
            TypeError: One is no integer.
            ValueError: They contradict one another, or lie outside their range.
        """
        for name in ("rank", "world_size", "steps_per_epoch"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, whole_number(f"Split({name}=)", value))
        if (self.rank is None) != (self.world_size is None):
            raise ValueError("Split needs rank= and world_size= together, or neither")
        if self.rank is not None and self.world_size is not None and not 0 <= self.rank < self.world_size:
            raise ValueError(f"Split needs 0 <= rank < world_size, got rank={self.rank}, world_size={self.world_size}")
        if self.mesh is not None and self.rank is not None:
            raise ValueError("Split takes mesh= or rank= and world_size=, not both")
        if self.dp_dims is not None and self.mesh is None:
            raise ValueError("Split takes dp_dims= only together with mesh=")
        if isinstance(self.dp_dims, str):
            object.__setattr__(self, "dp_dims", (self.dp_dims,))
        elif self.dp_dims is not None:
            object.__setattr__(self, "dp_dims", tuple(self.dp_dims))
        if not self.ranks and (self.rank is not None or self.mesh is not None):
            raise ValueError("Split(ranks=False) reads everything on every rank, so it takes neither rank= nor mesh=")
        if self.tail is not None and self.tail not in _TAILS:
            raise ValueError(f"tail must be one of {', '.join(map(repr, _TAILS))}, or None; got {self.tail!r}")
        if self.steps_per_epoch is not None and self.steps_per_epoch < 1:
            raise ValueError(f"steps_per_epoch must be at least 1, got {self.steps_per_epoch}")
        if self.steps_per_epoch is not None and self.tail is not None:
            raise ValueError(
                "Split takes steps_per_epoch= or tail=, not both: with a fixed number of steps there is no tail"
            )

    def resolved_tail(self, world_size: int) -> Tail:
        """Returns the tail's policy for that many ranks."""
        if self.tail is not None:
            return self.tail
        return "pad" if world_size > 1 else "exact"
