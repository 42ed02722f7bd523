"""Conditional writes, and stores that have none: found out once for each endpoint and bucket of a process."""

import logging
import threading
from typing import Final, Literal

from s3dataset._client import Client, ObjectInfo
from s3dataset._uri import S3Uri
from s3dataset._warnings import warn_caller
from s3dataset.errors import ObjectNotFoundError, PreconditionFailedError, S3Exception, WeakConditionsWarning

__all__ = ["put_if"]

_LOGGER: Final = logging.getLogger("s3dataset")
_NOT_IMPLEMENTED: Final = 501

Kept = Literal["honoured", "ignored", "refused"]

_known: Final[dict[tuple[str | None, str | None, str], Kept]] = {}
_lock: Final = threading.Lock()


def put_if(client: Client, bucket: str, key: str, data: bytes, *, replaces: str | None) -> ObjectInfo:
    """Writes an object if there is none, or only the one named.

    Where the store has no conditions this looks first and then writes: another writer in between is not noticed, which
    a warning says once.

    Args:
        client: By which it is written.
        bucket: Name of the bucket.
        key: The key.
        data: The bytes.
        replaces: ETag of the object that may be there; None: there may be none.

    Raises:
        PreconditionFailedError: Another object is there.
        S3Exception: It was not written, or nobody knows.
    """
    place = (client.store, client.region, bucket)
    kept = _known.get(place)
    if kept != "honoured":
        _look(client, bucket, key, replaces)
    condition = ("if-none-match", "*") if replaces is None else ("if-match", replaces)
    try:
        info = _put(client, bucket, key, data, [] if kept == "refused" else [condition])
    except S3Exception as error:
        if kept is not None or not _refuses(error):
            raise
        _remember(place, "refused")
        return _put(client, bucket, key, data, [])
    if kept is None:
        found = _probe(client, bucket, key, data)
        if found is not None:
            _remember(place, found)
    return info


def _put(client: Client, bucket: str, key: str, data: bytes, headers: list[tuple[str, str]]) -> ObjectInfo:
    return client.put_many([(bucket, key, data, headers)], content_type="application/json")[0]


def _look(client: Client, bucket: str, key: str, replaces: str | None) -> None:
    try:
        there = client.head_object(bucket, key).etag
    except ObjectNotFoundError:
        there = None
    if there != replaces:
        raise PreconditionFailedError(
            f"Service error: A precondition did not hold: {S3Uri(bucket, key)} "
            f"{'is there already' if replaces is None else 'was replaced or deleted'}. Somebody else wrote this object "
            "first: read it, and decide anew",
            operation="PutObject",
            uri=str(S3Uri(bucket, key)),
            status=412,
            code="PreconditionFailed",
        )


def _probe(client: Client, bucket: str, key: str, data: bytes) -> Kept | None:
    """Asks for the same bytes to be written once more if nothing is there: a store that does so ignores conditions."""
    try:
        _put(client, bucket, key, data, [("if-none-match", "*")])
    except PreconditionFailedError:
        return "honoured"
    except S3Exception as error:
        _LOGGER.debug("whether %s honours conditional writes could not be found out: %s", bucket, error)
        return None
    return "ignored"


def _refuses(error: S3Exception) -> bool:
    named = error.code in ("NotImplemented", "InvalidArgument", "InvalidRequest")
    return error.status == _NOT_IMPLEMENTED or (named and error.status == 400)


def _remember(place: tuple[str | None, str | None, str], kept: Kept) -> None:
    with _lock:
        known = _known.setdefault(place, kept)
    if known == kept and kept != "honoured":
        endpoint, _, bucket = place
        warn_caller(
            f"the store of s3://{bucket}{f' ({endpoint})' if endpoint else ''} "
            f"{'ignores' if kept == 'ignored' else 'refuses'} conditional writes (If-None-Match): a checkpoint still "
            "appears whole or not at all, but two jobs that commit the same step at the same moment do not notice one "
            "another, and the later one wins. Give each job a URI of its own",
            WeakConditionsWarning,
        )
