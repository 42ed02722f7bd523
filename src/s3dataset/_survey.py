"""What kind of objects there are, by their sizes and names, and what a dataset should do with them. Pure."""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from statistics import median
from typing import Final

from s3dataset.formats import format_of_key

__all__ = ["GET_DOLLARS", "LIST_DOLLARS", "SHARD_BYTES", "Band", "Survey", "survey"]

GET_DOLLARS: Final = 0.4e-6
"""Amazon's list price of a GET in us-east-1, class STANDARD (2026)."""
LIST_DOLLARS: Final = 5e-6
"""Of a LIST or PUT."""

SHARD_BYTES: Final = 256 << 20
_KIB: Final = 1 << 10
_MIB: Final = 1 << 20
_SMALL_BYTES: Final = 256 * _KIB
"""Below it a request's time is its latency, not its bytes."""
_SMALL_SHARD_BYTES: Final = 16 * _MIB
_MANY: Final = 500
_SAMPLED: Final = 100_000


@dataclass(frozen=True, slots=True)
class Band:
    """The objects with sizes in [low, high): each band is four times as wide as the one before it."""

    low: int
    high: int
    objects: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Survey:
    """What lies below a prefix.

    Attributes:
        objects: How many.
        bytes: Of all of them.
        median: Size of an object, of a sample where there are more than 100,000.
        smallest: Size, bytes.
        largest: Likewise.
        empty: Objects without a byte, the "folders" of consoles among them.
        bands: How many there are of which size, ascending, without gaps; empty objects have a band of their own.
        suffixes: The most frequent suffixes of names, with how many of 1,000 objects looked at have each.
        format: Name of the format that most of these suffixes are of; None where they are of none.
    """

    objects: int
    bytes: int
    median: int
    smallest: int
    largest: int
    empty: int
    bands: tuple[Band, ...]
    suffixes: tuple[tuple[str, int], ...]
    format: str | None

    @property
    def are_shards(self) -> bool:
        """Whether they look like shards of many samples: a format's suffix, and not small."""
        return self.format is not None and self.median >= _SMALL_BYTES

    @property
    def are_small(self) -> bool:
        """Whether there are many objects whose requests cost more than their bytes."""
        return self.objects - self.empty >= _MANY and self.median < _SMALL_BYTES and not self.are_shards

    @property
    def shards(self) -> int:
        """How many shards of the usual size they would make."""
        return max(1, -(-self.bytes // SHARD_BYTES))

    def advice(self, uri: str) -> list[str]:
        """What to do with them, in sentences."""
        if not self.objects:
            return []
        said = []
        each = _size(self.median)
        count = f"{self.objects:,} object{'s' * (self.objects != 1)} of {each}"
        if self.are_small:
            dollars = self.objects * GET_DOLLARS
            price = f", ${dollars:,.2f} an epoch at Amazon's list price" if dollars >= 0.01 else ""
            said.append(
                f"{count}: pack them into {self.shards:,} shard{'s' * (self.shards > 1)} "
                f"(s3dataset pack {uri} s3://BUCKET/FOLDER/). As they are, each epoch sends a request for each{price}."
            )
        elif self.are_shards:
            said.append(
                f"{count} look like shards of {self.format}: s3dataset index {uri} finds their samples, and "
                f'S3IterableDataset.from_prefix("{uri}", format="{self.format}", shuffle=True) reads them.'
            )
            if self.median < _SMALL_SHARD_BYTES and self.objects > 1:
                said.append(
                    f"Shards of {each} are small: packed anew (s3dataset pack --source-format {self.format}) they "
                    f"would be {self.shards:,}, read by fewer and longer requests."
                )
        else:
            said.append(
                f'{count}: each can be a sample, S3MapDataset.from_prefix("{uri}"); a request for each, and parallel '
                "ranges for those above 8 MiB."
            )
        if self.empty:
            said.append(
                f"{self.empty:,} of them {'is' if self.empty == 1 else 'are'} empty, as the folders that consoles "
                "make: leave them out with pattern=."
            )
        if self.largest > 20 * max(self.median, _MIB):
            said.append(
                f"Sizes differ much (half are below {_size(self.median)}, the largest has {_size(self.largest)}): a "
                "worker that gets a large one holds up its batch. Are other files among the data? pattern= chooses."
            )
        return said


def survey(sizes: Sequence[int] | memoryview, keys: Iterable[str]) -> Survey:
    """Counts.

    Args:
        sizes: Of all objects, bytes.
        keys: Some of their keys, to look at the suffixes of.
    """
    counts: Counter[int] = Counter()
    totals: Counter[int] = Counter()
    for size in sizes:
        band = (size.bit_length() + 1) // 2
        counts[band] += 1
        totals[band] += size
    bands: tuple[Band, ...] = ()
    if counts:
        bands = tuple(
            Band(0 if band == 0 else 1 << (2 * band - 2), 1 << (2 * band), counts[band], totals[band])
            for band in range(min(counts), max(counts) + 1)
        )
    suffixes, kind = _kinds(list(keys))
    sampled = (
        sizes if len(sizes) <= _SAMPLED else [sizes[i] for i in random.Random(0).sample(range(len(sizes)), 10_000)]
    )
    return Survey(
        objects=len(sizes),
        bytes=sum(totals.values()),
        median=int(median(sampled)) if len(sizes) else 0,
        smallest=min(sizes, default=0),
        largest=max(sizes, default=0),
        empty=counts[0],
        bands=bands,
        suffixes=suffixes,
        format=kind,
    )


def _kinds(keys: list[str]) -> tuple[tuple[tuple[str, int], ...], str | None]:
    if not keys:
        return (), None
    suffixes = Counter(PurePosixPath(key).suffix.lower() for key in keys)
    formats = Counter(kind.name for key in keys if (kind := format_of_key(key)) is not None)
    name, most = max(formats.items(), key=lambda item: item[1], default=("", 0))
    return tuple(suffixes.most_common(5)), name if 2 * most > len(keys) else None


def _size(count: float) -> str:
    if count < 1000:
        return f"{count:.0f} byte{'' if round(count) == 1 else 's'}"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 1000:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} TB"
