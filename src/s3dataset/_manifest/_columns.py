"""The columns of a manifest, read in place from the file they are mapped from.

Layout, little-endian: 8 bytes of magic; offset and length of the JSON header (2 x uint64); the columns, each at a
multiple of 64; the header. The header stands last because it tells sums over what stands before it.

====================  ==============================================================================================
``keys``              UTF-8 of all keys, one behind the other
``key_ends``          uint64, the end of each key in ``keys``
``sizes``             uint64, bytes; 2**64 - 1: not known. Left out where none is known, like the following ones
``mtimes``            uint32, epoch seconds; 0: not known
``etags``             16 bytes: the MD5 that an ETag spells
``etag_parts``        uint16: the number behind the dash, 0 for none; see ``_etags``
``etag_texts``        ETags that are not of that form, one behind the other
``buckets``           uint16 index into the header's list of buckets; left out where there is but one
====================  ==============================================================================================

A manifest whose objects are shards of which the samples are known (version 2; without samples it is version 1) also has

====================  ==============================================================================================
``sample_counts``     uint64 a shard: how many samples it and those before it have
``sample_widths``     uint8 a shard: bytes of each of its ends below, 4 or 8; 0: its samples are equally long
``sample_ends_at``    uint64 a shard: where its ends begin in ``sample_ends``, in bytes; for width 0 how long each
                      sample is. As many ends as samples follow, so that shards need not stand in order
``sample_ends``       where each sample ends in the content of its shard; 4 bytes each where that fits, else 8
``sample_firsts``     uint64 a shard: where its first sample begins. Left out where that is 0 for all
``frame_counts``      uint64 a shard: how many frames it and those before it have. Left out where none has any
``frame_starts``      uint64 a frame: where it begins in the object
``frame_stops``       uint64 a frame: where it ends in the object
``frame_ends``        uint64 a frame: where it ends in the content
``head_of``           uint32 a shard: which head is its. Left out where all are empty
``head_ends``         uint64 a head: its end in ``heads``
``heads``             the different heads, one behind the other
====================  ==============================================================================================
"""

import json
import sys
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from mmap import mmap
from struct import Struct
from typing import Any, Final, Literal, TypeAlias

from s3dataset._manifest._etags import DIGEST_BYTES, NO_ETAG, OTHER_ETAG, PLACE
from s3dataset._manifest._samples import Samples
from s3dataset._uri import S3Uri
from s3dataset.errors import DecodeError

Row: TypeAlias = tuple[str, str, int | None, str | None]
"""(bucket, key, size or None, ETag with its quotes or None)."""

MAGIC: Final = b"S3DSMNF"  # and the version in a byte
PREAMBLE: Final = Struct("<8sQQ")
ALIGNMENT: Final = 64
NO_SIZE: Final = (1 << 64) - 1
FORMAT_VERSION: Final = 1
"""Of manifests without samples, which every release reads."""

SAMPLES_VERSION: Final = 2
"""Of manifests with samples: a release that knows nothing of them refuses it, instead of taking shards for samples."""

UNKNOWN_VERSION: Final = "UnknownVersion"
"""Code of the error about a file that a newer release wrote."""

ITEM_BYTES: Final[Mapping[str, int]] = {
    "key_ends": 8,
    "sizes": 8,
    "mtimes": 4,
    "etags": DIGEST_BYTES,
    "etag_parts": 2,
    "buckets": 2,
}
SAMPLE_ITEM_BYTES: Final[Mapping[str, int]] = {
    "sample_counts": 8,
    "sample_widths": 1,
    "sample_ends_at": 8,
    "sample_firsts": 8,
    "frame_counts": 8,
    "head_of": 4,
}

_PLACES: Final = 1000


