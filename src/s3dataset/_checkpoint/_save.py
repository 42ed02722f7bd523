"""An object of torch's on its way into one object of S3: no copy."""

from typing import Any

from s3dataset._checkpoint._parts import Cutter
from s3dataset._checkpoint._skeleton import Skeleton
from s3dataset._client import ObjectInfo
from s3dataset._io import S3Writer
from s3dataset._progress import Progress

__all__ = ["save_skeleton", "skeleton_of"]


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
    return writer.save_held(total, Cutter(skeleton.pieces()), tell)
