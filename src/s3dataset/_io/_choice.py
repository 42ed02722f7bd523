"""S3ReaderConstructor: the reader constructors to choose from."""

import operator
from typing import Final

from s3dataset._io._constructor import SEQUENTIAL_READER, ReaderConstructor, S3ReaderConstructorProtocol
from s3dataset._io._dcp_constructor import DEFAULT_MAX_GAP_BYTES, DCPOptimizedConstructor
from s3dataset._io._policy import range_based

__all__ = ["DEFAULT_BUFFER_BYTES", "S3ReaderConstructor"]

DEFAULT_BUFFER_BYTES: Final = 8 << 20


class S3ReaderConstructor:
    """Chooses the read-ahead of readers: pass what these methods return as `reader_constructor=`.

    Every reader can do everything; the choice is about which bytes are fetched before they are asked for.
    """

    @staticmethod
    def sequential() -> ReaderConstructor:
        """Follows the reads: little after a seek, up to 64 MiB ahead of sequential ones. The default."""
        return SEQUENTIAL_READER

    @staticmethod
    def range_based(buffer_size: int | None = None) -> ReaderConstructor:
        """Fetches one buffer where a read misses, and nothing ahead: for sparse random access.

        Args:
            buffer_size: Bytes; default: 8 MiB. 0: exactly what is read.

        Raises:
            ValueError: `buffer_size` is negative.
            TypeError: It is no integer.
        """
        nbytes = DEFAULT_BUFFER_BYTES if buffer_size is None else operator.index(buffer_size)
        if nbytes < 0:
            raise ValueError(f"buffer_size must be at least 0 (0: no buffer), not {buffer_size}")
        return ReaderConstructor(range_based(nbytes))

    @staticmethod
    def dcp_optimized(max_gap_size: float = DEFAULT_MAX_GAP_BYTES) -> DCPOptimizedConstructor:
        """For torch.distributed.checkpoint, which names the ranges it will read: exactly these are fetched ahead.

        Args:
            max_gap_size: Bytes between two ranges that may be fetched along; more than 128 KiB never are, because a
                further request is cheaper. May be infinite.

        Raises:
            ValueError: `max_gap_size` is negative or not a number.
            TypeError: It is no number.
        """
        return DCPOptimizedConstructor(max_gap_size)

    @staticmethod
    def default() -> ReaderConstructor:
        """What is used when nothing is chosen: `sequential()`."""
        return SEQUENTIAL_READER

    @staticmethod
    def get_reader_type_string(constructor: S3ReaderConstructorProtocol | None) -> str:
        """Gives "sequential", "range_based" or "dcp_optimized"; "unknown" for constructors of one's own."""
        if constructor is None:
            return SEQUENTIAL_READER.policy.kind
        return constructor.policy.kind if isinstance(constructor, ReaderConstructor) else "unknown"
