"""Objects in parts, between the service and memory that lies in pieces: no copy, whole objects compared."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from s3dataset._client import Client, StoredChecksum, combine_checksums
from s3dataset._progress import Progress
from s3dataset._uri import S3Uri
from s3dataset.errors import ChecksumMismatchError, InternalError, S3Exception

if TYPE_CHECKING:
    from s3dataset._client import Pieces, Reply, RequestQueue

__all__ = ["Cutter", "Target", "fetch"]

_ATTEMPTS: Final = 3


class Cutter:
    """Cuts pieces of memory, of any lengths, into parts: the `take` of `S3Writer.save_held`."""

    def __init__(self, pieces: Iterator[tuple[memoryview, object]]) -> None:
        self._pieces = pieces
        self._rest: tuple[memoryview, object] = (memoryview(b""), None)

    def __call__(self, nbytes: int) -> "tuple[Pieces, object]":
        taken: list[memoryview] = []
        keeps: list[object] = []
        while nbytes:
            memory, keep = self._rest
            if not len(memory):
                self._rest = next(self._pieces)
                continue
            taken.append(memory[:nbytes])
            keeps.append(keep)
            self._rest = (memory[nbytes:], keep)
            nbytes -= len(taken[-1])
        return taken, keeps


@dataclass(frozen=True, slots=True)
class Target:
    """Bytes [start, end) of one version of an object, and the memory that they are for.

    Attributes:
        pieces: The memory of bytes [start, end); None where there is none before other bytes have landed.
        landed: Is told when such bytes are there.
        stored: The checksum of the bytes, where they are to be compared.
    """

    uri: S3Uri
    etag: str | None
    start: int
    end: int
    pieces: "Callable[[int, int], Pieces | None]"
    landed: Callable[[int, int], None] | None = None
    stored: StoredChecksum | None = None


def fetch(client: Client, queue: "RequestQueue", targets: Sequence[Target], progress: Progress | None = None) -> None:
    """Fills the targets' memory, all parts of all of them at once.

    Raises:
        ChecksumMismatchError: Several times other bytes came than are stored.
        S3Exception: One could not be read.
    """
    left = list(targets)
    for attempt in range(_ATTEMPTS):
        found = _fetch(client, queue, left, progress)
        wrong = [at for at, (target, value) in enumerate(zip(left, found, strict=True)) if _is_wrong(target, value)]
        if not wrong:
            return
        if attempt == _ATTEMPTS - 1:
            target, value = left[wrong[0]], found[wrong[0]]
            stored = cast("StoredChecksum", target.stored)
            raise ChecksumMismatchError(
                f"{target.uri}: the {target.end - target.start:,} bytes that came have the {stored.algorithm} {value}, "
                f"the service has stored {stored.value}: something on the way, or in this machine's memory, changes "
                "bytes",
                operation="GetObject",
                uri=str(target.uri),
            )
        left = [left[at] for at in wrong]


def _is_wrong(target: Target, value: str) -> bool:
    return target.stored is not None and target.stored.value != value


class _Part(NamedTuple):
    target: int
    number: int
    start: int
    end: int


def _fetch(client: Client, queue: "RequestQueue", targets: Sequence[Target], progress: Progress | None) -> list[str]:
    """-> the checksums of what came, "" for a target that none is stored of."""
    waiting = deque(
        _Part(which, number, start, min(start + client.part_size, target.end))
        for which, target in enumerate(targets)
        for number, start in enumerate(range(target.start, target.end, client.part_size))
    )
    checksums: list[list[tuple[str, int]]] = [[] for _ in targets]
    for part in waiting:
        checksums[part.target].append(("", 0))
    under_way: dict[int, _Part] = {}
    done, total = 0, sum(target.end - target.start for target in targets)
    while True:
        _submit(queue, targets, waiting, under_way)
        if not under_way:
            break
        results = queue.next(1)
        if not results:
            uri = targets[next(iter(under_way.values())).target].uri
            raise InternalError(f"a result of a read of {uri} is missing", uri=str(uri))
        for index, result in results:
            if isinstance(result, S3Exception):
                raise result
            part = under_way.pop(index)
            target = targets[part.target]
            checksums[part.target][part.number] = (cast("Reply", result).checksum, part.end - part.start)
            done += part.end - part.start
            if target.landed is not None:
                target.landed(part.start, part.end)
        if progress is not None:
            progress(done, total)
    return [
        combine_checksums(target.stored.algorithm, parts) if target.stored is not None else ""
        for target, parts in zip(targets, checksums, strict=True)
    ]


def _submit(
    queue: "RequestQueue", targets: Sequence[Target], waiting: deque[_Part], under_way: dict[int, _Part]
) -> None:
    """Asks for as many parts as there is memory for."""
    while waiting:
        part = waiting[0]
        target = targets[part.target]
        pieces = target.pieces(part.start, part.end)
        if pieces is None:
            return
        waiting.popleft()
        algorithm = None if target.stored is None else target.stored.algorithm
        request = (target.uri.bucket, target.uri.key, part.start, target.etag, pieces)
        under_way[queue.get_into([request], checksum=algorithm).start] = part
