"""The safetensors format: what a header says, checked before anything is believed. Knows neither torch nor S3.

A file is the length of its header (8 bytes, little endian), the header (JSON, padded with spaces) and the tensors' data
without a hole. Source: https://huggingface.co/docs/safetensors/index#format
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from s3dataset.errors import DecodeError

__all__ = ["BITS", "MAX_HEADER_BYTES", "Entry", "Header", "build_header", "header_bytes", "parse_header"]

MAX_HEADER_BYTES: Final = 100_000_000
LENGTH_BYTES: Final = 8
_ALIGNMENT: Final = 8
_MAX_SIZE: Final = (1 << 63) - 1
_MAX_DIMENSIONS: Final = 64
_TRUSTED_BYTES: Final = 1 << 20
"""Headers up to this size take no memory worth speaking of, whatever they hold."""
_METADATA: Final = "__metadata__"

# In the order in which writers put them, the last first.
BITS: Final = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
"""Bits of an element, by the format's name of its type."""
_RANK: Final = {name: rank for rank, name in enumerate(BITS)}


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor in a file.

    Attributes:
        name: The tensor's.
        dtype: As the format has it: "F32".
        shape: In elements; two of F4 share a byte.
        start: Its first byte in the file.
        end: Behind its last.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def nbytes(self) -> int:
        """Of its data."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself.

    Attributes:
        entries: The tensors by name, in the order of their data.
        metadata: Whatever the writer wanted to say, None where it has nothing of the kind.
        data_start: Where the header ends.
    """

    entries: dict[str, Entry]
    metadata: dict[str, str] | None
    data_start: int


# -- Reading ---------------------------------------------------------------------------------------------------------


def header_bytes(beginning: memoryview, size: int, uri: str) -> int:
    """Length of the header with what stands before it, from the first bytes of a file of `size` bytes.

    Raises:
        DecodeError: The file is too short for it, or the header is longer than the format allows.
    """
    if len(beginning) < LENGTH_BYTES:
        _refuse(uri, f"it has {size:,} bytes, and a header alone has more")
    nbytes = int.from_bytes(beginning[:LENGTH_BYTES], "little")
    if nbytes > MAX_HEADER_BYTES:
        _refuse(uri, f"its header would have {nbytes:,} bytes, and the format allows {MAX_HEADER_BYTES:,}")
    if nbytes > size - LENGTH_BYTES:
        _refuse(uri, f"its header would have {nbytes:,} bytes and reach past the end of the {size:,} bytes there are")
    return nbytes + LENGTH_BYTES


def parse_header(data: bytes, size: int, uri: str) -> Header:
    """Reads a header, without the length before it, of a file of `size` bytes.

    Raises:
        DecodeError: It is no header, or what it says of its tensors cannot be: offsets that overlap, leave holes or do
            not end with the file, sizes that do not fit type and shape, a name that is there twice.
    """
    if data[:1] != b"{":
        _refuse(uri, f"its header begins with {data[:1]!r}, not with '{{'")
    if len(data) > _TRUSTED_BYTES and data.count(b"[") + data.count(b"{") > len(data) // 8:
        _refuse(uri, "its header is made of brackets, which would take many times its size in memory")
    try:
        content = json.loads(
            data.decode(),
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_constant=_no_number,
        )
    except (ValueError, RecursionError) as error:
        _refuse(uri, f"its header is no JSON of this kind: {error}")
    metadata = _metadata(content.pop(_METADATA, None), uri)
    data_start = LENGTH_BYTES + len(data)
    entries = sorted(
        (_entry(name, fields, data_start, size, uri) for name, fields in content.items()),
        key=lambda entry: (entry.start, entry.end),
    )
    at, before = data_start, ""
    for entry in entries:
        if entry.start != at:
            what = "overlaps" if entry.start < at else "leaves a hole behind"
            place = f"tensor {before!r}" if before else "the header"
            _refuse(uri, f"the data of tensor {entry.name!r} {what} {place}")
        at, before = entry.end, entry.name
    if at != size:
        _refuse(uri, f"its tensors end at byte {at:,}, and the file has {size:,}")
    return Header({entry.name: entry for entry in entries}, metadata, data_start)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{name!r} is there twice")
    return found


