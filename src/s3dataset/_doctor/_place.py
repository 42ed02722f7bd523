"""What may be done in a place, one permission after the other, and what the store can do."""

import secrets
import time
from collections.abc import Iterator
from typing import Final, cast

from s3dataset._client import (
    CHECKSUM_MODE,
    Body,
    Client,
    ListPage,
    Reply,
    info_of_reply,
    infos_of_page,
    stored_checksum,
)
from s3dataset._doctor._check import Check, first_line
from s3dataset._uri import S3Uri
from s3dataset.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    CredentialsError,
    ObjectArchivedError,
    ObjectNotFoundError,
    PreconditionFailedError,
    S3Exception,
    TransportError,
)

__all__ = ["look_at_place"]

_PATIENCE_S: Final = 20.0
_CONTENT: Final = b"written by s3dataset doctor; it is deleted at once\n"
_GRANTS: Final = {
    "list": "s3:ListBucket on the bucket",
    "get": "s3:GetObject on the objects",
    "put": "s3:PutObject on the objects",
    "delete": "s3:DeleteObject on the objects",
    "abort": "s3:AbortMultipartUpload on the objects",
}


def look_at_place(client: Client, place: S3Uri, *, write: bool) -> Iterator[Check]:
    """List, get, and where `write` allows it put, conditions, multipart uploads and delete, under a new name."""
    listed, check = _list(client, place)
    yield check
    if check.facts.get("hopeless"):
        return
    yield _region(client, place)
    features = []
    for check in _tried(client, place, listed, write=write):
        if check.section == "features":
            features.append(check)
        else:
            yield check
    yield from features


def _tried(client: Client, place: S3Uri, listed: tuple[str, int] | None, *, write: bool) -> Iterator[Check]:
    yield from _get(client, place, listed)
    if write:
        yield from _write(client, place)
    else:
        yield Check("place", "put, delete", "info", "not tried", "--write tries them, with an object of a new name")


def _refused(name: str, error: S3Exception) -> Check:
    """A refusal, and what to do about it."""
    hopeless = isinstance(error, BucketNotFoundError | CredentialsError | TransportError)
    advice = ""
    if isinstance(error, AccessDeniedError):
        advice = (
            f"needs {_GRANTS.get(name, name)}: in the policy of who asks, and not denied by the bucket's or the VPC "
            "endpoint's"
        )
    elif isinstance(error, TransportError):
        advice = "the network section above says how far a connection gets"
    return Check(
        "place",
        name,
        "fail",
        first_line(error),
        advice,
        {"code": error.code, "status": error.status, "hopeless": hopeless},
    )


def _ok(name: str, said: str, begin: float) -> Check:
    seconds = time.perf_counter() - begin
    return Check("place", name, "ok", f"{said}, {1e3 * seconds:.0f} ms", facts={"seconds": round(seconds, 4)})


def _list(client: Client, place: S3Uri) -> tuple[tuple[str, int] | None, Check]:
    """-> (a key, its size), if there is one."""
    begin = time.perf_counter()
    prefix = place.key
    try:
        with client.queue() as queue:
            page = cast(ListPage, queue.take(queue.list_page(place.bucket, prefix, max_keys=10), _PATIENCE_S))
    except TimeoutError:
        return None, _silent("list", hopeless=True)
    except S3Exception as error:
        return None, _refused("list", error)
    infos = [info for info in infos_of_page(page) if info.size] or infos_of_page(page)
    if not infos:
        found = Check(
            "place",
            "list",
            "warn",
            f"allowed; nothing is below {place}",
            f"is the prefix right? s3dataset ls s3://{place.bucket}/ lists all",
        )
        return None, found
    return (infos[0].key, infos[0].size), _ok(
        "list", f"allowed; {S3Uri(place.bucket, infos[0].key)} is one of them", begin
    )


def _silent(name: str, *, hopeless: bool = False) -> Check:
    said = f"no answer within {_PATIENCE_S:.0f} s"
    return Check(
        "place", name, "fail", said, "the network section above says how far a connection gets", {"hopeless": hopeless}
    )


def _region(client: Client, place: S3Uri) -> Check:
    found = client.region_of(place.bucket)
    named = client.region
    differs = named is not None and found != named
    return Check(
        "place",
        "bucket's region",
        "warn" if differs else "info",
        found,
        f"{named} was named: every process pays a redirect; name {found} instead" if differs else "",
        {"region": found},
    )


def _get(client: Client, place: S3Uri, listed: tuple[str, int] | None) -> Iterator[Check]:
    key = place.key + f"s3dataset-doctor-{secrets.token_hex(4)}" if listed is None else listed[0]
    begin = time.perf_counter()
    reply: Reply | None = None
    try:
        with client.queue() as queue:
            if listed is not None and listed[1]:
                index = queue.get([(place.bucket, key, 0, 1, None, None)]).start
                cast(Body, queue.take(index, _PATIENCE_S))
            reply = cast(Reply, queue.take(queue.head(place.bucket, key, [CHECKSUM_MODE]), _PATIENCE_S))
    except TimeoutError:
        yield _silent("get")
    except ObjectNotFoundError:
        if listed is not None:
            yield Check("place", "get", "warn", f"{key} was listed, and is gone: others change this prefix")
        else:
            yield Check("place", "get", "info", "nothing there to get; a missing object is told as missing")
    except ObjectArchivedError:
        yield Check(
            "place",
            "get",
            "fail",
            f"{S3Uri(place.bucket, key)} is archived",
            "restore the objects, or copy them to another storage class, before a job reads them",
        )
    except S3Exception as error:
        if listed is None and isinstance(error, AccessDeniedError):
            yield Check(
                "place",
                "get",
                "info",
                "nothing there to get; whoever may not list is refused for missing objects too",
            )
        else:
            yield _refused("get", error)
    else:
        yield _ok("get", "allowed (one byte, one HEAD)", begin)
        yield _checksums(reply, S3Uri(place.bucket, key))


