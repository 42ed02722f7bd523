"""tf.train.Example and SequenceExample: messages of protobuf, read and written without protobuf.

Source: the encoding of protobuf's wire format, and TensorFlow's feature.proto and example.proto:

    Example          1: Features
    SequenceExample  1: Features (the context), 2: FeatureLists
    Features         1: map<string, Feature>        FeatureLists  1: map<string, FeatureList>
    Feature          1: BytesList | 2: FloatList | 3: Int64List     FeatureList   1: repeated Feature
    each list        1: repeated value, numbers packed or not
"""

import struct
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["decode_example", "encode_example"]

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_BYTES, _FLOATS, _INTS = 1, 2, 3
_INT64: Final = range(-(1 << 63), 1 << 63)


def decode_example(data: bytes, *, scalars: bool) -> dict[str, Any]:
    """The features by name.

    Raises:
        ValueError: It is no such message.
    """
    features: dict[str, Any] = {}
    view = memoryview(data)
    for number, value in _fields(view):
        if number == 1:
            for name, feature in _entries(_message(value)):
                features[name] = _feature(feature, scalars)
        elif number == 2:
            for name, steps in _entries(_message(value)):
                features[name] = [_feature(_message(step), scalars) for part, step in _fields(steps) if part == 1]
    return features


def _entries(view: memoryview) -> Iterator[tuple[str, memoryview]]:
    """The entries of a message that is one map from names to messages."""
    for number, entry in _fields(view):
        if number != 1:
            continue
        name, value = "", memoryview(b"")
        for part, content in _fields(_message(entry)):
            if part == 1:
                name = str(_message(content), "utf-8")
            elif part == 2:
                value = _message(content)
        yield name, value


def _feature(view: memoryview, scalars: bool) -> Any:
    values: Any = []
    for number, content in _fields(view):
        if number == _BYTES:
            values = [bytes(_message(value)) for part, value in _fields(_message(content)) if part == 1]
        elif number == _FLOATS:
            values = _numbers(_message(content), _floats, "<f4")
        elif number == _INTS:
            values = _numbers(_message(content), _ints, "<i8")
    if scalars and len(values) == 1:
        return values[0] if isinstance(values, list) else values[0].item()
    return values


def _numbers(view: memoryview, packed: Any, dtype: str) -> "npt.NDArray[Any]":
    import numpy as np  # noqa: PLC0415 - only those who read numbers need it

    parts = [packed(value) for part, value in _fields(view) if part == 1]
    if len(parts) == 1:
        values: npt.NDArray[Any] = parts[0]
    else:
        values = np.concatenate(parts) if parts else np.empty(0, dtype)
    return values


def _floats(value: int | memoryview) -> "npt.NDArray[np.float32]":
    import numpy as np  # noqa: PLC0415

    if isinstance(value, int):  # not packed; _fields gives the four bytes as a number
        return np.array([value], "<u4").view("<f4")
    if len(value) % 4:
        raise ValueError("a list of floats whose length is no multiple of 4")
    return np.frombuffer(value, "<f4").copy()


def _ints(value: int | memoryview) -> "npt.NDArray[np.int64]":
    import numpy as np  # noqa: PLC0415

    if isinstance(value, int):
        return np.array([value], "<u8").view("<i8")
    octets = np.frombuffer(value, np.uint8)
    last = octets < 0x80
    if not len(octets):
        return np.empty(0, np.int64)
    if not last[-1]:
        raise ValueError("a list of integers that ends inside of one")
    if last.all():
        return octets.astype(np.int64)
    stops = np.flatnonzero(last) + 1
    starts = np.concatenate(([0], stops[:-1]))
    widths = stops - starts
    if widths.max() > 10:
        raise ValueError("an integer of more than 10 bytes")
    place = (np.arange(len(octets)) - np.repeat(starts, widths)).astype(np.uint64)
    values = (octets & 0x7F).astype(np.uint64) << (place * np.uint64(7))
    return np.add.reduceat(values, starts).view(np.int64)


def _fields(view: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message: their numbers, and numbers or bytes."""
    at, end = 0, len(view)
    while at < end:
        tag, at = _varint(view, at)
        number, kind = tag >> 3, tag & 7
        if kind == _LENGTH:
            length, at = _varint(view, at)
            if length > end - at:
                raise ValueError("a field reaches beyond its message")
            yield number, view[at : at + length]
            at += length
        elif kind == _VARINT:
            value, at = _varint(view, at)
            yield number, value
        elif kind in {_FIXED32, _FIXED64}:
            width = 4 if kind == _FIXED32 else 8
            if width > end - at:
                raise ValueError("a number reaches beyond its message")
            yield number, int.from_bytes(view[at : at + width], "little")
            at += width
        else:
            raise ValueError(f"a field of the unknown wire type {kind}")


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(view) or shift > 63:
            raise ValueError("a number that does not end")
        octet = view[at]
        at += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message or bytes are to be")
    return value


def encode_example(fields: Mapping[str, Any]) -> bytes:
    """An Example of these features: bytes, text, int, float, or lists of one of them, or NumPy arrays of one dimension.

    Raises:
        ValueError: A field is none of these.
    """
    entries = []
    for name, value in fields.items():
        feature = _encoded_feature(name, value)
        entries.append(_field(1, _field(1, name.encode("utf-8", "replace")) + _field(2, feature)))
    return _field(1, b"".join(entries))


def _encoded_feature(name: str, value: Any) -> bytes:
    values = _as_list(value)
    if not values:
        return b""
    if all(isinstance(one, bytes | bytearray | memoryview | str) for one in values):
        octets = [one.encode() if isinstance(one, str) else bytes(one) for one in values]
        return _field(_BYTES, b"".join(_field(1, one) for one in octets))
    if all(isinstance(one, int) for one in values):
        if not all(one in _INT64 for one in values):
            raise ValueError(f"the field {name!r} has an integer that does not fit into 64 bits")
        return _field(_INTS, _field(1, b"".join(_encoded_varint(one & 0xFFFFFFFFFFFFFFFF) for one in values)))
    if all(isinstance(one, int | float) for one in values):
        try:
            return _field(_FLOATS, _field(1, struct.pack(f"<{len(values)}f", *values)))
        except OverflowError:
            raise ValueError(f"the field {name!r} has a number that does not fit into a float of 32 bits") from None
    kinds = ", ".join(sorted({type(one).__name__ for one in values}))
    raise ValueError(
        f"the field {name!r} holds {kinds}, and a tf.train.Example holds bytes, text, int or float, or lists of one "
        "of them: "
        "encode it before"
    )


def _as_list(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return list(value)
    if hasattr(value, "tolist") and not isinstance(value, memoryview):
        value = value.tolist()
        return value if isinstance(value, list) else [value]
    return [value]


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | _LENGTH]) + _encoded_varint(len(content)) + content


def _encoded_varint(value: int) -> bytes:
    octets = bytearray()
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)
