"""tar: members one after the other, of which those of one name make a sample.

Source: webdataset for how names make samples. What the standards of tar leave open is done as Python's tarfile does it.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeAlias

from s3dataset.errors import DecodeError
from s3dataset.formats._compression import Sink
from s3dataset.formats._content import Content, broken, looks_like
from s3dataset.formats._format import Sample
from s3dataset.formats._streamed import MEMBER_LIMIT, Encoder, Part, Record, StreamedField, StreamedFormat
from s3dataset.formats._tar_headers import BLOCK, ZEROS, Extension, checksum_holds, member_name, number, ustar_headers

__all__ = ["Tar"]

_REGULAR: Final = frozenset(b"0\x007S")
_BARE: Final = frozenset(b"123456")  # links, devices, folders: no bytes follow, whatever size they tell
_EXTENSIONS: Final = frozenset(b"xXgLK")
_SPARSE: Final = ord("S")
_END: Final = -1
_EXTENSION_LIMIT: Final = 1 << 20

# What webdataset's decoders take for numbers in text.
_NUMBERS: Final = frozenset({"cls", "cls2", "index", "count", "inx", "id"})

_Header: TypeAlias = tuple[int, int, int, str, int, bool]
_Member: TypeAlias = tuple[int, str | None, str, int, bytes | str]


@dataclass(frozen=True, slots=True)
class Tar(StreamedFormat):
    """WebDataset's tar archives: consecutive members whose names agree up to the first dot are a sample.

    "images/001.jpg" and "images/001.cls" give `{"__key__": "images/001", "__url__": ..., "jpg": bytes, "cls": bytes}`:
    the name is cut at the first dot behind the last slash, and what follows is the field's name, in lower case. Members
    that are no files, files without a dot, and those whose name begins with a part like "__meta__" are left out. A
    field that comes twice makes the sample a broken one.

    ustar, pax and GNU's long names and large numbers are read, compressed by gzip or zstd too. Sparse members make the
    sample a broken one. Names are never used as paths.

    Written are fields of bytes and of text, numbers for "cls" and the like, and dicts or lists for "json". The same
    samples always make the same archive.

    Attributes:
        max_sample_bytes: A sample of more bytes is an error; this bounds the memory that one can make a reader use.
    """

    max_sample_bytes: int = MEMBER_LIMIT

    name: ClassVar[str] = "tar"
    suffix: ClassVar[str] = ".tar"

    def _records(self, content: Content, head: bytes, *, take: bool) -> Iterator[Record]:  # noqa: ARG002
        key: str | None = None
        start = size = 0
        fields: list[tuple[str, bytes | str]] = []
        for begin, base, field, length, data in self._members(content, take):
            if base != key:
                if key is not None:
                    yield start, begin, (key, fields)
                key, start, size, fields = base, begin, 0, []
            size += length
            if size > self.max_sample_bytes:
                raise self._too_large(content, base, size, start)
            fields.append((field, data))

    def _members(self, content: Content, take: bool) -> Iterator[_Member]:
        """Where each member begins, the key of its sample, its field, its size, its data; a last one without a key.

        Data is text where it could not be had: the reason.
        """
        url, limit = content.url, self.max_sample_bytes
        for begin, at, kind, name, size, sparse in self._headers(content):
            if kind == _END:
                yield begin, None, "", 0, b""
                return
            if size < 0:
                raise broken(url, f"the tar member {name!r} at byte {at} has a negative size. The archive is damaged")
            key, field = _split(name) if kind in _REGULAR else (None, "")
            if key is not None and size > limit:
                raise self._too_large(content, key, size, begin)
            padded = size + -size % BLOCK
            if take and key is not None and not sparse:
                data: bytes | str = content.take(size)
                if len(data) < size or content.skip(padded - size) < padded - size:
                    raise _cut_short(content, name, size, at)
            else:
                if content.skip(padded) < padded:
                    raise _cut_short(content, name, size, at)
                data = f"{name!r} is a sparse member, which is not read" if sparse else b""
            if key is not None:
                yield begin, key, field, size, data

    def _headers(self, content: Content) -> Iterator[_Header]:
        """What the headers say of each member that has data, which the caller takes; then where the end begins."""
        extension: Extension | None = None
        begin = content.offset
        while True:
            at = content.offset
            header = content.take(BLOCK)
            if len(header) < BLOCK or header == ZEROS:
                if extension is not None or header not in {b"", ZEROS} or (not header and not at):
                    raise _no_header(content, header, at)
                yield at, at, _END, "", 0, False
                return
            if extension is None:
                begin = at
            if not checksum_holds(header):
                raise _no_header(content, header, at)
            try:
                size = number(header[124:136])
            except ValueError:
                raise broken(
                    content.url, f"the tar header at byte {at} tells no size. The archive is damaged"
                ) from None
            kind = header[156]
            if kind in _EXTENSIONS:
                extension = self._extended(content, kind, size, at, extension)
                continue
            name = member_name(header)
            sparse = kind == _SPARSE
            if sparse:
                _skip_sparse_map(content, header)
            if extension is not None:
                name = name if extension.path is None else extension.path
                size = size if extension.size is None else extension.size
                sparse = sparse or extension.sparse
                extension = None
            if kind not in _BARE and not (kind == 0 and name.endswith("/")):
                yield begin, at, kind, name, size, sparse

    @staticmethod
    def _extended(content: Content, kind: int, size: int, at: int, extension: Extension | None) -> Extension:
        if not 0 <= size <= _EXTENSION_LIMIT:
            raise broken(
                content.url,
                f"the tar header at byte {at} is to be followed by {size} bytes of names or attributes, which "
                f"nobody writes (limit {_EXTENSION_LIMIT}). The archive is damaged or made to harm",
            )
        data = content.take(size)
        padding = -size % BLOCK
        if len(data) < size or content.skip(padding) < padding:
            raise _cut_short(content, "(a header)", size, at)
        extension = Extension() if extension is None else extension
        try:
            extension.add(kind, data)
        except ValueError as error:
            raise broken(content.url, f"the tar header at byte {at} cannot be read: {error}") from error
        return extension

    def _sample(self, made_of: Any, head: bytes, url: str, number: int) -> Sample:  # noqa: ARG002
        key, fields = made_of
        sample = Sample(__key__=key, __url__=url)
        for field, data in fields:
            if field in sample:
                raise broken(
                    url,
                    f"the sample {key!r} has its field {field!r} twice. Members of one sample need different suffixes; "
                    'skip such samples with on_error="skip", or write the archive anew',
                )
            if isinstance(data, str):
                raise broken(url, f"the sample {key!r} cannot be read: {data}. Write the archive without --sparse")
            sample[field] = data
        return sample

    def _too_large(self, content: Content, key: str | None, size: int, start: int) -> DecodeError:
        return broken(
            content.url,
            f"the sample {key!r} at byte {start} of the archive has {size} bytes or more, and the limit is "
            f"{self.max_sample_bytes}. If that is meant, give Tar a larger max_sample_bytes=",
        )

    def _encoder(self, sink: Sink) -> Encoder:  # noqa: ARG002
        return _TarEncoder()


def _split(name: str) -> tuple[str | None, str]:
    """The key of the sample that a file belongs to, and the field that it is; no key for those that belong to none."""
    slash = name.rfind("/")
    dot = name.find(".", slash + 1)
    if dot < 0 or (name.startswith("__") and _is_meta(name)):
        return None, ""
    if dot == slash + 1 and (slash < 0 or "." in name[name.rfind("/", 0, slash) + 1 : slash]):
        return None, ""  # a hidden file; webdataset gives those below a folder without dots to a sample named as that
    return name[:dot], name[dot + 1 :].lower()


def _is_meta(name: str) -> bool:
    part, slash, _ = name.partition("/")
    return part.endswith("__") and (len(part) >= 4 or not slash)


def _skip_sparse_map(content: Content, header: bytes) -> None:
    more = header[482]
    while more:
        block = content.take(BLOCK)
        more = block[504] if len(block) == BLOCK else 0


def _no_header(content: Content, header: bytes, at: int) -> DecodeError:
    if not at:
        return broken(
            content.url,
            f"it is no tar archive: it begins with {bytes(header[:16])!r}{looks_like(header)}. Choose another format=",
        )
    if len(header) < BLOCK:
        return broken(
            content.url, f"the tar archive ends inside of a header, at byte {at}. It was cut short: upload it again"
        )
    return broken(content.url, f"there is no tar header at byte {at}, where one must be. The archive is damaged")


def _cut_short(content: Content, name: str, size: int, at: int) -> DecodeError:
    return broken(
        content.url,
        f"the tar archive ends at byte {content.offset}, inside of the member {name!r} that begins at byte {at} and is "
        f"to have {size} bytes. It was cut short: upload it again",
    )


class _TarEncoder(Encoder):
    def __init__(self) -> None:
        self._last: str | None = None

    def encode(self, sample: dict[str, Any]) -> Sequence[Part]:
        key = sample.get("__key__")
        if not isinstance(key, str) or not key:
            raise ValueError('a sample for a tar archive needs "__key__": a text that names it')
        if key == self._last:
            raise ValueError(f"two samples in a row have the key {key!r}; in a tar archive they would be one sample")
        parts: list[Part] = []
        for field, value in sample.items():
            if field.startswith("__"):
                continue
            name = f"{key}.{field}"
            if _split(name) != (key, field) or "\0" in name:
                raise ValueError(
                    f"the member {name!r} would not be read back as the field {field!r} of {key!r}: fields are in "
                    "lower case, keys have no dot behind the last slash, and names like __this__ are left out"
                )
            data = _bytes_of(field, value)
            size = len(data)
            parts += (ustar_headers(name, size), data)
            if padding := -size % BLOCK:
                parts.append(bytes(padding))
        if not parts:
            raise ValueError(f"the sample {key!r} has no fields, so a tar archive cannot hold it")
        self._last = key
        return parts

    def end(self) -> bytes:
        return bytes(2 * BLOCK)


def _bytes_of(field: str, value: Any) -> Part:
    if isinstance(value, bytes | StreamedField):
        return value
    if isinstance(value, bytearray | memoryview):
        return memoryview(value).cast("B")
    if isinstance(value, str):
        return value.encode()
    last = field.rpartition(".")[2]
    if isinstance(value, int | float) and last in _NUMBERS:
        return str(int(value) if isinstance(value, bool) else value).encode()
    if isinstance(value, dict | list) and last == "json":
        return json.dumps(value, ensure_ascii=False).encode()
    raise ValueError(
        f"the field {field!r} is a {type(value).__name__}, and a tar archive holds bytes: encode it. Taken are also "
        'text, a dict under "json" or a number under "cls"'
    )
