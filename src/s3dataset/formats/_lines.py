"""A sample a line: JSONL and text."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from s3dataset.formats._compression import Sink
from s3dataset.formats._content import Content, broken
from s3dataset.formats._format import Sample
from s3dataset.formats._streamed import LINE_LIMIT, Encoder, Record, StreamedFormat, key_of

__all__ = ["JSONL", "Text", "begin_text", "json_line", "without_key"]

_UTF8_MARK: Final = b"\xef\xbb\xbf"
_UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")


def begin_text(content: Content) -> None:
    """Leaves out the mark that some programs put before UTF-8.

    Raises:
        DecodeError: It is in UTF-16.
    """
    if content.offset:
        return
    first = content.peek(3)
    if first == _UTF8_MARK:
        content.skip(3)
    elif first.startswith(_UTF16_MARKS):
        raise broken(content.url, "it is in UTF-16, and must be in UTF-8: convert it, as with iconv -f utf-16 -t utf-8")


def without_key(sample: dict[str, Any]) -> dict[str, Any]:
    """The fields of a sample, without what tells where it comes from."""
    return {name: value for name, value in sample.items() if name not in {"__key__", "__url__"}}


@dataclass(frozen=True, slots=True)
class JSONL(StreamedFormat):
    r"""One JSON document a line, compressed by gzip or zstd or not.

    An object's keys are the fields of the sample; any other value is its field "json". A `__key__` in the object names
    the sample, else its number in the shard does ("00000000"). Blank lines are left out; lines end with "\n" or "\r\n".
    A line that is no JSON is a broken sample.

    Attributes:
        max_sample_bytes: A longer line is an error; this bounds the memory that a file without line ends can make a
            reader use.
    """

    max_sample_bytes: int = LINE_LIMIT

    name: ClassVar[str] = "jsonl"
    suffix: ClassVar[str] = ".jsonl"

    def _records(self, content: Content, head: bytes, *, take: bool) -> Iterator[Record]:  # noqa: ARG002
        begin_text(content)
        limit = self.max_sample_bytes
        pending: bytes | None = None
        start = 0
        end = content.offset
        while line := content.line(limit):
            if not line.isspace():
                if pending is not None:
                    yield start, end, pending
                pending, start = line, end
            end += len(line)
        if pending is not None:
            yield start, end, pending

    def _sample(self, made_of: bytes, head: bytes, url: str, number: int) -> Sample:  # noqa: ARG002
        try:
            value = json.loads(str(made_of, "utf-8"))
        except (ValueError, RecursionError) as error:
            raise broken(
                url,
                f"line {number} (from 0, blank ones not counted) is no JSON: {error}. It begins with {made_of[:40]!r}",
            ) from error
        sample = Sample(__key__=key_of(number), __url__=url)
        if isinstance(value, dict):
            sample.update(value)
            sample["__url__"] = url
            sample["__key__"] = str(sample["__key__"])
        else:
            sample["json"] = value
        return sample

    def parse(
        self, content: Any, start: int, stop: int, *, head: bytes = b"", url: str = "", number: int = 0
    ) -> Sample:
        return self._sample(bytes(content[start:stop]), head, url, number)

    def _encoder(self, sink: Sink) -> Encoder:  # noqa: ARG002
        return _JsonEncoder(self.max_sample_bytes)


class _JsonEncoder(Encoder):
    def __init__(self, limit: int) -> None:
        self._limit = limit

    def encode(self, sample: dict[str, Any]) -> Sequence[bytes]:
        fields = {name: value for name, value in sample.items() if name != "__url__"}
        value: Any = fields
        if set(fields) <= {"__key__", "json"} and "json" in fields and not isinstance(fields["json"], dict):
            value = fields["json"]
        return [json_line(value, self._limit)]


def json_line(value: Any, limit: int) -> bytes:
    """A line of JSON.

    Raises:
        ValueError: JSON cannot hold it; or not in so few bytes.
    """
    try:
        line = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain).encode() + b"\n"
    except UnicodeEncodeError:
        line = json.dumps(value, separators=(",", ":"), default=_plain).encode() + b"\n"
    except (TypeError, RecursionError) as error:
        named = {name: part for name, part in value.items() if _refused(part)} if isinstance(value, dict) else {}
        names = ", ".join(f"{name!r} ({type(part).__name__})" for name, part in named.items())
        raise ValueError(
            f"JSON cannot hold {names or 'this sample'}: {error}. Decode or leave out such fields before"
        ) from None
    if len(line) > limit:
        raise ValueError(
            f"the sample takes {len(line)} bytes of JSON, more than max_sample_bytes={limit} lets be read back"
        )
    return line


def _plain(value: Any) -> Any:
    """NumPy's arrays and numbers, and tensors, as lists and numbers."""
    if hasattr(value, "tolist") and not isinstance(value, memoryview | bytes | bytearray):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} is no JSON")


