"""A small format: a sample is a line; with `frame_lines` so many of them make a frame of hexadecimal digits."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

from s3dataset._manifest._formats import KNOWN
from s3dataset.errors import DecodeError, UnindexableError
from s3dataset.formats import Sample, ShardIndex


@dataclass(frozen=True)
class Lines:
    name: ClassVar[str] = "lines"
    suffix: ClassVar[str] = ".txt"

    strict: bool = False

    def scan(self, stream: BinaryIO, *, url: str = "", size: int | None = None) -> ShardIndex:
        ends = array("Q")
        end = 0
        for line in stream:
            if line.startswith(b"\x1f\x8b"):
                raise UnindexableError(f"{url} is compressed with gzip", uri=url)
            if not line.endswith(b"\n"):
                raise DecodeError(f"{url} ends in the middle of a line", uri=url)
            end += len(line)
            ends.append(end)
        assert size is None or end == size
        return ShardIndex(ends)

    def read(self, stream: BinaryIO, *, url: str = "", **_: Any) -> Iterator[Sample]:
        for number, line in enumerate(stream):
            yield Sample(__key__=str(number), __url__=url, line=line)

    def decode(self, frame: memoryview, *, head: bytes = b"") -> Any:
        raise NotImplementedError

    def parse(
        self, content: Any, start: int, stop: int, *, head: bytes = b"", url: str = "", number: int = 0
    ) -> Sample:
        return Sample(__key__=str(number), __url__=url, line=bytes(content[start:stop]))

    def writer(self, stream: BinaryIO, *, compression: Any = None) -> Any:
        raise NotImplementedError


KNOWN["lines"] = Lines
