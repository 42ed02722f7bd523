"""Which objects go into which shard. Pure: follows from the rows and the options alone, the same on every machine."""

import re
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from s3dataset._pack._labels import Label
from s3dataset._pack._names import Name, Names, unsafe_reason
from s3dataset.errors import DecodeError

__all__ = ["Plan", "Row", "ShardTask", "number_of_shard", "plan_of_objects", "plan_of_shards", "shard_name"]

Row = tuple[str, str, int | None, str | None]
"""(bucket, key, size, ETag)."""

_TAR_BLOCK: Final = 512
_ROWS_AT_ONCE: Final = 4096
_ANY_SIZE: Final = 1 << 62
_LEAST_DIGITS: Final = 6
_SHARD: Final = re.compile(r"shard-(\d{6,})(?:-\d{3,})?\.[a-z.]+")


class _Rows(Protocol):
    def __len__(self) -> int: ...
    def rows(self, positions: Iterable[int]) -> list[Row]: ...


@dataclass(frozen=True, slots=True)
class ShardTask:
    """What one process makes by itself: a shard, or of source shards as many as they give.

    Attributes:
        number: Which of the plan's.
        name: Of its shards, without the suffix.
        rows: The objects.
        labels: Of each object, or None.
    """

    number: int
    name: str
    rows: list[Row]
    labels: list[Label] | None = None

    @property
    def nbytes(self) -> int:
        return sum(row[2] or 0 for row in self.rows)


@dataclass(frozen=True, slots=True)
class Plan:
    """Cuts of the source.

    Attributes:
        cuts: Where each shard's rows end; the first begins at 0.
        num_samples: Before a transform; None where only reading the source tells.
        nbytes: Of the source.
        left_out: Objects that make no sample.
        first_left_out: URI of the first of them, or "".
    """

    cuts: "array[int]"
    num_samples: int | None
    nbytes: int
    left_out: int = 0
    first_left_out: str = ""

    def __len__(self) -> int:
        return len(self.cuts)

    def rows_of(self, number: int) -> range:
        return range(self.cuts[number - 1] if number else 0, self.cuts[number])


def shard_name(number: int, count: int) -> str:
    """As "shard-000012": names sort as the source does."""
    return f"shard-{number:0{max(_LEAST_DIGITS, len(str(max(count - 1, 0))))}d}"


def number_of_shard(name: str) -> int | None:
    """Of which task a shard is, "shard-000012.tar" or "shard-000012-003.tar"; None for other names."""
    match = _SHARD.fullmatch(name)
    return None if match is None else int(match[1])


def plan_of_shards(source: _Rows, shard_size: int) -> Plan:
    """Source shards together until they have `shard_size`."""
    return _Cutter(source, shard_size, None, tar=False).plan()


def plan_of_objects(
    source: _Rows,
    names: Names,
    shard_size: int,
    *,
    tar: bool,
    check: Callable[[str, str], object] | None = None,
    most_bytes: int | None = None,
    why: str = "",
) -> Plan:
    """Samples made of objects, together until a shard has `shard_size` bytes of source; at least one each.

    Args:
        source: The objects, of known sizes.
        names: What they are called.
        shard_size: Of the shard's content before a transform and compression.
        tar: Count what members take up in an archive, and refuse names that are unsafe there.
        check: Is given bucket and key of each object that makes a sample; finds its label.
        most_bytes: Of an object, if there is a limit.
        why: What to say of a larger one.

    Raises:
        DecodeError: An object is too large, two objects would be the same field of a sample, or two samples have the
            same key.
    """
    cutter = _Cutter(source, shard_size, names, tar=tar, check=check, most_bytes=most_bytes, why=why)
    return cutter.plan()


