"""An object of torch's on its way into one object of S3: no copy."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from s3dataset._checkpoint._progress import Progress
from s3dataset._checkpoint._skeleton import Skeleton
from s3dataset._client import ObjectInfo
from s3dataset._io import S3Writer

if TYPE_CHECKING:
    from s3dataset._client import Pieces

__all__ = ["save_skeleton", "skeleton_of"]


class _Taker:
    """Cuts pieces of memory, of any lengths, into parts."""

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


def skeleton_of(obj: Any) -> Skeleton | None:
    """torch.save's file of an object; None where this torch, or a tensor in it, cannot be taken apart."""
    if not Skeleton.is_possible():
        return None
    try:
        return Skeleton(obj)
    except RuntimeError as error:
        if "skip_data" not in str(error):
            raise
    except NotImplementedError:
        pass
    return None


def save_skeleton(writer: S3Writer, skeleton: Skeleton, progress: Progress | None) -> ObjectInfo:
    """Sends torch.save's file straight from the storages.

    Raises:
        S3Exception: It was not saved.
    """
    total = skeleton.nbytes
    tell = None if progress is None else lambda done: progress(done, total)
    return writer.save_held(total, _Taker(skeleton.pieces()), tell)
