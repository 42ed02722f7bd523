"""Many objects at once: into memory, between S3 and the local disk, and copies within S3."""

import secrets
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from s3dataset._client import Body, Client, GetRequest
from s3dataset._io import S3Reader, S3Writer
from s3dataset._object_headers import Headers
from s3dataset._uri import S3Uri
from s3dataset.errors import ObjectChangedError, ObjectNotFoundError, PreconditionFailedError, S3Exception
from s3dataset.fsspec._files import exists_error

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from s3dataset._client import RequestQueue

__all__ = ["Download", "Span", "Upload", "copy_all", "download", "fetch", "fetch_ranges", "put_all", "upload"]

_MIB: Final = 1 << 20
_FIRST_BYTES: Final = 8 * _MIB
"""Fetched at once of each of many objects; what is larger follows in parallel ranges, one object after the other."""
_FILES_AT_ONCE: Final = 256
_BYTES_AT_ONCE: Final = 64 * _MIB
_COPY_BYTES: Final = 8 * _MIB
_COPIES_AT_ONCE: Final = 32
_RANGE_NOT_SATISFIABLE: Final = 416

Place = tuple[str, str]
"""Bucket and key."""
Span = tuple[int | None, int | None]
"""As a slice has them: None for the beginning and the end, negative from the end."""


# -- Into memory -----------------------------------------------------------------------------------------------------


def fetch(client: Client, place: Place, span: Span = (None, None), version_id: str | None = None) -> bytes:
    """The bytes of an object, or of a part of it; b"" where nothing lies in that.

    Raises:
        ObjectNotFoundError: There is no such object.
        S3Exception: It could not be read.
    """
    start, end = span
    if not start and end is None:
        with S3Reader(client, *place, version_id=version_id) as reader:
            return reader.read()
    etag = None
    if end is not None and (end < 0 or (start or 0) < 0):
        info = client.head_object(*place, version_id=version_id)
        start, end, _ = slice(start, end).indices(info.size)
        etag = info.etag or None
    if end is not None and end <= (start or 0):
        return b""
    try:
        return bytes(client.fetch(*place, start or 0, end, etag=etag, version_id=version_id))
    except S3Exception as error:
        if error.status != _RANGE_NOT_SATISFIABLE:
            raise
    return b""


def fetch_ranges(client: Client, wanted: Sequence[tuple[Place, Span]]) -> list[bytes | Exception]:
    """Objects, and parts of them, all at once; all that is of one object is of one version of it.

    Returns:
        For each what came, or what went wrong.
    """
    results: list[bytes | Exception] = [b""] * len(wanted)
    from_the_end = {place for place, (start, end) in wanted if end is not None and (end < 0 or (start or 0) < 0)}
    heads = _heads(client, from_the_end) if from_the_end else {}
    rows: list[int] = []
    requests: list[GetRequest] = []
    for row, (place, span) in enumerate(wanted):
        start, end = span
        etag = None
        if place in heads:
            head = heads[place]
            if isinstance(head, Exception):
                results[row] = head
                continue
            size, etag = head
            if end is not None:
                start, end, _ = slice(start, end).indices(size)
        if end is None or end > (start or 0):
            rows.append(row)
            if end is None and not start:
                requests.append(GetRequest(*place, etag=etag))
            else:
                span_in_bytes = cast("tuple[int, int]", (start or 0, end))
                requests.append(GetRequest(*place, range=span_in_bytes, etag=etag))
    versions: dict[Place, str] = {}
    for index, result in client.get_many(requests, on_error="return"):
        row = rows[index]
        results[row] = _bytes_of(wanted[row][0], result, versions)
    return results


def _heads(client: Client, places: Iterable[Place]) -> dict[Place, tuple[int, str | None] | Exception]:
    found: dict[Place, tuple[int, str | None] | Exception] = {}
    with client.queue() as queue:
        for place, index in [(place, queue.head(*place)) for place in places]:
            try:
                reply: Any = queue.take(index)
            except S3Exception as error:
                found[place] = error
            else:
                found[place] = reply.object_size, reply.etag or None
    return found


