"""What a format is: the protocol, samples, and where the samples of a shard lie."""

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, ClassVar, Literal, Protocol, Self, TypeAlias, runtime_checkable

from s3dataset.errors import DecodeError

__all__ = ["Compression", "Cursor", "Format", "Frames", "OnBad", "Sample", "ShardIndex", "ShardWriter"]

Compression: TypeAlias = Literal["gz", "zst"]

OnBad: TypeAlias = Callable[[DecodeError], None]


class Sample(dict[str, Any]):
    """One sample of a shard: a dict of its fields, with `__key__` (its name in the shard) and `__url__` (the shard).

    A dict in every other respect; pickles and collates as one.
    """

    __slots__ = ()

    @property
    def key(self) -> str:
        """The sample's name, unique in its shard where whoever wrote that kept to it."""
        return str(self["__key__"])

    @property
    def url(self) -> str:
        """The shard that it comes from, "" where that has no name."""
        return str(self["__url__"])


@dataclass(slots=True)
class Cursor:
    """How far the reading of a shard is; `Format.read` begins where it stands and moves it before each sample.

    Attributes:
        number: Samples behind it.
        offset: Where the next sample begins in the shard's content: bytes after decompression; rows for Parquet.
        head: See `ShardIndex.head`; filled in by the first read.
        ends: Where each sample ended, if somebody wants to know: give `array("Q")`, and the shard is indexed while it
            is read. Becomes None where no index of it can be made.
        frames: The frames that were passed, filled in together with `ends` where the shard has frames; the shard is to
            be read to its end before they are complete. Given without `ends`: the frames of the shard from its index,
            so that reading begins in the one that holds `offset`.
        first: Where sample 0 began, filled in together with `ends`.
    """

    number: int = 0
    offset: int = 0
    head: bytes = b""
    ends: "array[int] | None" = None
    frames: "Frames | None" = None
    first: int = 0


@dataclass(frozen=True, slots=True)
class Frames:
    """Pieces of a shard that decode by themselves: frames of zstd, blocks of BGZF, row groups of Parquet.

    Attributes:
        starts: Where each begins in the object, in bytes.
        stops: Where each ends in the object.
        ends: Where each ends in the content; the first begins at 0.
    """

    starts: "array[int]" = field(default_factory=lambda: array("Q"))
    stops: "array[int]" = field(default_factory=lambda: array("Q"))
    ends: "array[int]" = field(default_factory=lambda: array("Q"))


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """Where the samples of one shard lie: sample i is content[ends[i - 1]:ends[i]], the first begins at `first`.

    The content is the object's bytes, or what its frames decode to: bytes, or rows in the case of Parquet.

    Attributes:
        ends: Where each sample ends in the content. A `range` where that is plain counting (rows).
        first: Where sample 0 begins in the content.
        frames: None where the content is the object's bytes.
        head: What `Format.decode` and `Format.parse` need of the shard beside the sample: the header line of a CSV
            file, the footer of a Parquet file, the header of a .npy file. Often b"".
    """

    ends: Sequence[int]
    first: int = 0
    frames: Frames | None = None
    head: bytes = b""

    def __len__(self) -> int:
        return len(self.ends)


class ShardWriter(Protocol):
    """Writes one shard; from `Format.writer`. Leaving its `with` block by an error finishes nothing."""

    @property
    def nbytes(self) -> int:
        """Bytes that the shard has so far; what a compressor still holds is estimated."""

    def write(self, sample: dict[str, Any]) -> None:
        """Appends a sample.

        Raises:
            ValueError: The sample is none that this format can hold; nothing of it was written.
        """

    def finish(self) -> ShardIndex:
        """Writes what ends a shard, and tells where its samples lie. Does not close the stream."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *args: object) -> None: ...


@runtime_checkable
class Format(Protocol):
    """A kind of shard. Implementations are frozen, picklable values that compare by their arguments and keep no state.

    A format reads any binary file-like object or buffer, and knows nothing of S3.
    """

    name: ClassVar[str]
    """As in `format="tar"` and `--format tar`."""
    suffix: ClassVar[str]
    """Of the shards that it writes, ".tar"; that of a compression comes behind it."""

    def read(
        self, stream: BinaryIO, *, url: str = "", cursor: Cursor | None = None, on_bad: OnBad | None = None
    ) -> Iterator[Sample]:
        """Reads the samples of a shard one after the other, decompressing what is compressed (told by its first bytes).

        Args:
            stream: The shard. It is read forwards from `cursor`, which for an uncompressed shard takes a seek; from
                then on in large reads.
            url: What to call the shard: stands in `__url__` and in messages.
            cursor: Where to begin; moved before each sample, so that it stands behind the sample just taken.
            on_bad: Called for a sample whose content is broken where the next one can still be found, which is then
                read on; default: such an error raises. A shard whose structure is broken raises always.

        Raises:
            DecodeError: It is no such shard, or it is broken.
        """

    def scan(self, stream: BinaryIO, *, url: str = "", size: int | None = None) -> ShardIndex:
        """Finds where the samples lie, without making them. Skips over large contents by seeking.

        Args:
            stream: The shard, from its start.
            url: What to call the shard in messages.
            size: Bytes of the shard, if known.

        Raises:
            UnindexableError: It can only be read from its beginning: plain gzip, zstd in a single large frame.
            DecodeError: It is no such shard, or it is broken.
        """

    def decode(self, frame: memoryview, *, head: bytes = b"", start: int = 0) -> Any:
        """Decodes a frame, or several adjacent ones, to content; only for shards that have frames.

        Args:
            frame: The object's bytes from the start of a frame to the end of one.
            head: See `ShardIndex.head`.
            start: Where they begin in the object. Parquet needs to know.

        Raises:
            DecodeError: They are broken.
        """

    def parse(
        self, content: Any, start: int, stop: int, *, head: bytes = b"", url: str = "", number: int = 0
    ) -> Sample:
        """Makes the sample that lies at content[start:stop]: `content` is a memoryview, or what `decode` gave.

        Gives the same sample as `read` does, as `number` in its shard.

        Raises:
            DecodeError: It is broken.
        """

    def writer(self, stream: BinaryIO, *, compression: Compression | None = None) -> ShardWriter:
        """Begins a shard on a stream that need not seek.

        Args:
            stream: Where to write.
            compression: "zst": in frames of whole samples, about 1 MiB each, so that samples can be read at random;
                "gz": in blocks of BGZF, likewise.

        Raises:
            ValueError: The format does not take that compression (Parquet and .npy have their own, or none).
        """
