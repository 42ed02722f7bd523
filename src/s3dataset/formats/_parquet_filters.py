"""Filters of rows: pyarrow's expressions, or lists of (column, operator, value) as pyarrow.parquet takes them."""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from s3dataset.formats._content import broken
from s3dataset.formats._parquet_layout import arrow_errors, file_metadata, footer_file, pyarrow

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Filter"]


class Filter:
    """A filter as a value: compares, hashes and pickles, and becomes pyarrow's expression when it is used."""

    __slots__ = ("given", "text")

    def __init__(self, given: Any) -> None:
        """Takes an expression, a list of conditions that must hold, or a list of such lists of which one must.

        Raises:
            ValueError: It is none of these.
        """
        if isinstance(given, dict):
            raise ValueError(
                f"the rows were filtered by {given.get('text')}, of which an index keeps only the text: "
                "give the format again, as format=formats.Parquet(filters=...)"
            )
        self.given = given if hasattr(given, "to_substrait") else _normal_form(given)
        self.text = str(self.given)

    def __eq__(self, other: object) -> bool:
        return self.text == other.text if isinstance(other, Filter) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[Any, ...]:
        return Filter, (self.given,)

    def described(self) -> Any:
        """As JSON can hold it: the lists, or else only the text, which still compares."""
        if isinstance(self.given, list):
            try:
                json.dumps(self.given)
            except (TypeError, ValueError):
                pass
            else:
                return [[list(condition) for condition in group] for group in self.given]
        return {"text": self.text}

    def expression(self) -> Any:
        if not isinstance(self.given, list):
            return self.given
        try:
            return pyarrow().parquet.filters_to_expression(self.given)
        except arrow_errors() as error:
            raise ValueError(f"Parquet(filters={self}) cannot be used: {error}") from error

    def columns(self, head: bytes, url: str) -> tuple[str, ...]:
        """The columns that it needs."""
        if isinstance(self.given, list):
            return tuple(sorted({name for group in self.given for name, _, _ in group}))
        # An expression does not tell, but its text holds the names.
        names = file_metadata(head, url).schema.to_arrow_schema().names
        return tuple(name for name in names if name in self.text or "FieldPath(" in self.text)

    def row_groups(self, head: bytes, url: str) -> frozenset[int]:
        """The numbers of the row groups in which rows can match, by their statistics."""
        return _row_groups(self, head, url)

    def of(self, table: "pa.Table", url: str) -> "pa.Table":
        """The rows that match."""
        try:
            return table.filter(self.expression())
        except arrow_errors() as error:
            raise broken(url, f"Parquet(filters={self}) cannot be used on it: {error}") from error


@lru_cache(maxsize=64)
def _row_groups(rows: Filter, head: bytes, url: str) -> frozenset[int]:
    import pyarrow.dataset  # noqa: PLC0415

    try:
        fragment = pyarrow.dataset.ParquetFileFormat().make_fragment(footer_file(head))
        return frozenset(group.id for group in fragment.subset(rows.expression()).row_groups)
    except arrow_errors() as error:
        raise broken(url, f"Parquet(filters={rows}) cannot be used on it: {error}") from error


def _normal_form(given: Any) -> list[list[tuple[str, str, Any]]]:
    groups = given
    if isinstance(given, Sequence) and given and all(_is_condition(one) for one in given):
        groups = [given]
    valid = isinstance(groups, Sequence) and groups and not isinstance(groups, str | bytes)
    if not valid or not all(
        isinstance(group, Sequence) and group and all(map(_is_condition, group)) for group in groups
    ):
        raise ValueError(
            f"Parquet(filters={given!r}) is to be a pyarrow expression, or a list of (column, operator, value), or a "
            "list "
            "of such lists"
        )
    return [[(name, op, _listed(value)) for name, op, value in group] for group in groups]


def _is_condition(one: Any) -> bool:
    return isinstance(one, Sequence) and len(one) == 3 and isinstance(one[0], str) and isinstance(one[1], str)


def _listed(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value)
    return list(value) if isinstance(value, tuple) else value
