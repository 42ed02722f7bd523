"""ObjectInfo: what a listing, a HEAD or a write tells of an object."""

import re
from array import array
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from s3dataset._native import ListPage, Reply

__all__ = ["ObjectInfo", "RestoreStatus", "info_of_reply", "infos_of_page"]


@dataclass(frozen=True, slots=True)
class RestoreStatus:
    """How far an archived object is restored.

    Attributes:
        in_progress: Whether it is being restored.
        expiry: Epoch seconds at which the restored copy goes away, None while there is none.
    """

    in_progress: bool
    expiry: float | None


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object's metadata. Immutable and picklable.

    Attributes:
        key: The key, without the bucket.
        etag: With its quotes, as the service sends it; fit for If-Match.
        size: Bytes.
        last_modified: Epoch seconds; 0 after a write, whose answer does not tell it.
        storage_class: "STANDARD", "GLACIER", ...; None where the service leaves it out (a HEAD does for STANDARD).
        restore_status: Of archived objects, None for others.
        version_id: What a HEAD or a write tells of a bucket with versions, None otherwise.
    """

    key: str
    etag: str
    size: int
    last_modified: int = 0
    storage_class: str | None = None
    restore_status: RestoreStatus | None = None
    version_id: str | None = None


def infos_of_page(page: "ListPage") -> list[ObjectInfo]:
    """Makes the rows of a listing's page objects, in the page's order."""
    count = len(page)
    if not count:
        return []
    keys, key_ends = page.key_blob, array("I", page.key_ends)
    etags, etag_ends = page.etag_blob, array("I", page.etag_ends)
    sizes, mtimes = array("Q", page.sizes), array("q", page.mtimes)
    classes, class_of = dict(enumerate(page.storage_class_names)), page.storage_class_index
    restored = {row: RestoreStatus(in_progress, expiry) for row, in_progress, expiry in page.restore_status}
    infos = []
    key_start = etag_start = 0
    for row in range(count):
        key_end, etag_end = key_ends[row], etag_ends[row]
        infos.append(
            ObjectInfo(
                keys[key_start:key_end].decode(),
                f'"{etags[etag_start:etag_end].decode()}"' if etag_end > etag_start else "",
                sizes[row],
                mtimes[row],
                classes.get(class_of[row]),  # 255 where the service leaves it out
                restored.get(row),
            )
        )
        key_start, etag_start = key_end, etag_end
    return infos


def info_of_reply(key: str, reply: "Reply", size: int | None = None) -> ObjectInfo:
    """What the answer to a HEAD, PUT or COPY tells; `size` for those that do not tell it."""
    headers = {name.lower(): value for name, value in reply.headers()}
    return ObjectInfo(
        key,
        reply.etag,
        reply.object_size if size is None else size,
        int(reply.last_modified or 0),
        headers.get("x-amz-storage-class"),
        _restore_status(headers.get("x-amz-restore")),
        headers.get("x-amz-version-id"),
    )


_RESTORE: Final = re.compile(r'([a-z-]+)="([^"]*)"')


def _restore_status(header: str | None) -> RestoreStatus | None:
    """Reads `ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"`."""
    if header is None:
        return None
    fields = dict(_RESTORE.findall(header))
    try:
        expiry = parsedate_to_datetime(fields["expiry-date"]).timestamp()
    except (KeyError, ValueError):
        expiry = None
    return RestoreStatus(fields.get("ongoing-request") == "true", expiry)