def _refused(value: Any) -> bool:
    try:
        json.dumps(value, default=_plain)
    except (TypeError, ValueError, RecursionError):
        return True
    return False


@dataclass(frozen=True, slots=True)
class Text(StreamedFormat):
    r"""A sample a line, `{"text": str}`, in UTF-8, compressed by gzip or zstd or not.

    Blank lines are samples too. Lines end with "\n" or "\r\n", which are left out. The key is the line's number in the
    shard ("00000000"). A line that is no UTF-8 is a broken sample.

    Attributes:
        max_sample_bytes: A longer line is an error; this bounds the memory that a file without line ends can make a
            reader use.
    """

    max_sample_bytes: int = LINE_LIMIT

    name: ClassVar[str] = "text"
    suffix: ClassVar[str] = ".txt"

    def _records(self, content: Content, head: bytes, *, take: bool) -> Iterator[Record]:  # noqa: ARG002
        begin_text(content)
        limit = self.max_sample_bytes
        start = content.offset
        while line := content.line(limit):
            end = start + len(line)
            yield start, end, line
            start = end

    def _sample(self, made_of: bytes, head: bytes, url: str, number: int) -> Sample:  # noqa: ARG002
        line = made_of[:-1] if made_of.endswith(b"\n") else made_of
        if len(line) < len(made_of) and line.endswith(b"\r"):
            line = line[:-1]
        try:
            text = str(line, "utf-8")
        except UnicodeDecodeError as error:
            raise broken(
                url, f"line {number} (counted from 0) is no UTF-8: {error}. Convert the file to UTF-8"
            ) from error
        return Sample(__key__=key_of(number), __url__=url, text=text)

    def parse(
        self, content: Any, start: int, stop: int, *, head: bytes = b"", url: str = "", number: int = 0
    ) -> Sample:
        return self._sample(bytes(content[start:stop]), head, url, number)

    def _encoder(self, sink: Sink) -> Encoder:  # noqa: ARG002
        return _TextEncoder(self.max_sample_bytes)


class _TextEncoder(Encoder):
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._begun = False

    def encode(self, sample: dict[str, Any]) -> Sequence[bytes]:
        text = sample.get("text")
        if not isinstance(text, str):
            raise ValueError(f'a sample for a file of text needs "text": a str, not {type(text).__name__}')
        if "\n" in text or text.endswith("\r"):
            raise ValueError('the field "text" holds line ends, so it would be read back as several samples; use JSONL')
        if not self._begun and text.startswith("\ufeff"):
            raise ValueError("the first text begins with U+FEFF, which readers take for the mark of UTF-8; use JSONL")
        line = text.encode() + b"\n"
        if len(line) > self._limit:
            raise ValueError(
                f"the text takes {len(line)} bytes, more than max_sample_bytes={self._limit} lets be read back"
            )
        self._begun = True
        return [line]
