"""The checksum that the service has stored of a whole object, as a HEAD tells it."""

from typing import TYPE_CHECKING, Final, NamedTuple, cast

from s3dataset._native import Reply
from s3dataset.errors import S3Exception

if TYPE_CHECKING:
    from s3dataset._client._queue import RequestQueue

__all__ = ["CHECKSUM_MODE", "StoredChecksum", "stored_checksum", "take_head"]

CHECKSUM_MODE: Final = ("x-amz-checksum-mode", "ENABLED")
"""The header of a HEAD that is to tell the checksum stored."""

_REFUSALS: Final = (400, 501)
_ALGORITHMS: Final = {"CRC64NVME": 12, "CRC32C": 8, "CRC32": 8}
"""With the length of their values in base64: some stores tell values of another kind."""


class StoredChecksum(NamedTuple):
    """What the service has stored of a whole object."""

    algorithm: str
    value: str


def stored_checksum(headers: dict[str, str]) -> StoredChecksum | None:
    """Of the whole object; that of an upload in parts may be one of the parts' checksums, which tells nothing here."""
    if headers.get("x-amz-checksum-type", "FULL_OBJECT") != "FULL_OBJECT":
        return None
    values = (StoredChecksum(name, headers.get(f"x-amz-checksum-{name.lower()}", "")) for name in _ALGORITHMS)
    return next((stored for stored in values if len(stored.value) == _ALGORITHMS[stored.algorithm]), None)


def take_head(queue: "RequestQueue", index: int) -> Reply | None:
    """The answer to a HEAD with `CHECKSUM_MODE`; None from stores that refuse the header (B2 does)."""
    try:
        return cast(Reply, queue.take(index))
    except S3Exception as error:
        if error.status in _REFUSALS:
            return None
        raise
