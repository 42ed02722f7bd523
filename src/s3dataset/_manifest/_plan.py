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
from itertools import pairwise
from typing import Final

from s3dataset._manifest._model import SCALE_BITS, KeyModel
from s3dataset._manifest._tree import DirectoryTree, Outline

FREE_CUTS: Final = 30
CUTS_PER_PAGE: Final = 0.25

_MIN_PAGE_KEYS: Final = 1000  # what S3 returns at most; smaller pages of other stores are learned from
_LEARN_CLOSELY_PAGES: Final = 24
_LEARN_PAGES: Final = 2000
GALLOP = 8
PLAUSIBLE = 4
LONG = 1.6
STRETCH = 1.7
CHARGE = 1.0
FEW = 4
FEWB = 4
DOUBT = 1.0
WONDER = 8
WALK = 2
GSTEP = 2
DIR_TIMES = 4
SAFETY = 0.08
_AGREE: Final = 2.5  # densities at both ends of a gap that differ by less make it an even one


class ListingOrderError(Exception):
    """The service does not list in key order, or does not begin behind `start-after`."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """One page to ask for: what follows `start_after`, or what `token` stands for where there is one."""

    number: int
    start_after: bytes
    token: str | None
    directory: bytes | None = None
    """Where not None: a page of the prefixes up to the next "/" below this one, and of nothing else."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Keys [start, stop) of a page that belong to the listing at `position`; positions order the pieces."""

    position: bytes
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class _Sample:
    """A page as a measure of density."""

    after: bytes
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
    dirty: bool = False


@dataclass(frozen=True, slots=True)
class _Guess:
    """How a gap looks in the model's numbers."""

    pages: float
    outline: Outline | None  # directories to cut at; what follows is then not set
    even: bool = False  # whether the keys seem spread evenly
    low: int = 0
    high: int = 0
    left: int = 0  # width of a page at the lower end
    right: int | None = None  # and at the upper
    directory: bytes = b""  # whose model the numbers are of
    safety: float = 0.0  # how much of a page's width not to rely on