class _Cutter:
    def __init__(
        self,
        source: _Rows,
        shard_size: int,
        names: Names | None,
        *,
        tar: bool,
        check: Callable[[str, str], object] | None = None,
        most_bytes: int | None = None,
        why: str = "",
    ) -> None:
        self._most_bytes = _ANY_SIZE if most_bytes is None else most_bytes
        self._why = why
        self._source = source
        self._shard_size = shard_size
        self._names = names
        self._tar = tar
        self._check = check
        # A label is a member of its own; what ends an archive is forgotten over it.
        self._more_bytes = 2 * _TAR_BLOCK if tar and check is not None else 0
        self._cuts = array("Q")
        self._held = 0  # bytes of the shard that is being filled
        self._nbytes = 0
        self._samples = 0
        self._left_out = 0
        self._first_left_out = ""

    def plan(self) -> Plan:
        source = self._source
        begin = 0  # of the sample at hand
        nbytes = 0
        key: str | None = None
        seen = _Seen(self._names is None or _ascend(source))
        for start in range(0, len(source), _ROWS_AT_ONCE):
            rows = source.rows(range(start, min(start + _ROWS_AT_ONCE, len(source))))
            for number, row in enumerate(rows, start):
                name = self._name(row)
                if name is None:
                    self._leave_out(row)
                    continue
                size = self._size(row)
                self._nbytes += row[2] or 0
                if name.key == key:
                    if self._names is not None:
                        seen.add_field(name, row)
                    nbytes += size
                    continue
                if key is not None:
                    self._sample_ends(begin, nbytes)
                if self._names is not None:
                    seen.begin(name, row)
                key, begin, nbytes = name.key, number, size
        if key is not None:
            self._sample_ends(begin, nbytes)
            self._cuts.append(len(source))
        samples = self._samples if self._names is not None else None
        return Plan(self._cuts, samples, self._nbytes, self._left_out, self._first_left_out)

    def _sample_ends(self, begin: int, nbytes: int) -> None:
        self._samples += 1
        nbytes += self._more_bytes
        if self._held and self._held + nbytes > self._shard_size:
            self._cuts.append(begin)
            self._held = 0
        self._held += max(nbytes, 1)

    def _name(self, row: Row) -> Name | None:
        if self._names is None:
            return Name(f"{row[0]}/{row[1]}", "")
        name = self._names.of(row[1])
        if name is not None and self._check is not None:
            self._check(row[0], row[1])
        if name is not None and self._tar and (reason := unsafe_reason(name.key)):
            raise DecodeError(
                f"s3://{row[0]}/{row[1]} would be the member {name.key!r} of an archive: {reason}. Leave it out by "
                "pattern=, copy it to another key, or pack to another format",
                uri=f"s3://{row[0]}/{row[1]}",
            )
        return name

    def _size(self, row: Row) -> int:
        size = row[2] or 0
        if size > self._most_bytes:
            uri = f"s3://{row[0]}/{row[1]}"
            raise DecodeError(f"{uri} has {size:,} bytes, and {self._why}. Or leave it out by pattern=", uri=uri)
        return _TAR_BLOCK + size + -size % _TAR_BLOCK if self._tar else size

    def _leave_out(self, row: Row) -> None:
        if row[1].endswith("/") and not row[2]:
            return  # the "folders" of consoles are no loss
        self._left_out += 1
        self._first_left_out = self._first_left_out or f"s3://{row[0]}/{row[1]}"


class _Seen:
    """Finds samples of the same key, and fields that come twice in one.

    Where keys ascend "a.jpg" and "a.txt" are neighbours, so only an object without a suffix ("a") can meet its
    namesakes later. Otherwise all keys are remembered.
    """

    def __init__(self, ordered: bool) -> None:
        self._ordered = ordered
        self._bare: list[str] = []
        self._keys: set[str] = set()
        self._fields: dict[str, str] = {}

    def begin(self, name: Name, row: Row) -> None:
        key = name.key
        while self._bare and not key.startswith(self._bare[-1]):
            self._bare.pop()
        if key in self._bare or key in self._keys:
            raise DecodeError(
                f"s3://{row[0]}/{row[1]} would be in a second sample called {key!r}: a sample's key is the object's "
                "behind the folder of the source, and in archives up to the first dot. Leave one of them out by "
                "pattern=, or pack the sources apart",
                uri=f"s3://{row[0]}/{row[1]}",
            )
        if not self._ordered:
            self._keys.add(key)
        elif row[1].endswith(key):
            self._bare.append(key)
        self._fields = {name.field: row[1]}

    def add_field(self, name: Name, row: Row) -> None:
        earlier = self._fields.get(name.field)
        self._fields[name.field] = row[1]
        if earlier is not None:
            raise DecodeError(
                f"s3://{row[0]}/{row[1]} and {earlier} would both be the field {name.field!r} of the sample "
                f"{name.key!r}. Leave one of them out by pattern=",
                uri=f"s3://{row[0]}/{row[1]}",
            )


def _ascend(source: _Rows) -> bool:
    """Whether all keys ascend, as in a listing of one prefix."""
    last: bytes | None = None
    for start in range(0, len(source), _ROWS_AT_ONCE):
        for row in source.rows(range(start, min(start + _ROWS_AT_ONCE, len(source)))):
            key = row[1].encode()
            if last is not None and key <= last:
                return False
            last = key
    return True