def _bytes_of(place: Place, result: Body | S3Exception, versions: dict[Place, str]) -> bytes | Exception:
    if isinstance(result, S3Exception):
        return b"" if result.status == _RANGE_NOT_SATISFIABLE else result
    if result.etag and versions.setdefault(place, result.etag) != result.etag:
        uri = str(S3Uri(*place))
        return ObjectChangedError(f"{uri} was replaced while parts of it were read: read them again", uri=uri)
    return bytes(result)


# -- From memory -----------------------------------------------------------------------------------------------------


class _Held:
    """Memory that is there until the object is saved, cut into parts."""

    def __init__(self, data: memoryview) -> None:
        self._left = data

    def __call__(self, nbytes: int) -> tuple[list[memoryview], object]:
        piece, self._left = self._left[:nbytes], self._left[nbytes:]
        return [piece], None


def put_all(client: Client, values: "Iterable[tuple[Place, Buffer]]", headers: Headers, *, create: bool) -> None:
    """Writes objects from memory: those of one part many at once, larger ones in parallel parts.

    Raises:
        FileExistsError: There is an object already, and `create` is True.
        S3Exception: One was not written; others may have been.
    """
    small: list[tuple[str, str, memoryview, Headers]] = []
    large: list[tuple[Place, memoryview]] = []
    conditions = (("if-none-match", "*"),) if create else ()
    for place, value in values:
        data = _flat(place, value)
        if len(data) <= client.part_size:
            small.append((*place, data, (*headers, *conditions)))
        else:
            large.append((place, data))
    try:
        client.put_many(small)
        for place, data in large:
            writer = S3Writer(client, *place, headers=headers, if_none_match=create, size=len(data))
            writer.save_held(len(data), _Held(data))
    except PreconditionFailedError as error:
        raise exists_error(error.uri) from error


def _flat(place: Place, value: "Buffer") -> memoryview:
    if isinstance(value, str):
        raise TypeError(f"{S3Uri(*place)} takes bytes, not str: encode it, or use write_text")
    view = memoryview(value)
    if not view.c_contiguous:
        view = memoryview(view.tobytes())
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


# -- From and to the local disk --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Upload:
    """A file to send.

    Attributes:
        path: Of the file.
        place: Where it goes.
        headers: What is said of the object.
        create: Whether an object that is there already is an error.
        callback: fsspec's, told of bytes.
    """

    path: str
    place: Place
    headers: Headers
    create: bool
    callback: Any


def upload(client: Client, items: Iterable[Upload]) -> None:
    """Sends files: those of one part many at once, larger ones in parallel parts.

    Raises:
        OSError: A file cannot be read.
        FileExistsError: There is an object already, and that is an error.
        S3Exception: One was not written; others may have been.
    """
    under_way: dict[int, tuple[Upload, int]] = {}
    held = 0

    def take(most_bytes: int, most_files: int, queue: "RequestQueue") -> None:
        nonlocal held
        while under_way and (held > most_bytes or len(under_way) > most_files):
            for index, result in queue.next():
                if isinstance(result, S3Exception):
                    raise result
                item, nbytes = under_way.pop(index)
                held -= nbytes
                item.callback.relative_update(nbytes)

    with client.queue() as queue:
        for item in items:
            size = Path(item.path).stat().st_size
            item.callback.set_size(size)
            if size > client.part_size or item.create:
                _upload_in_parts(client, item, size)
                continue
            data = Path(item.path).read_bytes()
            index = queue.put([(*item.place, data, item.headers)]).start
            under_way[index] = item, len(data)
            held += len(data)
            take(_BYTES_AT_ONCE, _FILES_AT_ONCE, queue)
        take(0, 0, queue)


