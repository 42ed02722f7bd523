"""Labels of samples: from the folders of their keys, or from a file."""

import csv
import hashlib
import io
from pathlib import Path
from typing import Any, Final, Protocol

from s3dataset._client import Client
from s3dataset._pack._names import Names
from s3dataset._uri import S3Uri
from s3dataset.errors import DecodeError
from s3dataset.transforms import LabelFromKey

__all__ = ["Label", "Labels", "labels_of"]

Label = str | int

_FOLDER: Final = "folder"


class Labels(Protocol):
    """Gives each object's label."""

    identity: str
    """Equal for labels that are equal."""

    def of(self, bucket: str, key: str) -> Label: ...


def labels_of(label: str | LabelFromKey | None, client: Client, names: Names) -> "Labels | None":
    """What `label=` means: None, "folder", a `LabelFromKey`, or where a CSV file is.

    Raises:
        ValueError: It is none of them.
        DecodeError: The file is no such table.
        S3Exception: It could not be fetched.
    """
    if label is None:
        return None
    if isinstance(label, LabelFromKey):
        return _FromKey(label)
    if not isinstance(label, str):
        raise ValueError(f'label={label!r} is none: give "folder", a LabelFromKey, or the path or URI of a CSV file')
    if label == _FOLDER:
        return _FromKey(LabelFromKey())
    if not (label.startswith("s3://") or Path(label).suffix.lower() in {".csv", ".txt"} or Path(label).is_file()):
        raise ValueError(f'label={label!r} is neither "folder" nor a CSV file (a path or s3://bucket/key)')
    return _FromTable(label, _fetched(label, client), names)


class _Key:
    """As much of an object as `LabelFromKey` looks at."""

    __slots__ = ("bucket", "key")

    def __init__(self, bucket: str, key: str) -> None:
        self.key = key
        self.bucket = bucket


class _FromKey:
    def __init__(self, transform: LabelFromKey) -> None:
        self.identity = repr(transform)
        self._transform: Any = transform

    def of(self, bucket: str, key: str) -> Label:
        label: Label = self._transform(_Key(bucket, key))
        return label


class _FromTable:
    """A table with the columns "key" and "label": keys whole, behind the source's folder, as URI, or of samples."""

    def __init__(self, place: str, content: bytes, names: Names) -> None:
        self.identity = "csv " + hashlib.sha256(content).hexdigest()
        self._place = place
        self._names = names
        try:
            rows = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
            header = [name.strip().lower() for name in next(rows, [])]
            if "key" not in header or "label" not in header:
                raise DecodeError(
                    f'{place}: its first line must name the columns "key" and "label", and has {header}', uri=place
                )
            at_key, at_label = header.index("key"), header.index("label")
            table = {row[at_key]: row[at_label] for row in rows if row}
        except (UnicodeDecodeError, csv.Error, IndexError) as error:
            raise DecodeError(f"{place} is no CSV file in UTF-8 with a key and a label a line: {error}") from error
        # All of one kind, as columns are.
        numbers = bool(table) and all(text.removeprefix("-").isdecimal() and text.isascii() for text in table.values())
        self._labels: dict[str, Label] = {key: int(text) for key, text in table.items()} if numbers else dict(table)

    def of(self, bucket: str, key: str) -> Label:
        labels, folder = self._labels, self._names.folder
        name = self._names.of(key)
        for spelled in (key.removeprefix(folder), key, f"s3://{bucket}/{key}", name.key if name else key):
            label = labels.get(spelled)
            if label is not None:
                return label
        raise DecodeError(
            f"{self._place} has no label for s3://{bucket}/{key}: it was looked for as {key.removeprefix(folder)!r}, "
            "by its whole key and by its URI. Add it, or leave the object out by pattern=",
            uri=f"s3://{bucket}/{key}",
        )


def _fetched(place: str, client: Client) -> bytes:
    if not place.startswith("s3://"):
        return Path(place).read_bytes()
    uri = S3Uri.parse(place, need_key=True)
    return bytes(client.fetch(uri.bucket, uri.key))