class ListingPlan:
    """The state of one listing. `requests` says what to send; `page` takes what came."""

    def __init__(self, *, max_in_flight: int = 256) -> None:
        self._max_in_flight = max_in_flight
        self._models = {b"": KeyModel()}  # by directory: the whole, and large directories of files
        self._tree = DirectoryTree()
        self._asked: set[bytes] = set()
        self._first_page: Sequence[bytes] = ()
        self._names_wanted = 0
        self._gaps: list[_Gap] = [_Gap(b"", None)]  # ascending
        self._in_flight: dict[int, _Gap | None] = {}  # None: of a gap that is no more
        self._next_number = 0
        self._pages_done = 0
        self._keys = 0
        self._page_keys = _MIN_PAGE_KEYS
        self._curious: list[tuple[bytes, bytes]] = []

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
        for directory, after in self._curious:
            self._in_flight[self._next_number] = None
            self._names_wanted += 1
            found.append(PageRequest(self._next_number, after, None, directory))
            self._next_number += 1
        self._curious.clear()
        free = self._max_in_flight - len(self._in_flight)
        for gap in self._gaps:
            if free <= 0:
                break
            if gap.number is None:
                gap.number = self._next_number
                self._next_number += 1
                self._in_flight[gap.number] = gap
                found.append(PageRequest(gap.number, gap.lo, gap.token))
                free -= 1
        return found

    def directory(
        self, number: int, directory: bytes, names: Sequence[bytes] | None, *, is_truncated: bool = False
    ) -> None:
        """Takes the answer to a request for a directory: keys and prefixes in it, ascending; None: they are not to be had."""
        del self._in_flight[number]
        self._pages_done += 1
        self._names_wanted -= 1
        if names is not None:
            if names:
                until = names[-1] if is_truncated else directory + b"\xff"
                self._models[b""].observe(names, directory, until, smallest=1, times=DIR_TIMES)
            self._tree.add(directory, names, complete=not is_truncated)
        if not self._names_wanted and self._first_page:
            self._tree.count(self._first_page, b"", self._first_page[-1])
            self._first_page = ()

    def _wonder(self, directory: bytes, after: bytes) -> bool:
        """Wants the names in a directory, if they were not asked for -> whether they were not."""
        if (directory, after) in self._asked:
            return False
        self._asked.add((directory, after))
        self._curious.append((directory, after))
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
            else:
                gap.token = token
            return []
        if gap.lo and keys[0] <= gap.lo:
            raise ListingOrderError
        after, last = gap.lo, keys[-1]
        self._page_keys = max(self._page_keys, len(keys))
        if self._pages_done <= _LEARN_PAGES:
            self._learn(keys, after, last if token is not None else None)
        self._tree.count(keys, after, last if token is not None else None)
        if self._pages_done == 1 and token is not None:
            parts = last.split(b"/")
            depth = len(parts) - 2  # the directory of the key itself holds keys
            for level in sorted({0, *range(max(depth - 2, 0), depth + 1)}) if depth >= 0 else ():
                self._wonder(b"".join(part + b"/" for part in parts[:level]), b"")
            self._first_page = keys if self._curious else ()
        sample = _Sample(after, keys[0], last, len(keys))
        index = self._gaps.index(gap)
        if index:
            before = self._gaps[index - 1]
            if before.hi == after and before.right is None:
                before.right = sample
                before.dirty = True
        pieces = []
        start = 0
        while True:
            stop = len(keys) if gap.hi is None else bisect_right(keys, gap.hi, start)
            if stop > start:
                pieces.append(Piece(gap.lo, start, stop))
                self._keys += stop - start
            if token is None:
                # Nothing follows, so all gaps behind are empty, whether asked for or not.
                if gap.hi is None or stop == len(keys):
                    self._close_from(gap)
                    break
            elif gap.hi is None or last < gap.hi:
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

    def _learn(self, keys: Sequence[bytes], after: bytes, until: bytes | None) -> None:
        smallest = 8 if self._pages_done <= _LEARN_CLOSELY_PAGES else max(len(keys) // 8, 8)
        directory = self._tree.leaf(keys[0])
        cut = len(directory)
        if not cut or keys[-1][:cut] != directory or keys[0].find(b"/", cut) >= 0:
            self._models[b""].observe(keys, after, until, smallest=smallest)
            return
        model = self._models.get(directory)
        if model is None:
            model = self._models[directory] = KeyModel()
        model.observe(
            [key[cut:] for key in keys],
            after[cut:] if after.startswith(directory) else b"",
            keys[-1][cut:],
            smallest=smallest,
        )

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
        spent = self._pages_done - pages + CHARGE * (len(self._gaps) + self._in_vain())
        few = FEWB + FEW * pages - len(self._gaps)  # a listing of three pages is no reason for thirty requests
        return int(min((FREE_CUTS + CUTS_PER_PAGE * pages - spent) / CHARGE, few))

    def _in_vain(self) -> int:
        return sum(gap is None for gap in self._in_flight.values())

    def _cut_gaps(self) -> None:
        if self._first_page:
            return  # soon enough: names are worth more than guesses
        guesses: dict[_Gap, _Guess] = {}
        for gap in self._gaps:
            if gap.dirty and gap.left is not None:
                gap.dirty = False
                guesses[gap] = guess = self._guess(gap)
                gap.pages = guess.pages
                if gap.walked == 1 or not gap.promised:
                    gap.promised = guess.pages
                elif gap.walked > 2 + DOUBT * gap.promised:
                    gap.pages = max(gap.pages, min(gap.walked, 30))
        allowance = self._allowance()
        if allowance <= 0:
            return
        # All parts as long as one another would be best: they are walked side by side.
        fair = max(sum(gap.pages for gap in self._gaps) / (len(self._gaps) + allowance), 1.0)
        long = [gap for gap in self._gaps if gap.left is not None and gap.pages > LONG * fair]
        for gap in sorted(long, key=lambda gap: -gap.pages):
            guess = guesses.get(gap) or self._guess(gap)
            if guess.outline is None and not guess.left:
                continue
            cuts = min(max(round(gap.pages / fair) - 1, 1), allowance)
            allowance -= self._cut(gap, self._cut_keys(gap, guess, cuts))
            if allowance <= 0:
                return

    def _cut_keys(self, gap: _Gap, guess: _Guess, cuts: int) -> list[bytes]:
        """At most that many keys to cut a gap at, ascending."""
        if guess.outline is not None:
            return _directory_cuts(guess.outline, cuts)
        if not guess.even:
            numbers = _gallop(guess, cuts)
        elif guess.right is None:
            numbers = _stretch(guess, cuts)
        else:
            numbers = _even_cuts(guess, cuts)
        tolerance = guess.left // 4096
        model = self._models[guess.directory]
        return [_whole_characters(guess.directory + model.decode(number, tolerance)) for number in numbers]

    def _guess(self, gap: _Gap) -> _Guess:
        assert gap.left is not None
        plausible = PLAUSIBLE * (1 + self._keys / self._page_keys)
        hi = gap.hi
        outline = self._tree.outline(gap.lo, hi, page_keys=self._page_keys)
        known = math.inf
        if outline is not None:
            known = outline.keys / self._page_keys
            if outline.unlisted is not None and known >= WONDER:
                directory = outline.unlisted[: outline.unlisted.rfind(b"/", 0, -1) + 1]
                self._wonder(directory, outline.unlisted)
            if outline.cuts:
                return _Guess(min(known, plausible), outline)
            if outline.first:
                end = outline.first[:-1] + b"0"
                hi = min(hi, end) if hi is not None else end
            known = max(known, WALK * gap.walked if gap.walked > 1 else 0.0)
            if known >= WONDER and gap.lo.find(b"/", len(outline.first)) > 0 and self._wonder(outline.first, b""):
                return _Guess(min(known, plausible), None)
        directory = self._tree.leaf(gap.lo)
        if directory not in self._models or not gap.left.first.startswith(directory):
            directory = b""
        model, cut = self._models[directory], len(directory)
        low = model.encode(gap.lo[cut:])
        high = model.encode(hi[cut:]) if hi is not None and hi.startswith(directory) else 1 << SCALE_BITS
        width = high - low
        left = self._page_width(gap.left, model, cut)
        right = None
        if gap.right is not None and hi is gap.hi and gap.right.last.startswith(directory):
            right = self._page_width(gap.right, model, cut)
            # A page that begins far behind the cut says that the cut lies in a void, not how dense the gap's end is.
            if model.encode(gap.right.first[cut:]) - high > right:
                right = None
        if right is None:
            pages = width / left
            even = pages <= plausible
        elif left < right * _AGREE and right < left * _AGREE:
            safety = 0.005 if abs(left - right) < 0.002 * left else SAFETY
            step = (left + right) // 2
            return _Guess(min(width / step, plausible, known), None, True, low, high, step, step, directory, safety)
        else:
            by_left, by_right = width / left, width / right
            pages = max((by_left * by_right) ** 0.5, min(max(by_left, by_right), 1 + WALK * gap.walked))
            even = False
        return _Guess(min(pages, plausible, known), None, even, low, high, left, right, directory, SAFETY)

    def _page_width(self, sample: _Sample, model: KeyModel, cut: int) -> int:
        """Width of a full page at that place, in the model's numbers."""
        width = model.encode(sample.last[cut:]) - model.encode(sample.first[cut:])
        return max(width, 1) * self._page_keys // sample.keys

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


def _directory_cuts(outline: Outline, cuts: int) -> list[bytes]:
    """The directories nearest to where equal parts would begin."""
    part = outline.keys / (cuts + 1)
    found: list[bytes] = []
    bound = part * 0.5
    for (key, before), (_, after) in pairwise([*outline.cuts, (b"", math.inf)]):
        if len(found) == cuts:
            break
        if before >= bound or after >= bound + part:
            found.append(key)
            bound = before + part * 0.75
    return found


def _even_cuts(guess: _Guess, cuts: int) -> list[int]:
    """Cuts that make each part a whole number of pages, a little less where densities vary: an end costs a request."""
    pages = (guess.high - guess.low) / guess.left
    pages_each = max(math.ceil(pages / (cuts + 1)), 1)
    share = pages_each - guess.safety * pages_each**0.5
    stride = max(guess.left * int(share * 1024) // 1024, 1)
    end = guess.high - guess.left // 5
    return list(range(guess.low + stride, end, stride))[:cuts]


def _stretch(guess: _Guess, cuts: int) -> list[int]:
    """Cuts at distances that double: few are in vain where the keys end sooner than it seems."""
    pages = (guess.high - guess.low) / guess.left
    ratio = STRETCH
    part = pages / sum(ratio**i for i in range(cuts + 1))
    if part < 1:
        part = 1.0
    found = []
    at = 0.0
    for i in range(cuts):
        at += _whole_pages(part * ratio**i, guess.safety)
        if at >= pages - 0.2:
            break
        found.append(guess.low + guess.left * int(at * 1024) // 1024)
    return found


def _whole_pages(pages: float, safety: float) -> float:
    """So many pages that the last of them is all but full: a page that is not costs as much as one that is."""
    whole = max(round(pages), 1)
    return whole - safety * whole**0.5


def _gallop(guess: _Guess, cuts: int) -> list[int]:
    """Cuts at growing distances from the ends that are dense: how far the density reaches is not known."""
    width = guess.high - guess.low
    found = set()
    ends = [(guess.left, guess.low, 1)]
    if guess.right is not None:
        ends.append((guess.right, guess.high, -1))
    for page, base, sign in ends:
        if width < 2 * page:
            continue
        doublings = math.log2(width / page)
        count = min(GALLOP, cuts, max(1, int(doublings / GSTEP)))
        for i in range(count):
            whole = doublings * (i + 1) / (count + 1)
            if whole < 20:
                found.add(base + sign * page * int(_whole_pages(2**whole, guess.safety) * 1024) // 1024)
            else:
                found.add(base + sign * _scale(page, whole))
    return sorted(found)[:cuts]


def _scale(number: int, doublings: float) -> int:
    """number * 2**doublings, for numbers of any size."""
    whole = int(doublings)
    return (number << whole) * int(2 ** (doublings - whole) * 1024) // 1024


def _whole_characters(key: bytes) -> bytes:
    """`key` up to its last byte that makes a whole UTF-8 character."""
    try:
        key.decode()
    except UnicodeDecodeError:
        return key.decode(errors="ignore").encode()
    return key
