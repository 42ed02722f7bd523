"""Finding the row of a key or URI."""

import difflib
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from s3dataset._manifest._columns import Columns
from s3dataset._uri import S3Uri

_NEIGHBOURS: Final = 64
_SAMPLE: Final = 2000
_SUGGESTIONS: Final = 3
_EMPTY: Final = 0xFFFFFFFF


class Lookup:
    """Finds rows: by binary search where keys ascend, else by a table of hashes that is made at first use.

    The table takes 6 to 12 bytes a row and about a microsecond a row to make. Safe between threads: the worst that two
    can do is to make it twice.
    """

    __slots__ = ("_columns", "_prefixes", "_table")

    def __init__(self, columns: Columns, prefixes: Sequence[str]) -> None:
        self._columns = columns
        self._prefixes = prefixes  # of the listings, for those who leave them out
        self._table: array[int] | None = None

    def find(self, text: str) -> int:
        """The first row of a key, or of a URI.

        Raises:
            KeyError: It is not there; the message names similar ones.
            InvalidUriError: It begins as a URI and is none.
        """
        columns = self._columns
        bucket: str | None = None
        key = text
        if text.startswith("s3://"):
            bucket, key = (uri := S3Uri.parse(text, need_key=True)).bucket, uri.key
            if bucket not in columns.buckets:
                buckets = ", ".join(f"s3://{name}" for name in columns.buckets)
                raise KeyError(f"{text} is not among these objects, which are in {buckets or 'no bucket'}")
        row = self.row(bucket, key.encode(errors="surrogatepass"))
        if row is None:
            raise KeyError(f"{text} is not among these {len(columns):,} objects{self._suggestion(key)}")
        return row

    def row(self, bucket: str | None, key: bytes) -> int | None:
        """The first row of a key, None if there is none; `bucket` None: in whichever bucket."""
        columns = self._columns
        if columns.header["ascending"]:
            return _row_of_key(columns, key)
        table = self._table
        if table is None:
            table = self._table = _make_table(columns)
        mask = len(table) - 1
        slot = hash(key) & mask
        while (row := table[slot]) != _EMPTY:
            if columns.key_bytes(row) == key and (bucket is None or columns.bucket(row) == bucket):
                return row
            slot = (slot + 1) & mask
        return None

    def _suggestion(self, key: str) -> str:
        columns = self._columns
        for prefix in self._prefixes:
            if self.row(None, (prefix + key).encode(errors="surrogatepass")) is not None:
                return f". With the prefix it is: {prefix + key!r}"
        if ends_alike := columns.keys_ending(b"/" + key.encode(errors="surrogatepass"), _SUGGESTIONS):
            return f". Keys that end so: {', '.join(map(repr, ends_alike))}"
        if columns.header["ascending"]:
            at = bisect_left(range(len(columns)), key.encode(errors="surrogatepass"), key=columns.key_bytes)
            nearby = range(max(at - _NEIGHBOURS, 0), min(at + _NEIGHBOURS, len(columns)))
        else:
            nearby = range(min(_SAMPLE, len(columns)))
        close = difflib.get_close_matches(key, [columns.key(row) for row in nearby], n=_SUGGESTIONS)
        return f". Similar: {', '.join(map(repr, close))}" if close else ""


def _make_table(columns: Columns) -> "array[int]":
    """Open addressing with a third to two thirds of the slots taken; the first of equal keys comes first."""
    slots = 4
    while slots * 2 < len(columns) * 3:
        slots *= 2
    table = array("I", [_EMPTY]) * slots
    mask = slots - 1
    for row, key in enumerate(columns.keys()):
        slot = hash(key) & mask
        while table[slot] != _EMPTY:
            slot = (slot + 1) & mask
        table[slot] = row
    return table


def _row_of_key(columns: Columns, key: bytes) -> int | None:
    """The row of a key in columns whose keys ascend; None if it is not there."""
    row = bisect_left(range(len(columns)), key, key=columns.key_bytes)
    return row if row < len(columns) and columns.key_bytes(row) == key else None