class Columns:
    """Rows of a manifest over a buffer. Immutable; safe between threads and after forks."""

    __slots__ = (
        "__weakref__",
        "_blob",
        "_bucket_of",
        "_digests",
        "_ends",
        "_mtimes",
        "_parts",
        "_sizes",
        "_texts",
        "buckets",
        "buffer",
        "header",
        "path",
        "samples",
    )

    def __init__(self, buffer: mmap | bytes, name: str, *, path: str | None = None) -> None:
        """Looks at the header only.

        Args:
            buffer: The whole file.
            name: What to call it in messages.
            path: The file, if it is one that other processes can map.

        Raises:
            DecodeError: It is no manifest, not a whole one, or of a newer version.
        """
        self.buffer = buffer
        self.path = path
        self.header = header = read_header(buffer, name)
        self.buckets: list[str] = header["buckets"]
        column = self.section

        def numbers(section: str, code: Literal["H", "I", "Q"]) -> memoryview | None:
            found = column(section)
            return None if found is None else found.cast(code)

        blob, ends = column("keys"), numbers("key_ends", "Q")
        if blob is None or ends is None:
            raise damaged(name, "a column is missing")
        self._blob = blob
        self._ends = ends
        self._sizes = numbers("sizes", "Q")
        self._mtimes = numbers("mtimes", "I")
        self._digests = column("etags")
        self._parts = numbers("etag_parts", "H")
        self._texts = column("etag_texts")
        self._bucket_of = numbers("buckets", "H")
        self.samples = Samples(self) if "samples" in header else None

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return len(self.buffer)

    def has(self, section: str) -> bool:
        """Whether a column is there."""
        return section in self.header["sections"]

    def section(self, name: str) -> memoryview | None:
        """The bytes of a column; None where it is left out."""
        place = self.header["sections"].get(name)
        return None if place is None else memoryview(self.buffer)[place[0] : place[0] + place[1]]

    @property
    def sizes(self) -> memoryview | None:
        """The column; None where no size is known."""
        return self._sizes

    # -- One row; `row` must be in range ----------------------------------------------------------------------------

    def key_bytes(self, row: int) -> bytes:
        ends = self._ends
        return bytes(self._blob[ends[row - 1] if row else 0 : ends[row]])

    def key(self, row: int) -> str:
        ends = self._ends
        return str(self._blob[ends[row - 1] if row else 0 : ends[row]], "utf-8")

    def bucket_index(self, row: int) -> int:
        return 0 if self._bucket_of is None else self._bucket_of[row]

    def bucket(self, row: int) -> str:
        return self.buckets[self.bucket_index(row)]

    def size(self, row: int) -> int | None:
        if self._sizes is None:
            return None
        size: int = self._sizes[row]
        return None if size == NO_SIZE else size

    def mtime(self, row: int) -> int | None:
        return (self._mtimes[row] or None) if self._mtimes is not None else None

    def etag(self, row: int) -> str | None:
        if self._parts is None or self._digests is None:
            return None
        parts = self._parts[row]
        digest = self._digests[row * DIGEST_BYTES : (row + 1) * DIGEST_BYTES]
        if parts == 0:
            return f'"{digest.hex()}"'
        if parts == NO_ETAG:
            return None
        if parts == OTHER_ETAG:
            start, end = PLACE.unpack(digest)
            return f'"{str(self._texts[start:end], "utf-8")}"' if self._texts is not None else None
        return f'"{digest.hex()}-{parts}"'

    # -- Many rows --------------------------------------------------------------------------------------------------

    def rows(self, positions: Iterable[int]) -> list[Row]:
        """Rows at these positions, each within range: about a microsecond each."""
        blob, ends, sizes, parts, digests = self._blob, self._ends, self._sizes, self._parts, self._digests
        bucket_of, buckets = self._bucket_of, self.buckets
        bucket = buckets[0] if buckets else ""
        etag: str | None
        size: int | None
        found: list[Row] = []
        append = found.append
        for row in positions:
            if bucket_of is not None:
                bucket = buckets[bucket_of[row]]
            size = None
            if sizes is not None:
                size = sizes[row]
                if size == NO_SIZE:
                    size = None
            etag = None
            if parts is not None and digests is not None:
                etag = f'"{digests[row * 16 : row * 16 + 16].hex()}"' if parts[row] == 0 else self.etag(row)
            append((bucket, str(blob[ends[row - 1] if row else 0 : ends[row]], "utf-8"), size, etag))
        return found

    def keys(self) -> Iterator[bytes]:
        """All keys in order, as UTF-8."""
        blob, start = self._blob, 0
        for end in self._ends:
            yield blob[start:end].tobytes()
            start = end

    def keys_ending(self, text: bytes, most: int) -> list[str]:
        """Up to `most` keys that end in `text`, among the first 1,000 places where it stands."""
        start, length = self.header["sections"]["keys"]
        found: list[str] = []
        at = start
        for _ in range(_PLACES):
            at = self.buffer.find(text, at, start + length)
            if at < 0 or len(found) == most:
                break
            at += len(text)
            row = bisect_left(self._ends, at - start)
            if self._ends[row] == at - start and self.key_bytes(row).endswith(text):
                found.append(self.key(row))
        return found

    def gather(self, section: str, spans: Sequence[tuple[int, int]]) -> bytes | None:
        """The bytes of rows [start, stop) each, of a column of fixed width; None where the column is left out."""
        place = self.header["sections"].get(section)
        if place is None:
            return None
        width, view = ITEM_BYTES[section], memoryview(self.buffer)[place[0] : place[0] + place[1]]
        return b"".join([view[start * width : stop * width] for start, stop in spans])

    def keys_of(self, spans: Sequence[tuple[int, int]]) -> tuple[bytes, list[int]]:
        """The keys of rows [start, stop) each, one behind the other, and where each ends."""
        blob, ends = self._blob, self._ends
        keys, key_ends, total = [], [], 0
        for start, stop in spans:
            begin = ends[start - 1] if start else 0
            end = ends[stop - 1]
            keys.append(blob[begin:end])
            if stop - start > 1:
                shift = total - begin
                key_ends += [key_end + shift for key_end in ends[start : stop - 1]]
            total += end - begin
            key_ends.append(total)
        return b"".join(keys), key_ends


