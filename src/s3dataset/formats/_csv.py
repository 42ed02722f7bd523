"""CSV: a record a line, or several lines where a field in quotes holds line ends.

Source: RFC 4180, and Python's csv module (dialect "excel") for what it leaves open.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from s3dataset.formats._compression import Sink
from s3dataset.formats._content import Content, broken
from s3dataset.formats._format import Sample
from s3dataset.formats._lines import begin_text
from s3dataset.formats._streamed import LINE_LIMIT, Encoder, Record, StreamedFormat, key_of

__all__ = ["CSV"]

_BLANK = frozenset({b"\n", b"\r\n"})


@dataclass(frozen=True, slots=True)
class CSV(StreamedFormat):
    """A sample a record; its fields are text, named by the first record, compressed by gzip or zstd or not.

    Fields may stand in double quotes, in which a quote is doubled, and delimiters and line ends belong to the field. In
    UTF-8. Blank lines are left out. A column `__key__` names the sample, else its number in the shard ("00000000").
    A record with more or fewer fields than there are names is a broken sample.

    Read by a scanner of its own: the csv module refuses fields of more than 128 KiB unless the whole process is told
    otherwise, and does not tell where a record ends.

    Attributes:
        fieldnames: Names of the columns of a file that does not begin with them. None: the first record has them.
        delimiter: One ASCII character.
        max_sample_bytes: A longer record is an error; this bounds the memory that a quote left open can make a reader
            use.
    """

    fieldnames: Sequence[str] | None = None
    delimiter: str = ","
    max_sample_bytes: int = LINE_LIMIT

    name: ClassVar[str] = "csv"
    suffix: ClassVar[str] = ".csv"
    _has_head: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if len(self.delimiter) != 1 or not self.delimiter.isascii() or self.delimiter in '"\r\n':
            raise ValueError(
                f"CSV(delimiter={self.delimiter!r}) is to be one ASCII character that is no quote or line end"
            )
        if self.fieldnames is not None:
            if isinstance(self.fieldnames, str):
                raise ValueError(f"CSV(fieldnames={self.fieldnames!r}) is to be a list of names")
            object.__setattr__(self, "fieldnames", tuple(self.fieldnames))
            if not self.fieldnames or len(set(self.fieldnames)) < len(self.fieldnames):
                raise ValueError(
                    f"CSV(fieldnames={list(self.fieldnames)!r}) is to name each column, and each differently"
                )

    def _boundaries(self) -> dict[str, Any]:
        names = None if self.fieldnames is None else list(self.fieldnames)
        return {"delimiter": self.delimiter, "fieldnames": names}

    def _head(self, content: Content) -> bytes:
        begin_text(content)
        if self.fieldnames is not None:
            return b""
        while line := self._line(content):
            if line not in _BLANK:
                self._names(line, content.url)
                return line
        return b""

    def _names(self, head: bytes, url: str) -> Sequence[str]:
        return self.fieldnames if self.fieldnames is not None else _column_names(head, self.delimiter, url)

    def _records(self, content: Content, head: bytes, *, take: bool) -> Iterator[Record]:  # noqa: ARG002
        """Blank lines belong to the record before."""
        begin_text(content)
        pending: bytes | None = None
        start = 0
        end = content.offset
        while line := self._line(content):
            if line not in _BLANK:
                if pending is not None:
                    yield start, end, pending
                pending, start = line, end
            end += len(line)
        if pending is not None:
            yield start, end, pending

    def _line(self, content: Content) -> bytes:
        """The bytes to the end of a record."""
        limit = self.max_sample_bytes
        begin = content.offset
        line = content.line(limit)
        if b'"' not in line or not self._inside(line, inside=False):
            return line
        parts = [line]
        length = len(line)
        while more := content.line(limit):
            parts.append(more)
            length += len(more)
            if length > limit:
                raise broken(
                    content.url,
                    f"the record at byte {begin} of the content is longer than {limit} bytes: a quote may have been "
                    "left "
                    "open there. If the record is meant to be so long, give CSV a larger max_sample_bytes=",
                )
            if not self._inside(more, inside=True):
                break
        return b"".join(parts)

    def _inside(self, line: bytes, *, inside: bool) -> bool:
        """Whether the line ends inside of quotes, given whether it begins so. Only a field's first quote opens it."""
        delimiter = self.delimiter.encode()
        at = 0
        while True:
            if not inside and line.startswith(b'"', at):
                inside = True
                at += 1
            if inside:
                at = line.find(b'"', at)
                if at < 0:
                    return True
                if line.startswith(b'""', at):
                    at += 2
                    continue
                inside = False
            at = line.find(delimiter, at) + 1
            if not at:
                return False

    def _sample(self, made_of: bytes, head: bytes, url: str, number: int) -> Sample:
        names = self._names(head, url)
        fields = _fields(made_of, self.delimiter, url, f"record {number}")
        if len(fields) != len(names):
            raise broken(
                url,
                f"record {number} has {len(fields)} fields, and there are {len(names)} columns. It begins with "
                f"{bytes(made_of[:40])!r}",
            )
        sample = Sample(__key__=key_of(number), __url__=url)
        sample.update(zip(names, fields, strict=True))
        sample["__url__"] = url
        return sample

    def parse(
        self, content: Any, start: int, stop: int, *, head: bytes = b"", url: str = "", number: int = 0
    ) -> Sample:
        return self._sample(bytes(content[start:stop]), head, url, number)

    def _encoder(self, sink: Sink) -> Encoder:  # noqa: ARG002
        return _CsvEncoder(self)


