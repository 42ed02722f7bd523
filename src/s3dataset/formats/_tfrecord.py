"""TFRecord: records with their lengths and checksums.

Source: TensorFlow's documentation of TFRecord: length (8 bytes), its masked CRC32C, the data, its masked CRC32C.
"""

import base64
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from s3dataset.formats._compression import Sink
from s3dataset.formats._content import Content, broken, looks_like
from s3dataset.formats._example import decode_example, encode_example
from s3dataset.formats._format import Sample
from s3dataset.formats._streamed import MEMBER_LIMIT, Encoder, Record, StreamedFormat, key_of

__all__ = ["TFRecord"]

_LENGTH: Final = struct.Struct("<QI")
_CRC: Final = struct.Struct("<I")
_FRAMING: Final = _LENGTH.size + _CRC.size


def masked_crc(data: bytes | memoryview) -> int:
    """The CRC32C of data, rotated and shifted as TFRecord stores it."""
    # Late, since the client brings the whole engine, and the other formats do without.
    from s3dataset._client import checksum  # noqa: PLC0415

    crc = int.from_bytes(base64.b64decode(checksum("CRC32C", data)), "big")
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class TFRecord(StreamedFormat):
    """TensorFlow's record files, read without TensorFlow, compressed by gzip or zstd or not.

    Features of a `tf.train.Example` become fields: bytes, float (float32) or int. With `scalars`, a list of one value
    becomes the value. Other lists become NumPy arrays (float32, int64), and lists of bytes stay lists. The steps of a
    `tf.train.SequenceExample` come as lists with one such value for each step. A feature `__key__` names the sample,
    else its number in the shard does ("00000000").

    A record whose data has the wrong checksum, or is no Example, is a broken sample. Behind a length with the wrong
    checksum nothing can be found, so that raises always.

    Attributes:
        example: Whether records are Examples. False: they are bytes, and a sample is `{"record": bytes}`.
        scalars: Whether a list of one value becomes the value itself. False: always arrays and lists, so that a feature
            of varying length has one type.
        verify: Whether the checksums of data are compared. Those of lengths are, always.
        max_sample_bytes: A larger record is an error; this bounds the memory that one can make a reader use.
    """

    example: bool = True
    scalars: bool = True
    verify: bool = True
    max_sample_bytes: int = MEMBER_LIMIT

    name: ClassVar[str] = "tfrecord"
    suffix: ClassVar[str] = ".tfrecord"

    @staticmethod
    def _plain(first: bytes) -> bool:
        # The length of a record can look like gzip's magic bytes; that its checksum fits too is no accident.
        return len(first) >= _LENGTH.size and _LENGTH.unpack_from(first)[1] == masked_crc(first[:8])

    def _records(self, content: Content, head: bytes, *, take: bool) -> Iterator[Record]:  # noqa: ARG002
        start = content.offset
        while header := content.take(_LENGTH.size):
            length = self._length(content, header, start)
            data = crc = b""
            if take:
                data, crc = content.take(length), content.take(_CRC.size)
                came = len(data) + len(crc)
            else:
                came = content.skip(length + _CRC.size)
            if came < length + _CRC.size:
                raise broken(
                    content.url,
                    f"the file ends at byte {content.offset}, inside of the record at byte {start}, which is to have "
                    f"{length} bytes. It was cut short: upload it again",
                )
            stop = start + length + _FRAMING
            yield start, stop, (start, data, crc)
            start = stop

    def _length(self, content: Content, header: bytes, start: int) -> int:
        if len(header) == _LENGTH.size:
            length, crc = _LENGTH.unpack(header)
            if crc == masked_crc(header[:8]):
                if length > self.max_sample_bytes:
                    raise broken(
                        content.url,
                        f"the record at byte {start} has {length} bytes, and the limit is {self.max_sample_bytes}. "
                        "If that "
                        "is meant, give TFRecord a larger max_sample_bytes=",
                    )
                return int(length)
        if not start:
            raise broken(
                content.url,
                f"it is no TFRecord file: it begins with {header!r}, which is no length with its checksum"
                f"{looks_like(header)}. Choose another format=",
            )
        what = "ends inside of a length" if len(header) < _LENGTH.size else "has a length with the wrong checksum"
        raise broken(content.url, f"the file {what} at byte {start}. It was cut short or damaged: upload it again")

    def _sample(self, made_of: tuple[int, bytes, bytes], head: bytes, url: str, number: int) -> Sample:  # noqa: ARG002
        start, data, crc = made_of
        if self.verify and _CRC.unpack(crc)[0] != masked_crc(data):
            raise broken(
                url,
                f"the data of record {number}, at byte {start}, has the wrong checksum: it was damaged. Upload the "
                "file "
                'again, or leave such records out with on_error="skip"',
            )
        sample = Sample(__key__=key_of(number), __url__=url)
        if not self.example:
            sample["record"] = data
            return sample
        try:
            features = decode_example(data, scalars=self.scalars)
        except ValueError as error:
            raise broken(
                url,
                f"record {number}, at byte {start}, is no tf.train.Example: {error}. If records are something else, "
                "read "
                "them as they are with TFRecord(example=False)",
            ) from error
        key = features.get("__key__")
        sample.update(features)
        sample["__key__"] = key.decode("utf-8", "replace") if isinstance(key, bytes) else key_of(number)
        sample["__url__"] = url
        return sample

    def _encoder(self, sink: Sink) -> Encoder:  # noqa: ARG002
        return _RecordEncoder(self.example, self.max_sample_bytes)


class _RecordEncoder(Encoder):
    def __init__(self, example: bool, limit: int) -> None:
        self._example = example
        self._limit = limit

    def encode(self, sample: dict[str, Any]) -> Sequence[bytes | memoryview]:
        if self._example:
            data: bytes | memoryview = encode_example({k: value for k, value in sample.items() if k != "__url__"})
        else:
            record = sample.get("record")
            if not isinstance(record, bytes | bytearray | memoryview):
                raise ValueError(
                    f'a sample for TFRecord(example=False) needs "record": bytes, not {type(record).__name__}'
                )
            data = memoryview(record).cast("B")
        if len(data) > self._limit:
            raise ValueError(
                f"a record of {len(data)} bytes is more than max_sample_bytes={self._limit} lets be read back"
            )
        length = struct.pack("<Q", len(data))
        return [length, _CRC.pack(masked_crc(length)), data, _CRC.pack(masked_crc(data))]