def _integer(text: str) -> int | float:
    """As an int, so that nothing else is one, if it can be a size: neither "-1" nor "-0" can."""
    return float(text) if text.startswith("-") else int(text)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _metadata(found: Any, uri: str) -> dict[str, str] | None:
    if found is None:
        return None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        _refuse(uri, f"its {_METADATA} are not texts by name")
    if not all(_is_text(name) and _is_text(value) for name, value in found.items()):
        _refuse(uri, f"its {_METADATA} hold half a character")
    return found


def _entry(name: str, fields: Any, data_start: int, size: int, uri: str) -> Entry:
    if not _is_text(name):
        _refuse(uri, f"the name {name!r} holds half a character")
    if not isinstance(fields, dict):
        _refuse(uri, f"of tensor {name!r} it says {str(fields)[:50]!r}")
    dtype, shape, offsets = (fields.get(field) for field in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in BITS:
        _refuse(uri, f"tensor {name!r} has the unknown type {str(dtype)[:30]!r}")
    if not isinstance(shape, list) or not all(type(length) is int for length in shape):
        _refuse(uri, f"tensor {name!r} has the shape {str(shape)[:50]!r}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(offset) is int for offset in offsets):
        _refuse(uri, f"tensor {name!r} has the offsets {str(offsets)[:50]!r}")
    start, end = offsets
    if not start <= end <= size - data_start:
        _refuse(
            uri, f"the data of tensor {name!r}, [{start}, {end}), reach past the {size - data_start:,} bytes of data"
        )
    if len(shape) > _MAX_DIMENSIONS:
        _refuse(uri, f"tensor {name!r} has {len(shape):,} dimensions")
    elements = spread = 1
    for length in shape:
        elements *= length
        spread *= max(length, 1)  # what strides are made of, in an empty tensor too
        if spread > _MAX_SIZE:
            _refuse(uri, f"tensor {name!r} has the shape {str(shape)[:50]}, more than memory can hold")
    if elements * BITS[dtype] != 8 * (end - start):
        _refuse(uri, f"tensor {name!r} of {dtype} {str(shape)[:50]} has {end - start:,} bytes of data")
    if dtype == "F4" and shape and shape[-1] % 2:
        _refuse(uri, f"tensor {name!r} of F4 {str(shape)[:50]} has rows that end within a byte")
    return Entry(name, dtype, tuple(shape), data_start + start, data_start + end)


def _is_text(text: str) -> bool:
    """Whether it can be UTF-8: JSON's escapes can tell half of a character."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse(uri: str, reason: str) -> NoReturn:
    raise DecodeError(f"{uri} is no safetensors file, or a damaged one: {reason[:300]}", uri=uri)


# -- Writing ---------------------------------------------------------------------------------------------------------


def build_header(
    tensors: Iterable[tuple[str, str, Sequence[int], int]], metadata: dict[str, str] | None
) -> tuple[bytes, list[str]]:
    """The beginning of a file, up to its data, and the names in the order in which the data follow.

    Byte for byte what the safetensors library writes: the widest types first, equal ones by name.

    Args:
        tensors: (name, type, shape, bytes of data).
        metadata: Texts by name. The library writes them in any order; here it is that of their names.

    Raises:
        ValueError: The header would be longer than the format allows, or a name is none that a file can have.
    """
    # Names are compared as UTF-8.
    ordered = sorted(tensors, key=lambda tensor: (-_RANK[tensor[1]], tensor[0].encode("utf-8", "surrogatepass")))
    content: dict[str, Any] = {}
    if metadata is not None:
        content[_METADATA] = dict(sorted(metadata.items()))
    at = 0
    for name, dtype, shape, nbytes in ordered:
        if name == _METADATA:
            raise ValueError(f"no tensor can have the name {_METADATA!r}: it is that of the metadata")
        content[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + nbytes]}
        at += nbytes
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise ValueError("names and metadata are written as UTF-8, and one of them has half a character") from None
    data += b" " * (-len(data) % _ALIGNMENT)
    if len(data) > MAX_HEADER_BYTES:
        raise ValueError(
            f"the header would have {len(data):,} bytes, more than the {MAX_HEADER_BYTES:,} that readers take: save "
            "fewer tensors, or shorter metadata, in one file"
        )
    return len(data).to_bytes(LENGTH_BYTES, "little") + data, [name for name, *_ in ordered]
