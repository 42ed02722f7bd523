"""The objects of a manifest, one by one."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, overload

from s3dataset._manifest._columns import Columns


class ManifestEntry(NamedTuple):
    """One object of a manifest.

    Attributes:
        bucket: Its bucket.
        key: Its key.
        size: Bytes, None where the manifest was made from URIs alone.
        etag: With its quotes, None where not known.
        last_modified: Epoch seconds, None where not known.
    """

    bucket: str
    key: str
    size: int | None
    etag: str | None
    last_modified: int | None

    @property
    def uri(self) -> str:
        """s3://bucket/key."""
        return f"s3://{self.bucket}/{self.key}"


class Change(NamedTuple):
    """How the service differs from a manifest, in one object.

    Attributes:
        kind: "added" (there now, not in the manifest), "removed" (the reverse) or "changed" (size or ETag differ).
        uri: The object.
        before: As the manifest has it; None for "added".
        after: As it is now; None for "removed".
    """

    kind: Literal["added", "removed", "changed"]
    uri: str
    before: ManifestEntry | None
    after: ManifestEntry | None


class ManifestObjects(Sequence[ManifestEntry]):
    """The objects of a manifest, made when asked for."""

    __slots__ = ("_columns",)

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def __len__(self) -> int:
        return len(self._columns)

    @overload
    def __getitem__(self, index: int) -> ManifestEntry: ...
    @overload
    def __getitem__(self, index: slice) -> list[ManifestEntry]: ...
    def __getitem__(self, index: int | slice) -> ManifestEntry | list[ManifestEntry]:
        if isinstance(index, slice):
            return [self._entry(row) for row in range(*index.indices(len(self)))]
        return self._entry(row_at(index, len(self)))

    def __iter__(self) -> Iterator[ManifestEntry]:
        return map(self._entry, range(len(self)))

    def _entry(self, row: int) -> ManifestEntry:
        columns = self._columns
        return ManifestEntry(
            columns.bucket(row), columns.key(row), columns.size(row), columns.etag(row), columns.mtime(row)
        )


def row_at(index: int, count: int) -> int:
    """The row of an index that may count from the end.

    Raises:
        IndexError: It is out of range.
    """
    row = index + count if index < 0 else index
    if not 0 <= row < count:
        raise IndexError(f"index {index} is out of range for {count:,} objects")
    return row
