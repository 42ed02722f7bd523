"""Where the keys of a listing probably lie, learned from the pages seen so far.

A listing can be walked from any key on (`start-after`), so a large one is walked from many keys at once. Good starting
keys cut what is still unseen into equal shares, which takes a guess at keys that nobody has seen. The guess is that of
an arithmetic coder: each byte of a key narrows an interval in proportion to the byte's weight after the bytes before
it, and equal widths of the interval mean equal numbers of keys. The weights come from the tries of the pages seen:
which bytes occur at a place, and which do not although a page would have shown them. Digits, letters and UTF-8
continuation bytes come in classes: one of them seen makes the others probable until a page shows their absence.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

SCALE_BITS: Final = 1000
"""Bits of a coded key, few enough for a float. A byte without alternatives costs next to none, a random hexadecimal
digit four."""

_FULL: Final = 4096  # weight of a byte known to occur; what no model expects has weight 1 between two known bytes
_PRIOR: Final = 0.25  # how much evidence a guess counts, in nodes seen
_CLASS_SHARE: Final = 0.6  # how probable a byte is of whose class another was seen at the place
_PLAIN: Final = 4  # times after which a byte that is alone at its place is not counted any more
_MOST_CODES: Final = 4096
_SETTLED: Final = 12
_MEMORY: Final = 32  # nodes after which what was seen counts half: keys elsewhere may look different
_ELSEWHERE_SHARE: Final = 0.02  # and one that was seen at other places only
_CLASSES: Final = tuple(
    frozenset(members)
    for members in (b"0123456789", b"abcdef", b"abcdefghijklmnopqrstuvwxyz", b"ABCDEF", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
)
_DIGITS, _HEX_LOWER, _LOWER, _HEX_UPPER, _UPPER = _CLASSES
_CONTINUATION: Final = frozenset(range(0x80, 0xC0))
_SLASH: Final = 0x2F
_PREV: Final = 0x100  # no byte before: the first of a path component


def _complete(seen: frozenset[int]) -> frozenset[int]:
    """The bytes that are probable where those of `seen` occur."""
    found = set(seen)
    if seen & _DIGITS:
        found |= _DIGITS
    for hexadecimal, letters in ((_HEX_LOWER, _LOWER), (_HEX_UPPER, _UPPER)):
        if seen & letters:
            # A letter among digits and no letter beyond f: hexadecimal. Letters alone: words.
            found |= hexadecimal if seen & letters <= hexadecimal and seen & _DIGITS else letters
    if seen & _CONTINUATION:
        found |= _CONTINUATION
    return frozenset(found)


class _Place:
    """What was seen at one place of the trie: how often each byte occurred, and how often it could have."""

    __slots__ = ("coverage", "evidence", "present", "table")

    def __init__(self) -> None:
        self.evidence = 0
        self.present: dict[int, float] = {}
        self.coverage = [0.0] * 257  # differences: nodes in which a byte was present or known to be absent
        self.table: tuple[list[int], list[int], list[int]] | None = None

    def add(self, present: Sequence[int], first: int, last: int, times: int) -> bool:
        """Notes a node -> whether that made a difference."""
        if first == last and self.present.get(first, 0.0) >= _PLAIN:
            return False  # a place as it always is; noting it again would only make the table anew
        if self.evidence >= _SETTLED and len(present) == len(self.present):
            return False  # so is one where every byte known there occurs again
        self.evidence += times
        if self.evidence > _MEMORY:
            self.evidence //= 2
            self.present = {symbol: count / 2 for symbol, count in self.present.items()}
            self.coverage = [count / 2 for count in self.coverage]
        for symbol in present:
            self.present[symbol] = self.present.get(symbol, 0.0) + times
        self.coverage[first] += times
        self.coverage[last + 1] -= times
        self.table = None
        return True


class KeyModel:
    """An adaptive model of the keys below one prefix; all keys are UTF-8 bytes, without the prefix."""

    __slots__ = ("_any", "_anywhere", "_codes", "_places")

    def __init__(self) -> None:
        self._places: dict[int, _Place] = {}
        self._codes: dict[bytes, int] = {}  # of keys coded since the last change
        self._any: set[int] = {0x30}
        self._anywhere = _Place()  # stands for places that were never seen

    # -- learning -------------------------------------------------------------------------------------------------

    def observe(
        self,
        keys: Sequence[bytes],
        after: bytes,
        until: bytes | None,
        *,
        cut: int = 0,
        smallest: int = 8,
        times: int = 1,
    ) -> None:
        """Learns from one page.

        Args:
            keys: Its keys, ascending, at least one.
            after: The key behind which the page begins; nothing lies between it and `keys[0]`.
            until: Nothing lies between `keys[-1]` and this; None: nothing follows at all.
            cut: How many bytes of all keys to leave out.
            smallest: Nodes of the trie with fewer keys are not looked into, for speed.
            times: How many times this counts.
        """
        stack = [(0, len(keys), cut, 0, 0, _PREV)]  # keys[start:stop] share `length` bytes
        while stack:
            start, stop, length, depth, offset, previous = stack.pop()
            head, tail = keys[start], keys[stop - 1]
            while True:
                # Walks down while there is one way only: no loop over keys.
                if length >= len(head):  # the node's own path is a key; it sorts first
                    start += 1
                    if start == stop:
                        break
                    head = keys[start]
                    continue
                if head[length] != tail[length]:
                    break
                symbol = head[length]
                self._note(
                    depth, offset, previous, (symbol,), *self._covered(start, stop, length, keys, after, until), times
                )
                length += 1
                if symbol == _SLASH:
                    depth, offset, previous = depth + 1, 0, _PREV
                else:
                    offset, previous = offset + 1, symbol
            if start == stop:
                continue
            first, final = self._covered(start, stop, length, keys, after, until)
            present = []
            at = start
            while at < stop:
                symbol = keys[at][length]
                present.append(symbol)
                end = _run_end(keys, at, stop, length, symbol)
                if end - at >= smallest:
                    if symbol == _SLASH:
                        stack.append((at, end, length + 1, depth + 1, 0, _PREV))
                    else:
                        stack.append((at, end, length + 1, depth, offset + 1, symbol))
                at = end
            self._note(depth, offset, previous, present, first, final, times)

    @staticmethod
    def _covered(
        start: int, stop: int, length: int, keys: Sequence[bytes], after: bytes, until: bytes | None
    ) -> tuple[int, int]:
        """The bytes at `length` below the node about which the page leaves no doubt."""
        first, final = 0, 255
        node = keys[start][:length]
        if start == 0 and after[:length] == node and len(after) > length:
            first = after[length] + 1
        if stop == len(keys) and until is not None and until[:length] == node and len(until) > length:
            final = until[length]
        symbol = keys[start][length]
        return min(first, symbol), max(final, keys[stop - 1][length])

    def _note(
        self, depth: int, offset: int, previous: int, present: Sequence[int], first: int, last: int, times: int
    ) -> None:
        self._any.update(present)
        for place in (_place(depth, offset, previous), _place(depth, offset, 0x1FF)):
            seen = self._places.get(place)
            if seen is None:
                seen = self._places[place] = _Place()
            if seen.add(present, first, last, times):
                self._codes.clear()

    # -- coding ---------------------------------------------------------------------------------------------------

    def encode(self, key: bytes) -> int:
        """The number of `key` in 0 ... 2**SCALE_BITS; never descending with the key."""
        code = self._codes.get(key)
        if code is None:
            if len(self._codes) >= _MOST_CODES:
                self._codes.clear()
            code = self._codes[key] = self._encode(key)
        return code

    def _encode(self, key: bytes) -> int:
        low, width = 0, 1 << SCALE_BITS
        depth = offset = 0
        previous = _PREV
        for symbol in key:
            symbols, starts, weights = self._table(depth, offset, previous)
            total = starts[-1]
            index = _index(symbols, symbol)
            if index < 0:  # between two known bytes: the unit of weight there
                return low + width * (starts[~index] - 1) // total
            low += width * starts[index] // total
            width = width * weights[index] // total
            if width < 1 << 16:
                break
            if symbol == _SLASH:
                depth, offset, previous = depth + 1, 0, _PREV
            else:
                offset, previous = offset + 1, symbol
        return low

    def decode(self, number: int, tolerance: int) -> bytes:
        """A short string whose number is about `number`."""
        width = 1 << SCALE_BITS
        rest = number
        key = bytearray()
        depth = offset = 0
        previous = _PREV
        while width > tolerance and len(key) < 1000:
            symbols, starts, weights = self._table(depth, offset, previous)
            total = starts[-1]
            # The last symbol that begins at or before `rest`.
            low, high = 0, len(symbols)
            while low < high:
                middle = (low + high) // 2
                if width * starts[middle] // total <= rest:
                    low = middle + 1
                else:
                    high = middle
            if not low:
                break
            index = low - 1
            symbol = symbols[index]
            begin = width * starts[index] // total
            inner = width * weights[index] // total
            if rest - begin >= inner:  # between two known bytes: the next one's beginning is as good
                if low < len(symbols):
                    key.append(symbols[low])
                break
            key.append(symbol)
            rest -= begin
            width = inner
            if symbol == _SLASH:
                depth, offset, previous = depth + 1, 0, _PREV
            else:
                offset, previous = offset + 1, symbol
        return bytes(key)

    def _table(self, depth: int, offset: int, previous: int) -> tuple[list[int], list[int], list[int]]:
        """(bytes, their starts and the total, their weights) at a place."""
        narrow = self._places.get(_place(depth, offset, previous))
        if narrow is not None and narrow.table is not None:
            return narrow.table
        wide = self._places.get(_place(depth, offset, 0x1FF))
        if wide is None:
            if len(self._anywhere.present) != len(self._any):
                self._anywhere = _Place()
                self._anywhere.present = dict.fromkeys(self._any, 0.0)
            wide = self._anywhere
        if narrow is None and wide.table is not None:
            return wide.table
        likely = _complete(frozenset(wide.present))
        wide_coverage = list(accumulate(wide.coverage))
        narrow_coverage = list(accumulate(narrow.coverage)) if narrow is not None else None
        symbols = sorted(likely | self._any)
        starts, weights = [], []
        total = 1  # the end of a key, and what precedes the first byte
        wide_present = wide.present.get
        narrow_present = narrow.present.get if narrow is not None else None
        for symbol in symbols:
            guess = _PRIOR * (_CLASS_SHARE if symbol in likely else _ELSEWHERE_SHARE)
            share = (wide_present(symbol, 0.0) + guess) / (wide_coverage[symbol] + _PRIOR)
            if narrow_present is not None and narrow_coverage is not None:
                share = (narrow_present(symbol, 0.0) + _PRIOR * share) / (narrow_coverage[symbol] + _PRIOR)
            weight = int(_FULL * share) if share < 1 else _FULL
            starts.append(total)
            weights.append(weight or 1)
            total += (weight or 1) + 1
        starts.append(total)
        table = symbols, starts, weights
        if narrow is not None:
            narrow.table = table
        else:
            wide.table = table
        return table


def _place(depth: int, offset: int, previous: int) -> int:
    return (depth << 32) | (offset << 12) | previous  # keys have 1,024 bytes at most


def _index(symbols: list[int], symbol: int) -> int:
    """Where `symbol` is in the sorted `symbols`, or ~(where it would be)."""
    low, high = 0, len(symbols)
    while low < high:
        middle = (low + high) // 2
        if symbols[middle] < symbol:
            low = middle + 1
        else:
            high = middle
    return low if low < len(symbols) and symbols[low] == symbol else ~low


def _run_end(keys: Sequence[bytes], start: int, stop: int, length: int, symbol: int) -> int:
    """The end of the run of keys from `start` on that have `symbol` at `length`; galloping, as runs are often long."""
    step = 1
    low = start + 1
    while low < stop and keys[low][length] == symbol:
        start, low, step = low, low + step, step * 2
    high = min(low, stop)
    low = start + 1
    while low < high:
        middle = (low + high) // 2
        if keys[middle][length] == symbol:
            low = middle + 1
        else:
            high = middle
    return low