def _upload_in_parts(client: Client, item: Upload, size: int) -> None:
    buffer = memoryview(bytearray(min(_COPY_BYTES, max(size, 1))))
    try:
        with (
            Path(item.path).open("rb", buffering=0) as file,
            S3Writer(client, *item.place, headers=item.headers, if_none_match=item.create, size=size) as writer,
        ):
            while nbytes := file.readinto(buffer):
                writer.write(buffer[:nbytes])
                item.callback.relative_update(nbytes)
    except PreconditionFailedError as error:
        raise exists_error(error.uri) from error


@dataclass(slots=True)
class Download:
    """An object to fetch.

    Attributes:
        place: Of the object.
        target: Path of the file to make, or a file that is open for writing.
        callback: fsspec's, told of bytes.
        version_id: Of a bucket with versions.
    """

    place: Place
    target: str | BinaryIO
    callback: Any
    version_id: str | None = field(default=None)


def download(client: Client, items: Sequence[Download]) -> None:
    """Fetches objects to files: many at once, large ones in parallel ranges. A file is there whole, or as it was.

    Raises:
        ObjectNotFoundError: There is no such object.
        S3Exception: One could not be read; others may be there.
        OSError: A file cannot be written.
    """
    plain = [item for item in items if item.version_id is None]
    for item in items:
        if item.version_id is not None:
            with S3Reader(client, *item.place, version_id=item.version_id) as reader:
                _write(item, reader)
    with client.queue() as queue:
        sent = done = 0
        while done < len(plain):
            if sent < len(plain) and sent - done <= _FILES_AT_ONCE // 2:
                chunk = plain[sent : sent + _FILES_AT_ONCE]
                queue.get(((*item.place, None, None, None, None) for item in chunk), limit=_FIRST_BYTES)
                sent += len(chunk)
            for index, result in queue.next(1, 16):
                if isinstance(result, S3Exception):
                    raise result
                done += 1
                item = plain[index]
                body = cast(Body, result)
                if len(body) == body.object_size:
                    _write(item, memoryview(body))
                else:
                    with S3Reader(client, *item.place, body=body) as reader:
                        _write(item, reader)


def _write(item: Download, source: S3Reader | memoryview) -> None:
    item.callback.set_size(source.size if isinstance(source, S3Reader) else len(source))
    if not isinstance(item.target, str):
        _pour(source, item.target, item.callback)
        return
    target = Path(item.target)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}")
    try:
        with beside.open("xb", buffering=0) as file:
            _pour(source, file, item.callback)
        beside.replace(target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _pour(source: S3Reader | memoryview, file: BinaryIO, callback: Any) -> None:
    if isinstance(source, memoryview):
        _write_all(file, source)
        callback.relative_update(len(source))
        return
    buffer = memoryview(bytearray(_COPY_BYTES))
    while nbytes := source.readinto(buffer):
        _write_all(file, buffer[:nbytes])
        callback.relative_update(nbytes)


def _write_all(file: BinaryIO, data: memoryview) -> None:
    while len(data):
        written: int | None = file.write(data)
        data = data[len(data) if written is None else written :]


# -- Within S3 -------------------------------------------------------------------------------------------------------


def copy_all(client: Client, pairs: Sequence[tuple[Place, Place]], *, skip_missing: bool) -> None:
    """Copies objects, many at once.

    Raises:
        ObjectNotFoundError: A source is missing, and `skip_missing` is False.
        S3Exception: One was not copied; others may have been.
    """

    def copy(pair: tuple[Place, Place]) -> None:
        try:
            client.copy_object(*pair[0], *pair[1])
        except ObjectNotFoundError:
            if not skip_missing:
                raise

    if len(pairs) == 1:
        copy(pairs[0])
        return
    pool = ThreadPoolExecutor(min(_COPIES_AT_ONCE, len(pairs) or 1), thread_name_prefix="s3dataset-copy")
    try:
        for _ in pool.map(copy, pairs):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