def read_header(buffer: mmap | bytes, name: str) -> dict[str, Any]:
    """Reads and checks a manifest's header.

    Raises:
        DecodeError: It is no manifest, not a whole one, or of a newer version.
    """
    if sys.byteorder != "little":
        raise damaged(name, "manifests are little-endian, and this machine is not")
    if len(buffer) < PREAMBLE.size:
        raise damaged(name, f"it has {len(buffer)} bytes only")
    magic, offset, length = PREAMBLE.unpack(buffer[: PREAMBLE.size])
    if magic[:7] != MAGIC:
        raise damaged(name, f"it begins with {bytes(buffer[:8])!r}")
    if magic[7] not in (FORMAT_VERSION, SAMPLES_VERSION):
        raise damaged(
            name,
            f"it is of format version {magic[7]}, and this release reads 1 and 2: update s3dataset",
            code=UNKNOWN_VERSION,
        )
    if offset + length > len(buffer) or not length:
        raise damaged(name, "it is cut off")
    try:
        header = json.loads(buffer[offset : offset + length])
        fits = _fits(header, offset) and ("samples" in header) == (magic[7] == SAMPLES_VERSION)
        if fits and "samples" in header:
            fits = _samples_fit(header)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise damaged(name, f"its header cannot be read ({e})") from e
    if not fits:
        raise damaged(name, "its columns do not fit its header")
    return dict(header)


def _fits(header: Mapping[str, Any], end: int) -> bool:
    """Whether the columns lie where a header says, before `end`, with as many rows; raises where it does not tell."""
    sections: Mapping[str, tuple[int, int]] = header["sections"]
    count = header["num_objects"]
    numbers = [count, header["num_bytes"], *(number for place in sections.values() for number in place)]
    texts = [header["fingerprint"], *header["buckets"]]
    for source in header["sources"]:
        S3Uri.parse_prefix(source["uri"])
        texts += [source["pattern"] or "", "" if type(source["complete"]) is bool else source["complete"]]
    return (
        all(type(number) is int and number >= 0 for number in numbers)
        and all(PREAMBLE.size <= start <= start + size <= end for start, size in sections.values())
        and all(sections[section][1] == width * count for section, width in ITEM_BYTES.items() if section in sections)
        and all(isinstance(text, str) for text in texts)
        and header["ascending"] in (True, False)
    )


def _samples_fit(header: Mapping[str, Any]) -> bool:
    """The same of the columns about samples."""
    sections: Mapping[str, tuple[int, int]] = header["sections"]
    count, told = header["num_objects"], header["samples"]
    always = ("sample_counts", "sample_widths", "sample_ends_at", "sample_ends")
    frames = {sections[section][1] for section in ("frame_starts", "frame_stops", "frame_ends") if section in sections}
    return (
        isinstance(told["objects_fingerprint"], str)
        and isinstance(told["format"], Mapping)
        and all(section in sections for section in always)
        and all(
            sections[section][1] == width * count for section, width in SAMPLE_ITEM_BYTES.items() if section in sections
        )
        and sections["sample_ends"][1] % 4 == 0
        and all(place[0] % ALIGNMENT == 0 for place in sections.values())
        and len(frames) == ("frame_counts" in sections)
        and all(size % 8 == 0 for size in frames)
        and ("head_of" in sections) == ("head_ends" in sections) == ("heads" in sections)
        and ("head_ends" not in sections or sections["head_ends"][1] % 8 == 0)
    )


def damaged(name: str, why: str, *, code: str = "") -> DecodeError:
    """What to raise for a file that is no manifest."""
    return DecodeError(
        f"{name} is no manifest: {why}. Manifest.save writes one; a prefix is read by Manifest.from_prefix",
        uri=name,
        code=code,
    )
