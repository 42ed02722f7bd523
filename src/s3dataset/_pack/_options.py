"""What was asked for, as a value that goes to every process that makes shards."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from s3dataset._client import ClientRef
from s3dataset._pack._names import Names
from s3dataset.formats import Compression, Format

__all__ = ["GROUPED", "PackSpec", "Transform", "Verify"]

Transform = Callable[[Any], Any]

Verify: TypeAlias = bool | Literal["read"]

GROUPED = frozenset({"tar", "tfrecord"})
"""Formats whose samples have fields of bytes; in the others an object is a row or a line."""


@dataclass(frozen=True, slots=True)
class PackSpec:
    """Frozen, and pickles without keys except to a process that is being started.

    Attributes:
        ref: Client of source and destination.
        bucket: Of the destination.
        folder: Of the destination: "" or ends in a slash.
        fingerprint: Of the plan.
        format: Of the shards.
        shard_size: Bytes.
        names: What samples are called.
        source_format: What the source's objects are shards of; None: each is (a part of) a sample.
        transform: The caller's.
        compression: As `Format.writer` takes it.
        storage_class: Of the shards.
        verify: How each shard is compared with what was written; see `pack`.
    """

    ref: ClientRef
    bucket: str
    folder: str
    fingerprint: str
    format: Format
    shard_size: int
    names: Names = field(default_factory=Names)
    source_format: Format | None = None
    transform: Transform | None = None
    compression: Compression | None = None
    storage_class: str | None = None
    verify: Verify = True

    @property
    def streams(self) -> bool:
        """Whether objects go into shards as they are, so that none need be held whole."""
        return self.transform is None and self.compression is None and self.format.name == "tar"

    @property
    def suffix(self) -> str:
        return self.format.suffix + ("" if self.compression is None else f".{self.compression}")

    @property
    def cuts_as_it_writes(self) -> bool:
        """Whether a task makes several shards, because the sizes of samples are known only when they are read."""
        return self.source_format is not None
