"""Which pages of a listing to ask for, so that many are under way and few are asked for in vain.

The unseen part of the key space is a row of gaps, each an interval (lo, hi]. Every gap is walked page by page from its
lower end; a gap that seems to hold many pages is cut in two or more, each then walked on its own. A page that runs past
its gap's end is cut there, so whatever the guesses, each key comes once and in order. A bad guess costs at most one
request: each cut adds at most one page that is not full. Cuts are therefore rationed by what has been found so far,
which bounds the requests of any listing of n full pages by (1 + `CUTS_PER_PAGE`) n + `FREE_CUTS` + 1.

Pure: no input or output, no clock. Keys are UTF-8 bytes, whose order is that of S3, with the listing's prefix removed.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from s3dataset._manifest._cuts import EXACT, LOOSE, Directories, Stretch, Undivided, directory_cuts, stretch_cuts
from s3dataset._manifest._model import SCALE_BITS, KeyModel
from s3dataset._manifest._tree import DirectoryTree

FREE_CUTS: Final = 30
CUTS_PER_PAGE: Final = 0.25

_LEARN_CLOSELY_PAGES: Final = 24
_LEARN_PAGES: Final = 100
_LEARN_EVERY: Final = 4
_LEARN_COARSELY: Final = 8  # then nodes of the trie with fewer than this part of the page's keys are left alone
_NAMES_COUNT: Final = 4  # names of directories are complete where those in a page are a few: they count as more nodes
_FIRST_GAPS: Final = 4
_GAPS_PER_PAGE: Final = 4  # a listing of three pages is no reason for thirty requests
_PLAUSIBLE: Final = 4.0  # a gap seems at most so much larger than all that was seen
_LONG: Final = 1.6  # a part that is so much longer than is fair is cut
_LINDY: Final = 2.0  # what went on for so many pages may go on for so many times as many
_MOST_DOUBTED_PAGES: Final = 30
_MOST_EMPTY_PAGES: Final = 100  # in a row, before the service is taken for one that does not list by the rules
_PAGES_AWAITING_NAMES: Final = 3  # stores that collect them slowly are not waited for
_OTHER_SEPARATORS: Final = (b"_", b"-", b".")
_KEYS_PER_NAME: Final = 10
_NAMES_PAGES: Final = 20  # names are worth a request where so many pages depend on them
_AGREE: Final = 2.5  # densities at both ends of a gap that differ by less make it an even one


class ListingOrderError(Exception):
    """The service does not list in key order, or does not begin behind `start-after`."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """One page to ask for.

    Attributes:
        number: Of the request; they count up.
        start_after: The page begins behind this key.
        token: Stands for the same, where there is one.
        until: Keys behind this one are of no interest; None: all are.
        directory: Where not None, the page is to be of the names in this directory, and of nothing else.
        delimiter: Then, what ends a name.
    """

    number: int
    start_after: bytes
    token: str | None = None
    until: bytes | None = None
    directory: bytes | None = None
    delimiter: str = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """Keys [start, stop) of a page that belong to the listing at `position`; positions order the pieces."""

    position: bytes
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class _Sample:
    """A page as a measure of density."""

    first: bytes
    last: bytes
    keys: int


@dataclass(slots=True, eq=False)
class _Gap:
    """Keys k with lo < k <= hi of which nothing is known."""

    lo: bytes
    hi: bytes | None  # None: to the end
    token: str | None = None
    number: int | None = None  # of the request under way
    left: _Sample | None = None  # the page that ended at lo
    right: _Sample | None = None  # the first page behind hi
    pages: float = 1.0  # what it seems to hold
    walked: int = 0  # pages that came one after the other up to lo
    promised: float = 0.0  # what it seemed to hold after its first page
    empty_pages: int = 0  # in a row
    dirty: bool = False


_Guess: TypeAlias = Directories | Undivided | Stretch


class ListingPlan:
    """The state of one listing. `requests` says what to send; `page` takes what came."""

    def __init__(self, *, max_in_flight: int = 256) -> None:
        self._max_in_flight = max_in_flight
        self._models = {b"": KeyModel()}  # by directory: the whole, and large directories of files
        self._tree = DirectoryTree()
        self._asked: set[tuple[bytes, bytes]] = set()
        self._first_page: Sequence[bytes] = ()
        self._names_wanted = 0
        self._gaps: list[_Gap] = [_Gap(b"", None)]  # ascending
        self._in_flight: dict[int, _Gap | None] = {}  # None: of a gap that is no more
        self._next_number = 0
        self._pages_done = 0
        self._keys = 0
        self._page_keys = 1  # of the largest page that was not the last
        self._wanted: list[tuple[bytes, bytes]] = []

    @property
    def done(self) -> bool:
        """Whether every key is known."""
        return not self._gaps

    @property
    def keys(self) -> int:
        """Keys known so far."""
        return self._keys

    # -- requests ---------------------------------------------------------------------------------------------------

    def requests(self) -> list[PageRequest]:
        """The pages to ask for now."""
        self._cut_gaps()
        found = []
        for directory, after in self._wanted:
            self._in_flight[self._next_number] = None
            self._names_wanted += 1
            delimiter = self._tree.separator.decode()
            found.append(PageRequest(self._next_number, after, directory=directory, delimiter=delimiter))
            self._next_number += 1
        self._wanted.clear()
        free = self._max_in_flight - len(self._in_flight)
        for gap in self._gaps:
            if free <= 0:
                break
            if gap.number is None:
                gap.number = self._next_number
                self._next_number += 1
                self._in_flight[gap.number] = gap
                found.append(PageRequest(gap.number, gap.lo, gap.token, gap.hi))
                free -= 1
        return found

    def directory(
        self, number: int, directory: bytes, names: Sequence[bytes] | None, *, is_truncated: bool = False
    ) -> None:
        """Takes the answer to a request for a directory.

        Args:
            number: `PageRequest.number`.
            directory: `PageRequest.directory`.
            names: The keys and prefixes in it, ascending; None: they are not to be had.
            is_truncated: Whether there are further ones.
        """
        del self._in_flight[number]
        self._pages_done += 1
        self._names_wanted -= 1
        if names is not None:
            if names:
                until = names[-1] if is_truncated else directory + b"\xff"
                self._models[b""].observe(names, directory, until, smallest=1, times=_NAMES_COUNT)
            of_directories = sum(name.endswith(self._tree.separator) for name in names)
            if not is_truncated or 2 * of_directories >= len(names):  # else it is a page of keys, and tells little
                self._tree.add(directory, names, complete=not is_truncated)
        if not self._names_wanted and self._first_page:
            self._tree.count(self._first_page, b"", self._first_page[-1])
            self._first_page = ()

    def _want_names(self, directory: bytes, after: bytes) -> bool:
        """Wants the names in a directory behind `after`, if that was not done before -> whether it was not."""
        if (directory, after) in self._asked or len(self._wanted) >= self._allowance():
            return False
        self._asked.add((directory, after))
        self._wanted.append((directory, after))
        return True

    # -- pages ------------------------------------------------------------------------------------------------------

    def page(self, number: int, keys: Sequence[bytes], *, token: str | None) -> list[Piece]:
        """Takes the page that answers request `number`.

        Args:
            number: `PageRequest.number`.
            keys: The keys, ascending.
            token: The continuation token; None where the page is the last.

        Returns:
            The parts of the page that belong to the listing; most often one, the whole page.

        Raises:
            ListingOrderError: The page does not begin behind the key that was asked for.
        """
        gap = self._in_flight.pop(number)
        self._pages_done += 1
        if gap is None:
            return []
        gap.number = None
        if not keys:
            if token is None:
                self._close_from(gap)
                return []
            gap.token = token
            gap.empty_pages += 1
            if gap.empty_pages > _MOST_EMPTY_PAGES:
                raise ListingOrderError
            return []
        gap.empty_pages = 0
        if gap.lo and keys[0] <= gap.lo:
            raise ListingOrderError
        self._learn(gap, keys, None if token is None else keys[-1])
        if self._pages_done == 1 and token is not None:
            self._look_around(keys)
        return self._assign(gap, keys, token)

    def _assign(self, gap: _Gap, keys: Sequence[bytes], token: str | None) -> list[Piece]:
        """Gives keys that begin behind `gap.lo` to the gaps that they are of."""
        last = keys[-1]
        sample = _Sample(keys[0], last, len(keys))
        index = self._gaps.index(gap)
        if index:
            before = self._gaps[index - 1]
            if before.hi == gap.lo and before.right is None:
                before.right, before.dirty = sample, True
        pieces = []
        start = 0
        while True:
            stop = len(keys) if gap.hi is None else bisect_right(keys, gap.hi, start)
            if stop > start:
                pieces.append(Piece(gap.lo, start, stop))
                self._keys += stop - start
            if token is None and stop == len(keys):
                self._close_from(gap)  # nothing follows: gaps behind are empty, whether asked for or not
                break
            if token is not None and (gap.hi is None or last < gap.hi):
                gap.lo, gap.token, gap.left, gap.dirty = last, token, sample, True
                gap.walked += 1
                break
            index = self._gaps.index(gap)
            del self._gaps[index]
            start = stop
            following = self._gaps[index] if index < len(self._gaps) else None
            if following is None or following.lo != gap.hi or following.number is not None:
                break
            gap = following  # not asked for yet: the rest of this page is its beginning
        return pieces

    def _look_around(self, keys: Sequence[bytes]) -> None:
        """Wants the names in the directories around the first page: in the lowest that hold directories, and in all."""
        self._tree.separator = separator = _separator(keys)
        parts = keys[-1].split(separator)
        lowest = len(parts) - 2
        for level in sorted({0, *range(max(lowest - 2, 0), lowest + 1)}) if lowest >= 0 else ():
            self._want_names(b"".join(part + separator for part in parts[:level]), b"")
        if self._wanted:
            self._first_page = keys

    def _learn(self, gap: _Gap, keys: Sequence[bytes], until: bytes | None) -> None:
        """Learns from a page that holds all keys behind `gap.lo` up to `until`."""
        after = gap.lo
        if until is not None:
            self._page_keys = max(self._page_keys, len(keys))
        self._tree.count(keys, after, until)
        if self._pages_done > _LEARN_PAGES and self._pages_done % _LEARN_EVERY:
            return
        closely = self._pages_done <= _LEARN_CLOSELY_PAGES
        smallest = _LEARN_COARSELY if closely else max(len(keys) // _LEARN_COARSELY, _LEARN_COARSELY)
        directory = self._tree.leaf(keys[0])
        cut = len(directory)
        if not cut or not keys[-1].startswith(directory) or self._tree.separator in keys[0][cut:]:
            self._models[b""].observe(keys, after, until, smallest=smallest)
            return
        # A directory of files that fills pages: its keys are of one kind, and other directories' are not.
        model = self._models.get(directory)
        if model is None:
            model = self._models[directory] = KeyModel()
        model.observe(keys, after if after.startswith(directory) else directory, keys[-1], cut=cut, smallest=smallest)

    def _close_from(self, gap: _Gap) -> None:
        """Drops `gap` and all behind it."""
        index = self._gaps.index(gap)
        for other in self._gaps[index:]:
            if other.number is not None:
                self._in_flight[other.number] = None
        del self._gaps[index:]

    # -- cuts -------------------------------------------------------------------------------------------------------

    def _allowance(self) -> int:
        """How many more cuts keep the bound, if each of them turns out useless."""
        pages = self._keys / self._page_keys
        in_vain = sum(gap is None for gap in self._in_flight.values())
        spent = self._pages_done - pages + len(self._gaps) + in_vain
        most = min(_FIRST_GAPS + _GAPS_PER_PAGE * pages, 2 * self._max_in_flight)
        return int(min(FREE_CUTS + CUTS_PER_PAGE * pages - spent, most - len(self._gaps)))

    def _cut_gaps(self) -> None:
        if self._first_page and self._tree.separator == b"/" and self._keys < _PAGES_AWAITING_NAMES * self._page_keys:
            return  # the first names are on their way, and worth more than guesses
        guesses: dict[_Gap, _Guess] = {}
        for gap in self._gaps:
            if gap.dirty and gap.left is not None:
                gap.dirty = False
                guesses[gap] = self._guess(gap, gap.left)
                self._expect(gap, guesses[gap].pages)
        allowance = self._allowance()
        if allowance <= 0:
            return
        # All parts as long as one another would be best: they are walked side by side.
        fair = max(sum(gap.pages for gap in self._gaps) / (len(self._gaps) + allowance), 1.0)
        long = [gap for gap in self._gaps if gap.left is not None and gap.pages > _LONG * fair]
        for gap in sorted(long, key=lambda gap: -gap.pages):
            if gap.left is not None:
                guess = guesses.get(gap) or self._guess(gap, gap.left)
                cuts = min(max(round(gap.pages / fair) - 1, 1), allowance)
                allowance -= self._cut(gap, self._cut_keys(gap, guess, cuts))
            if allowance <= 0:
                return

    @staticmethod
    def _expect(gap: _Gap, pages: float) -> None:
        """Takes a guess for a gap's pages, with doubt where the gap has gone on for longer than was guessed before."""
        gap.pages = pages
        if gap.walked == 1 or not gap.promised:
            gap.promised = pages
        elif gap.walked > 2 + gap.promised:
            gap.pages = max(pages, min(gap.walked, _MOST_DOUBTED_PAGES))

    def _cut_keys(self, gap: _Gap, guess: _Guess, cuts: int) -> list[bytes]:
        """At most that many keys to cut at, ascending."""
        if isinstance(guess, Directories):
            return directory_cuts(guess.outline, cuts)
        if isinstance(guess, Undivided):
            return []
        model = self._models[guess.directory]
        fine = guess.left // 4096  # no need to spell a key out beyond a quarter of a key's share
        keys = [guess.directory + _whole_characters(model.decode(at, fine)) for at in stretch_cuts(guess, cuts)]
        if not guess.even and b"" not in self._tree:
            keys = self._at_directories(gap.lo, keys)[:cuts]
        return keys

    def _at_directories(self, lo: bytes, keys: Sequence[bytes]) -> list[bytes]:
        """Moves cuts to where directories begin, and adds one behind that of `lo`; for when no names are to be had."""
        tree = self._tree
        inside = tree.parent(lo + tree.separator)
        found = {tree.end(inside)} if inside else set()
        for key in keys:
            common = next(
                (at for at, (a, b) in enumerate(zip(lo, key, strict=False)) if a != b), min(len(lo), len(key))
            )
            end = key.find(tree.separator, common)
            found.add(key[: end + 1] if end >= 0 else key)
        return sorted(found)

    def _guess(self, gap: _Gap, left: _Sample) -> _Guess:
        """How a gap's keys lie, as far as can be told."""
        plausible = _PLAUSIBLE * (1 + self._keys / self._page_keys)
        hi = gap.hi
        outline = self._tree.outline(gap.lo, hi, page_keys=self._page_keys)
        if outline is not None:
            pages = outline.keys / self._page_keys
            if outline.unlisted is not None and pages >= _NAMES_PAGES:
                self._want_names(self._tree.parent(outline.unlisted), outline.unlisted)
            if outline.cuts:
                return Directories(min(pages, plausible), outline)
            if outline.first:
                end = self._tree.end(outline.first)
                hi = end if hi is None else min(hi, end)
            if gap.walked > 1:
                pages = max(pages, _LINDY * gap.walked)
            plausible = min(plausible, pages)
            holds_directories = self._tree.separator in gap.lo[len(outline.first) :]
            if pages >= _NAMES_PAGES and holds_directories and self._want_names(outline.first, b""):
                return Undivided(plausible)
        return self._measure(gap, left, hi, plausible)

    def _measure(self, gap: _Gap, sample: _Sample, hi: bytes | None, plausible: float) -> Stretch:
        """Compares a gap's width up to `hi` with those of the pages at its ends."""
        directory = self._tree.leaf(gap.lo)
        if directory not in self._models or not sample.first.startswith(directory):
            directory = b""
        model, cut = self._models[directory], len(directory)
        low = model.encode(gap.lo[cut:])
        high = model.encode(hi[cut:]) if hi is not None and hi.startswith(directory) else 1 << SCALE_BITS
        width = high - low
        left = self._page_width(sample, model, cut)
        right = None
        if gap.right is not None and hi == gap.hi and gap.right.last.startswith(directory):
            right = self._page_width(gap.right, model, cut)
            # A page that begins far behind the cut says that the cut lies in a void, not how dense the gap's end is.
            if model.encode(gap.right.first[cut:]) - high > right:
                right = None
        if right is None:
            pages = width / left
            return Stretch(min(pages, plausible), pages <= plausible, directory, low, high, left, None, LOOSE)
        if left < right * _AGREE and right < left * _AGREE:
            slack = EXACT if abs(left - right) < 0.002 * left else LOOSE
            page = (left + right) // 2
            return Stretch(min(width / page, plausible), True, directory, low, high, page, page, slack)
        by_left, by_right = width / left, width / right
        pages = max(math.sqrt(by_left) * math.sqrt(by_right), min(max(by_left, by_right), 1 + _LINDY * gap.walked))
        return Stretch(min(pages, plausible), False, directory, low, high, left, right, LOOSE)

    def _page_width(self, sample: _Sample, model: KeyModel, cut: int) -> int:
        """Width of a full page at that place, in the model's numbers."""
        width = model.encode(sample.last[cut:]) - model.encode(sample.first[cut:])
        return max(width * self._page_keys // sample.keys, 1)

    def _cut(self, gap: _Gap, keys: Sequence[bytes]) -> int:
        """Cuts a gap at these keys, ascending -> how many cuts that made."""
        hi = gap.hi
        keys = [key for key in keys if key > gap.lo and (hi is None or key < hi)]
        made = 0
        share = gap.pages / (len(keys) + 1)
        for key in keys:
            if key <= gap.lo:
                continue
            new = _Gap(key, gap.hi, right=gap.right, pages=share)
            gap.hi, gap.right, gap.pages = key, None, share
            self._gaps.insert(self._gaps.index(gap) + 1, new)
            gap = new
            made += 1
        return made


def _separator(keys: Sequence[bytes]) -> bytes:
    """What seems to end the names of directories in a page: a slash, else what few beginnings of keys end in."""
    if any(b"/" in key for key in keys):
        return b"/"
    for separator in _OTHER_SEPARATORS:
        names = {key.partition(separator)[0] for key in keys}
        if len(names) * _KEYS_PER_NAME <= len(keys) and separator in keys[-1]:
            return separator
    return b"/"


def _whole_characters(key: bytes) -> bytes:
    """`key` up to its last byte that makes a whole UTF-8 character."""
    try:
        key.decode()
    except UnicodeDecodeError:
        return key.decode(errors="ignore").encode()
    return key