@lru_cache(maxsize=64)
def _column_names(head: bytes, delimiter: str, url: str) -> Sequence[str]:
    names = _fields(head, delimiter, url, "the first record, which names the columns,")
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise broken(
            url,
            f"its first record names {', '.join(map(repr, twice))} more than once. Give CSV fieldnames= if that is no "
            "record of names",
        )
    return names


def _fields(record: bytes, delimiter: str, url: str, what: str) -> list[str]:
    try:
        text = str(record, "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise broken(url, f"{what} is no UTF-8: {error}. Convert the file to UTF-8") from error
    if '"' not in text:
        return text.split(delimiter)
    fields = []
    at = 0
    while True:
        value = ""
        while text.startswith('"', at):
            # The text between two quotes; a doubled one goes on behind it.
            stop = text.find('"', at + 1)
            if stop < 0:
                raise broken(url, f"{what} has a quote that is not closed; it begins with {text[:40]!r}")
            value += text[at + 1 : stop]
            at = stop + 1
            if not text.startswith('"', at):
                break
            value += '"'
        stop = text.find(delimiter, at)
        fields.append(value + text[at : stop if stop >= 0 else len(text)])
        if stop < 0:
            return fields
        at = stop + 1


class _CsvEncoder(Encoder):
    def __init__(self, format: CSV) -> None:  # noqa: A002
        self._format = format
        self._names = format.fieldnames
        self._special = (format.delimiter, '"', "\r", "\n")

    def encode(self, sample: dict[str, Any]) -> Sequence[bytes]:
        fields = {name: value for name, value in sample.items() if name != "__url__"}
        names = self._names
        head = self.head
        if names is None:
            names = tuple(fields)
            if not names:
                raise ValueError("a sample without fields cannot be a record of a CSV file")
            head = self._record(names)
        if set(fields) != set(names):
            raise ValueError(
                f"the sample has the fields {sorted(fields)}, and the columns of the CSV file are {sorted(names)}: "
                "every "
                "sample needs the same ones"
            )
        record = self._record([self._text(name, fields[name]) for name in names])
        if len(record) > self._format.max_sample_bytes:
            raise ValueError(
                f"the record takes {len(record)} bytes, more than max_sample_bytes={self._format.max_sample_bytes} "
                "lets be "
                "read back"
            )
        self._names, self.head = names, head
        return [record]

    def _record(self, values: Sequence[str]) -> bytes:
        record = self._format.delimiter.join(map(self._quoted, values))
        try:
            return (record or '""').encode() + b"\n"  # a blank line would be left out
        except UnicodeEncodeError as error:
            raise ValueError(f"the sample holds text that is no UTF-8: {error}") from None

    def _quoted(self, value: str) -> str:
        if any(part in value for part in self._special) or value.startswith("\ufeff"):
            doubled = value.replace('"', '""')
            return f'"{doubled}"'
        return value

    @staticmethod
    def _text(name: str, value: Any) -> str:
        if isinstance(value, str):
            return value
        if value is None:
            return ""
        if isinstance(value, int | float):
            return str(value)
        raise ValueError(
            f"the field {name!r} is a {type(value).__name__}, and a CSV file holds text and numbers: encode it "
            "before, or "
            "write another format"
        )
