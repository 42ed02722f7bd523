"""Samples whose content is broken: the ledger of them, and what stands in for one."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple

from s3dataset._order._fields import Fields, is_count
from s3dataset._order._permutation import Permutation, round_keys

_KEPT: Final = 1000
_LONGEST_REASON: Final = 200


class BadSample(NamedTuple):
    """A sample that could not be made."""

    uri: str
    """The object that it is, or lies in."""
    offset: int
    """Its number in the shard, from 0 on (of a row group the first row's); 0 for an object that is a sample."""
    reason: str
    """What is wrong with it, cut to 200 characters in a ledger."""


@dataclass(frozen=True, slots=True)
class BadSamples:
    """A ledger of bad samples: the first 1,000 of them, and how many there were. Immutable; survives JSON; printable.

    A sample counts once, however often and in however many readers it was met, as long as the ledger is not full.
    Beyond that `count` counts meetings.

    Attributes:
        entries: The first 1,000, each once.
        count: How many there were.
    """

    entries: tuple[BadSample, ...] = ()
    count: int = 0

    def __str__(self) -> str:
        """A line for each entry, and one for those that are not kept."""
        lines = [f"{entry.uri} at {entry.offset}: {entry.reason}" for entry in self.entries]
        if self.count > len(self.entries):
            lines.append(f"and {self.count - len(self.entries)} more")
        return "\n".join(lines) or "no bad samples"

    def added(self, entry: BadSample) -> "BadSamples":
        """Returns the ledger with one more entry, or itself if that one is in it."""
        return self.merged([BadSamples((entry,), 1)])

    def merged(self, others: "Iterable[BadSamples]") -> "BadSamples":
        """Returns one ledger of this one and others, such as those of other readers of the same run."""
        entries = {(entry.uri, entry.offset): entry for entry in self.entries}
        beyond = self.count - len(self.entries)
        for other in others:
            for entry in other.entries:
                entries.setdefault((entry.uri, entry.offset), entry._replace(reason=entry.reason[:_LONGEST_REASON]))
            beyond += other.count - len(other.entries)
        return BadSamples(tuple(islice(entries.values(), _KEPT)), len(entries) + beyond)

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain values for JSON."""
        return {"count": self.count, "entries": [list(entry) for entry in self.entries]}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any] | None) -> "BadSamples":
        """Reads what `to_dict` gave; None is an empty ledger.

        Raises:
            ValueError: It is something else.
        """
        if state is None:
            return cls()
        name = "the ledger of bad samples"
        if not isinstance(state, Mapping):
            raise ValueError(f"{name} is damaged: it must be a mapping, and is {str(state)[:100]}")
        fields = Fields(state, name)
        rows = fields.rows("entries", 3)
        for uri, offset, reason in rows:
            if not (isinstance(uri, str) and is_count(offset) and isinstance(reason, str)):
                raise ValueError(f"{name} is damaged: an entry is {str([uri, offset, reason])[:100]}")
        return cls(tuple(BadSample(*row) for row in rows), fields.count("count", len(rows)))


def replacement(seed: int, epoch: int, slot: int, places: range, bad: Container[int]) -> int:
    """Returns the place whose sample stands in for the bad one at place `slot`, out of the same block.

    The places of the block are tried in an order of the slot's own, and the first that is not bad is taken. So the
    answer depends on which samples are bad and not on how many of them are known yet: ask again with a longer set when
    the one named turns out to be bad too.

    Args:
        seed: Of the shuffle.
        epoch: The epoch.
        slot: The place of the bad sample.
        places: The places of its block.
        bad: Places known to be bad; the slot need not be among them.

    Raises:
        LookupError: All samples of the block are bad.
    """
    order = Permutation(len(places), seed=round_keys(1, "replace", seed, epoch, slot)[0])
    for i in range(len(places)):
        place = places[order[i]]
        if place != slot and place not in bad:
            return place
    raise LookupError(f"all {len(places)} samples of the block that place {slot} lies in are bad")