def _checksums(reply: Reply, uri: S3Uri) -> Check:
    stored = stored_checksum(dict(reply.headers()))
    if stored is not None:
        return Check("features", "checksums", "ok", f"{uri} has a {stored.algorithm}: reads of it are compared")
    return Check(
        "features",
        "checksums",
        "info",
        f"none of the whole object is stored of {uri}: reads of it cannot be compared",
        "copying it onto itself makes one, where the store keeps checksums",
    )


# -- With an object of its own -----------------------------------------------------------------------------------------


def _write(client: Client, place: S3Uri) -> Iterator[Check]:
    folder = place.key + ("/" if place.key and not place.key.endswith("/") else "")
    uri = S3Uri(place.bucket, f"{folder}s3dataset-doctor-{secrets.token_hex(8)}")
    begin = time.perf_counter()
    written = True
    versions: list[str | None] = []
    try:
        try:
            versions += [info.version_id for info in client.put_many([(uri.bucket, uri.key, _CONTENT)])]
        except S3Exception as error:
            written = isinstance(error, TransportError)  # nobody knows
            yield _refused("put", error)
            return
        yield _ok("put", "allowed", begin)
        yield _read_back(client, uri)
        yield _conditions(client, uri, versions)
        yield _multipart(client, uri)
    finally:
        if written:
            yield _delete(client, uri, versions)
            if any(versions):
                yield _delete_versions(client, uri, [version for version in versions if version])


def _read_back(client: Client, uri: S3Uri) -> Check:
    begin = time.perf_counter()
    try:
        body = client.fetch(uri.bucket, uri.key)
    except S3Exception as error:
        return _refused("get", error)
    if bytes(body) != _CONTENT:
        return Check("place", "read back", "fail", f"{uri} came back with other bytes", "tell whoever runs this store")
    return _ok("read back", "as written", begin)


def _conditions(client: Client, uri: S3Uri, versions: list[str | None]) -> Check:
    """If-None-Match on an object that is there must fail."""
    name = "conditional writes"
    try:
        written = client.put_many([(uri.bucket, uri.key, _CONTENT, [("if-none-match", "*")])])
        versions += [info.version_id for info in written]
    except PreconditionFailedError:
        return Check("features", name, "ok", "If-None-Match is honoured: checkpoints and locks can rely on it")
    except S3Exception as error:
        advice = "CheckpointManager needs them where two jobs may share a URI"
        return Check("features", name, "warn", first_line(error), advice)
    return Check(
        "features",
        name,
        "warn",
        "If-None-Match is ignored: an object that was there was written over",
        "let no two jobs write checkpoints below one URI",
    )


def _multipart(client: Client, uri: S3Uri) -> Check:
    name = "multipart uploads"
    begin = time.perf_counter()
    try:
        with client.queue() as queue:
            upload = cast(Reply, queue.take(queue.create_upload(uri.bucket, uri.key), _PATIENCE_S)).upload_id
            try:
                queue.take(queue.abort_upload(uri.bucket, uri.key, upload), _PATIENCE_S)
            except S3Exception as error:
                return _refused("abort", error)
    except TimeoutError:
        return _silent(name)
    except S3Exception as error:
        return Check("features", name, "fail", first_line(error), "objects above 8 MiB cannot be written")
    seconds = time.perf_counter() - begin
    return Check("features", name, "ok", f"begun and aborted, {1e3 * seconds:.0f} ms")


def _delete(client: Client, uri: S3Uri, versions: list[str | None]) -> Check:
    begin = time.perf_counter()
    try:
        with client.queue() as queue:
            reply = cast(Reply, queue.take(queue.delete(uri.bucket, uri.key)))
        versions.append(info_of_reply(uri.key, reply).version_id)  # of the delete marker
        client.head_object(uri.bucket, uri.key)
    except ObjectNotFoundError:
        return _ok("delete", "allowed, and it is gone", begin)
    except S3Exception as error:
        check = _refused("delete", error)
        advice = f"{check.advice}; {uri} stays there: delete it by hand".lstrip("; ")
        return Check("place", "delete", "fail", check.said, advice, check.facts)
    return Check("place", "delete", "warn", f"allowed, but {uri} is still there", "delete it by hand")


def _delete_versions(client: Client, uri: S3Uri, versions: list[str]) -> Check:
    """Of a bucket that keeps them, so that nothing of the object stays, and its delete marker neither."""
    name = "versions"
    advice = "what jobs delete is paid for on: let a lifecycle rule end noncurrent versions"
    try:
        with client.queue() as queue:
            for version in dict.fromkeys(versions):
                queue.take(queue.delete(uri.bucket, uri.key, version_id=version))
    except S3Exception as error:
        said = f"the bucket keeps versions, and those of {uri} stay: {first_line(error)}"
        if isinstance(error, AccessDeniedError):
            said = f"the bucket keeps versions, and s3:DeleteObjectVersion is not allowed: those of {uri} stay"
        return Check("place", name, "info", said, advice, {"left": True})
    return Check("place", name, "info", "the bucket keeps versions; those that were written are deleted", advice)
