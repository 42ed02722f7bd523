"""The commit record: what makes files a checkpoint. JSON with a version; pure.

A field may be added under the same version if readers that do not know it read the checkpoint right all the same;
everything else takes a new version, which older readers refuse.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Self

from s3dataset.errors import DecodeError, S3Exception

__all__ = ["VERSION", "CommitRecord", "StoredObject", "check_json"]

VERSION: Final = 1
_DEEPEST: Final = 100


class StoredObject(NamedTuple):
    """A file of a checkpoint.

    Attributes:
        name: Its key behind the attempt's prefix.
        size: Bytes.
        etag: As the service tells it, with quotes; "" where it tells none.
        checksum: (algorithm, base64) of the whole object, as the service has stored it; None where it has none.
    """

    name: str
    size: int
    etag: str
    checksum: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRecord:
    """What is known of a committed checkpoint.

    Attributes:
        step: Of the training.
        attempt: Whose files these are.
        format: "torch", "dcp" or "safetensors".
        world_size: Ranks that saved it.
        time: Epoch seconds at which it was committed, by the clock of rank 0.
        objects: Its files.
        dataset_state: Any JSON value.
        metadata: Any JSON value.
        libraries: Versions of what wrote it.
    """

    step: int
    attempt: str
    format: str
    world_size: int
    time: float
    objects: tuple[StoredObject, ...]
    dataset_state: Any = None
    metadata: Any = None
    libraries: Mapping[str, str] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(stored.size for stored in self.objects)

    def to_json(self) -> bytes:
        document = {
            "version": VERSION,
            "step": self.step,
            "attempt": self.attempt,
            "format": self.format,
            "world_size": self.world_size,
            "time": datetime.fromtimestamp(self.time, UTC).isoformat(timespec="milliseconds"),
            "objects": [
                {
                    "name": stored.name,
                    "size": stored.size,
                    "etag": stored.etag,
                    "checksum": None if stored.checksum is None else dict([stored.checksum]),
                }
                for stored in self.objects
            ],
            "dataset_state": self.dataset_state,
            "metadata": self.metadata,
            "libraries": dict(self.libraries),
        }
        lines = ",\n".join(f"{_compact(name)}: {_compact(value)}" for name, value in document.items())
        return f"{{\n{lines}\n}}\n".encode()

    @classmethod
    def from_json(cls, data: bytes, uri: str) -> Self:
        """Reads a record.

        Raises:
            DecodeError: It is none: something else lies there, or it is damaged.
            S3Exception: A newer version of this library wrote it.
        """
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise _no_record(uri, str(error)) from None
        version = document.get("version") if isinstance(document, dict) else None
        if isinstance(version, bool) or not isinstance(version, int) or version < 1:
            raise _no_record(uri, "it tells no version")
        if version > VERSION:
            raise S3Exception(
                f"the commit record {uri} has version {version}, and this s3dataset reads up to {VERSION}: a newer "
                "s3dataset wrote it; upgrade to restore it, or name an older step",
                operation="GetObject",
                uri=uri,
            )
        try:
            return cls._of(document)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise _no_record(uri, f"{type(error).__name__}: {error}") from None

    @classmethod
    def _of(cls, document: dict[str, Any]) -> Self:
        return cls(
            step=_number(document["step"]),
            attempt=_text(document["attempt"]),
            format=_text(document["format"]),
            world_size=_number(document["world_size"]),
            time=datetime.fromisoformat(document["time"]).timestamp(),
            objects=tuple(_stored(item) for item in document["objects"]),
            dataset_state=document["dataset_state"],
            metadata=document["metadata"],
            libraries={_text(name): _text(value) for name, value in _mapping(document["libraries"]).items()},
        )


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _stored(item: Any) -> StoredObject:
    fields = _mapping(item)
    name = _text(fields["name"])
    if not name:
        raise ValueError("a file without a name")
    checksum = None
    if fields["checksum"] is not None:
        ((algorithm, value),) = _mapping(fields["checksum"]).items()
        checksum = (algorithm, _text(value))
    return StoredObject(name, _number(fields["size"]), _text(fields["etag"]), checksum)


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} where an object stands")
    return value


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} where a count stands")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} where text stands")
    return value


def _no_record(uri: str, reason: str) -> DecodeError:
    return DecodeError(f"{uri} is no commit record of s3dataset, or it is damaged: {reason}", uri=uri)


def check_json(value: Any, name: str) -> None:
    """Looks whether a value comes back from JSON as it was (tuples come back as lists).

    Raises:
        TypeError: Something in it is no JSON; the message says where.
        ValueError: It holds a number that JSON has none for, or refers to itself.
    """
    _check(value, name, 0)


def _check(value: Any, name: str, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError(f"{name} is nested more than {_DEEPEST} deep, or refers to itself")
    if value is None or isinstance(value, bool | int):
        return
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ValueError(f"{name} is {value!r}, which is no UTF-8") from None
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}, which JSON has no number for: give None or text")
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            _check(item, f"{name}[{place}]", depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{name} has the key {key!r}, and keys of JSON are text: it would come back as one")
            _check(item, f"{name}[{key!r}]", depth + 1)
    else:
        raise TypeError(
            f"{name} is a {type(value).__name__}, and commit records are JSON: give numbers, text, lists and dicts, "
            "and put tensors into the state"
        )
