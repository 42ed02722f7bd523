"""Ranks that read an object once between them: each asks for its share, and they exchange what came."""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, cast

import torch
import torch.distributed

from s3dataset._checkpoint._fetch import Fetch, Opened, cut
from s3dataset._checkpoint._image import Image, UnusualArchiveError
from s3dataset._client import checksum, combine_checksums
from s3dataset._progress import Progress
from s3dataset.errors import S3Exception

if TYPE_CHECKING:
    from s3dataset._client import RequestQueue

__all__ = ["PeerFailedError", "SharedFetch", "Sharing"]

_EXCHANGED_BYTES: Final = 256 << 20
"""In one exchange between all ranks."""
_MIN_BLOCK_BYTES: Final = 256 << 10
_FINE: Final = b"\0" * 8
_FAILED: Final = b"\1" + b"\0" * 7


class PeerFailedError(S3Exception):
    """Another rank could not do its share."""


class Sharing:
    """The ranks of a process group.

    Raises:
        ValueError: This process is none of them.
    """

    def __init__(self, group: Any) -> None:
        self.group = group
        self.rank = torch.distributed.get_rank(group)
        self.size = torch.distributed.get_world_size(group)
        if self.rank < 0:
            raise ValueError("this process is not in the group given")
        on_gpu = torch.distributed.get_backend(group) == "nccl"
        self.device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")

    def opened(self, ask: Callable[[], Opened]) -> Opened:
        """Rank 0 asks for all. Its failure is everybody's."""
        answer: list[Any] = [None]
        if self.rank == 0:
            try:
                answer = [ask()]
            except Exception as error:  # noqa: BLE001 - raised below, by every rank
                answer = [error]
        source = torch.distributed.get_global_rank(self.group, 0) if self.group is not None else 0
        torch.distributed.broadcast_object_list(answer, source, group=self.group)
        if isinstance(answer[0], Exception):
            raise answer[0]
        return cast("Opened", answer[0])

    def gather(self, value: Any) -> list[Any]:
        """Every rank's."""
        values: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(values, value, group=self.group)
        return values

    def each(self, own: Callable[[], Any]) -> list[Any]:
        """Does on every rank what may fail on one -> every rank's result."""
        error: Exception | None = None
        result: Any = None
        try:
            result = own()
        except Exception as failed:  # noqa: BLE001 - the others wait to hear of it
            error = failed
        return self.agree(error, result)

    def agree(self, error: Exception | None, value: Any = None) -> list[Any]:
        """Raises what this rank or another failed with -> every rank's value."""
        failure = None if error is None else (type(error) is UnusualArchiveError, _told(error))
        reports = self.gather((failure, value))
        if error is not None:
            raise error
        failed = {rank: failure for rank, (failure, _) in enumerate(reports) if failure is not None}
        if any(is_unusual for is_unusual, _ in failed.values()):
            raise UnusualArchiveError
        for rank, (_, text) in failed.items():
            raise PeerFailedError(f"rank {rank}, which was to read a share of it, has failed: {text}")
        return [value for _, value in reports]


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


class SharedFetch:
    """Rounds of exchanges: in each, every rank gives one block that it has fetched, and gets those of the others.

    Args:
        sharing: The ranks; all of them make one at the same time, of the same ranges.
        queue: As of `Fetch`, and so are the others.
        opened: As above.
        image: As above.
        ranges: As above.
        part_bytes: As above.
        algorithm: As above.
        progress: As above.
    """

    def __init__(
        self,
        sharing: Sharing,
        queue: "RequestQueue",
        opened: Opened,
        image: Image,
        ranges: Iterable[tuple[int, int]],
        *,
        part_bytes: int,
        algorithm: str | None,
        progress: Progress | None,
    ) -> None:
        self._sharing = sharing
        self._image = image
        self._algorithm = algorithm
        self._progress = progress
        self._block_bytes = min(part_bytes, max(_EXCHANGED_BYTES // sharing.size, _MIN_BLOCK_BYTES))
        self._spans = cut(ranges, self._block_bytes)
        self._ends = [end for _, end in self._spans]
        self._total = sum(end - start for start, end in self._spans)
        self._exchanged = 0
        self._is_told = False
        own = self._spans[sharing.rank :: sharing.size]
        self._fetch = Fetch(queue, opened, image, own, part_bytes=self._block_bytes, algorithm=None, progress=None)
        row_bytes = len(_FINE) + self._block_bytes
        self._given = torch.empty(row_bytes, dtype=torch.uint8)
        self._taken = torch.empty(row_bytes * sharing.size, dtype=torch.uint8, device=sharing.device)

    def wait(self, start: int, end: int) -> None:
        at = bisect_right(self._ends, start)
        while at < len(self._spans) and self._spans[at][0] < end:
            while self._exchanged <= at:
                self._exchange(None)
            at += 1

    def finish(self) -> str:
        self.wait(0, self._ends[-1] if self._ends else 0)
        self._agree(None)
        if not self._algorithm:
            return ""
        parts = [(checksum(self._algorithm, self._image.pieces(start, end)), end - start) for start, end in self._spans]
        return combine_checksums(self._algorithm, parts)

    def give_up(self, error: Exception) -> None:
        if self._is_told:
            return
        if self._exchanged < len(self._spans):
            self._exchange(error)
        else:
            self._agree(error)

    def _exchange(self, error: Exception | None) -> None:
        size, header = self._sharing.size, len(_FINE)
        spans = self._spans[self._exchanged : self._exchanged + size]
        own = spans[self._sharing.rank] if self._sharing.rank < len(spans) else None
        if error is None and own is not None:
            try:
                self._fetch.wait(*own)
            except Exception as failure:  # noqa: BLE001 - the others wait to hear of it
                error = failure
        given = self._given
        given[:header] = _tensor_of(memoryview(bytearray(_FINE if error is None else _FAILED)))
        if error is None and own is not None:
            at = header
            for piece in self._image.pieces(*own):
                given[at : at + len(piece)] = _tensor_of(piece)
                at += len(piece)
        given = given.to(self._sharing.device)
        torch.distributed.all_gather_into_tensor(self._taken, given, group=self._sharing.group)
        rows = self._taken.cpu().view(size, -1)
        if rows[:, 0].any():
            self._agree(error)
        for rank, span in enumerate(spans):
            if rank == self._sharing.rank:
                continue
            at = header
            for piece in self._image.pieces(*span):
                _tensor_of(piece).copy_(rows[rank, at : at + len(piece)])
                at += len(piece)
        self._exchanged += len(spans)
        if self._progress is not None:
            self._progress(self._done(), self._total)

    def _agree(self, error: Exception | None) -> None:
        self._is_told = error is not None
        try:
            self._sharing.agree(error)
        except Exception:
            self._is_told = True
            raise

    def _done(self) -> int:
        return sum(end - start for start, end in self._spans[: self._exchanged])


def _tensor_of(memory: memoryview) -> torch.Tensor:
    return torch.frombuffer(memory, dtype=torch.uint8)
