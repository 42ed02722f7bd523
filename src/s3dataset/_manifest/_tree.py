"""The directories of a listing as far as they are known, and how many keys each seems to hold.

Names of directories come from a few requests with a delimiter, at most a thousand a request. They are exact places to
cut a listing at, where a guess from the spelling of keys would often hit a void: class names, dates, hashes. What is
called a directory here ends in "/", or in another separator where keys have no slash: "n01440764_18.JPEG".
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple


class Outline(NamedTuple):
    """What a range of keys seems to consist of."""

    cuts: list[tuple[bytes, float]]
    """Places where a directory begins, ascending, each with how many keys of the range seem to lie before it."""
    keys: float
    """How many keys the range seems to hold."""
    first: bytes
    """The directory in which the range begins ("" or ending in the separator), of which no names are known."""
    unlisted: bytes | None
    """The first directory whose further names would be worth a request, and after which name, in it."""


class _Directory:
    """The names in one directory: files, and directories with the separator at their end."""

    __slots__ = (
        "closed",
        "closed_count",
        "closed_keys",
        "complete",
        "keys",
        "listed",
        "names",
        "stale",
        "sums",
        "touched",
        "usual",
    )

    def __init__(self) -> None:
        self.names: list[bytes] = []
        self.complete = False  # whether there are no further names
        self.keys: list[int] = []  # seen in each so far
        self.closed: list[bool] = []  # whether these are all
        self.listed: dict[int, bytes] = {}  # names that are directories with known names, and their paths
        self.touched: set[int] = set()  # names with keys
        self.closed_count = self.closed_keys = 0  # of directories whose keys are all known
        self.usual = 0.0  # keys of one of these, in the mean
        self.sums: list[float] = [0.0]
        self.stale = True

    def close(self, index: int) -> None:
        """Notes that the keys seen below a name are all."""
        if not self.closed[index]:
            self.closed[index] = True
            self.closed_count += 1
            self.closed_keys += self.keys[index]
            self.usual = self.closed_keys / self.closed_count


class DirectoryTree:
    """Directories with known names, from the root ("") on.

    Attributes:
        separator: One ASCII character that ends the name of a directory; may be changed while nothing is known.
    """

    __slots__ = ("_directories", "separator")

    def __init__(self) -> None:
        self._directories: dict[bytes, _Directory] = {}
        self.separator = b"/"

    def __contains__(self, path: bytes) -> bool:
        return path in self._directories

    def add(self, path: bytes, names: Sequence[bytes], *, complete: bool) -> None:
        """Takes names of the directory `path`, ascending, with their paths; more than once for a large directory."""
        directory = self._directories.setdefault(path, _Directory())
        known = directory.names
        fresh = [name[len(path) :] for name in names]
        if known:
            fresh = fresh[bisect_right(fresh, known[-1]) :]
        known.extend(fresh)
        directory.keys.extend([0] * len(fresh))
        directory.closed.extend(not name.endswith(self.separator) for name in fresh)
        directory.complete = complete
        above = self.parent(path)
        parent = self._directories.get(above) if path else None
        if parent is not None:
            name = path[len(above) :]
            index = bisect_left(parent.names, name)
            if index < len(parent.names) and parent.names[index] == name:
                parent.listed[index] = path
        for index, name in enumerate(known):
            if path + name in self._directories:
                directory.listed[index] = path + name
        for length in [0, *(at + 1 for at, symbol in enumerate(path) if symbol == self.separator[0])]:
            if path[:length] in self._directories:
                self._directories[path[:length]].stale = True

    def count(self, keys: Sequence[bytes], after: bytes, until: bytes | None) -> None:
        """Takes a page: `keys`, and that nothing else lies between `after` and `until` (None: the end)."""
        if self._directories:
            self._count(b"", keys, 0, len(keys), after, until)

    def _count(
        self, path: bytes, keys: Sequence[bytes], start: int, stop: int, after: bytes, until: bytes | None
    ) -> None:
        directory = self._directories.get(path)
        if directory is None or start == stop:
            return
        directory.stale = True
        length = len(path)
        names = directory.names
        index = max(bisect_right(names, keys[start][length:]) - 1, 0)
        at = start
        while at < stop and index < len(names):
            name = path + names[index]
            at = bisect_left(keys, name, at, stop)
            if at == stop:
                break
            end = self.end(name)
            here = bisect_left(keys, end, at, stop)
            if here > at:
                directory.keys[index] += here - at
                directory.touched.add(index)
                # Walked from its beginning, or on from keys counted before, to its end.
                if (until is None or until >= end) and (after < name or after.startswith(name)):
                    directory.close(index)
                if name.endswith(self.separator):
                    self._count(name, keys, at, here, after, until)
                at = here
            index += 1

    def parent(self, path: bytes) -> bytes:
        """The directory that a name is in."""
        return path[: path.rfind(self.separator, 0, -1) + 1]

    def end(self, name: bytes) -> bytes:
        """The first key behind all that begin with `name`, a directory, or behind the key `name`."""
        return name[:-1] + bytes([self.separator[0] + 1]) if name.endswith(self.separator) else name + b"\0"

    def leaf(self, key: bytes) -> bytes:
        """The first directory on the way to `key` of which no names are known; "" if there is none."""
        path = b""
        while path in self._directories:
            at = key.find(self.separator, len(path))
            if at < 0:
                return b""
            path = key[: at + 1]
        return path

    def _sums(self, path: bytes, expected: float) -> list[float]:
        """Keys that seem to lie before each name of a directory, and in all of it; `expected`: in all, by others."""
        directory = self._directories[path]
        if directory.stale:
            counts = directory.keys
            own = {index: self._sums(path, 0.0)[-1] for index, path in directory.listed.items()}
            touched = directory.touched
            mean = expected / max(len(counts), 1)
            if touched:
                mean = sum(max(counts[index], own.get(index, 0.0)) for index in touched) / len(touched)
            weights = [
                count if shut else max(mean, 1.5 * count) if count else mean
                for count, shut in zip(counts, directory.closed, strict=True)
            ]
            for index, keys in own.items():
                if keys and not directory.closed[index]:
                    weights[index] = max(keys, counts[index])
            directory.sums = [0.0, *accumulate(weights)]
            directory.stale = False
        return directory.sums

    def outline(self, lo: bytes, hi: bytes | None, *, page_keys: int) -> Outline | None:
        """What the keys k, lo < k <= hi (None: to the end), seem to be; None where no directory is known."""
        if b"" not in self._directories:
            return None
        cuts: list[tuple[bytes, float]] = []
        total = 0.0
        first = b""
        unlisted: bytes | None = None

        def visit(path: bytes, expected: float, *, after_lo: bool, before_hi: bool) -> None:
            """Adds what `path` holds; after_lo: all of it lies after lo; before_hi: before hi."""
            nonlocal total, first, unlisted
            directory = self._directories[path]
            sums = self._sums(path, expected)
            names = directory.names
            low = 0 if after_lo else bisect_right(names, lo[len(path) :]) - 1
            high = len(names) if before_hi or hi is None else bisect_right(names, hi[len(path) :])
            for index in range(max(low, 0), high):
                name = path + names[index]
                inside_low = index == low and not after_lo and lo.startswith(name)
                inside_high = index == high - 1 and not before_hi and hi is not None and hi.startswith(name)
                if index == low and not after_lo and not inside_low:
                    continue  # it ends before lo
                if not inside_low and name > lo and (hi is None or name < hi):
                    cuts.append((name, total))
                weight = sums[index + 1] - sums[index]
                if name in self._directories:
                    visit(name, weight, after_lo=not inside_low, before_hi=not inside_high)
                elif inside_low:
                    first = name
                    seen = directory.keys[index]
                    if seen < 1.5 * directory.usual:
                        total += max(directory.usual - seen, 0.0)
                    else:  # larger than others; how much so is open, so as much again as was seen, or twice that
                        total += 2.0 * seen if directory.usual else max(weight, 1.0 * seen)
                elif inside_high:
                    total += weight / 2
                else:
                    total += weight
            if not directory.complete and high == len(names):
                # What follows the known names is as much as they are, for all one knows.
                total += sums[-1]
                if unlisted is None and names and sums[-1] >= 2 * page_keys:
                    unlisted = path + names[-1]

        visit(b"", 0.0, after_lo=not lo, before_hi=hi is None)
        return Outline(cuts, total, first, unlisted)
