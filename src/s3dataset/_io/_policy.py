"""How far ahead of the reads a reader fetches: plain values, no behaviour."""

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["CHECKPOINT", "DCP_OPTIMIZED", "SEQUENTIAL", "ReaderKind", "ReaderPolicy", "dcp_optimized", "range_based"]

_KIB: Final = 1 << 10
_MIB: Final = 1 << 20

ReaderKind = Literal["sequential", "range_based", "dcp_optimized"]


@dataclass(frozen=True, slots=True)
class ReaderPolicy:
    """Read-ahead of one reader. Frozen and picklable.

    Attributes:
        kind: Which of the three reader classes it makes.
        first_bytes: Fetched at least by the first read of an object, 256 KiB: 3 ms of a connection's 90 MB/s beside the
            25 ms to the first byte, and most images fit.
        seek_bytes: Fetched at least after a seek, 32 KiB: not worth a millisecond, and most headers fit.
        window_bytes: Fetched ahead of a sequential read at most; 0: nothing is. 64 MiB in 16 ranges keep 1 GB/s busy
            at 25 ms.
        direct_bytes: From this size on, what is missing is read into its destination, without a copy.
        keep_bytes: What was read stays so long for a seek back.
        tail_bytes: Fetched beside the first bytes of an object of unknown size, for formats that are known to have
            their directory there: saves one of the three round trips before torch.load reads its first tensor.
        gap_bytes: Expected ranges with smaller gaps are fetched as one.
    """

    kind: ReaderKind
    first_bytes: int = 256 * _KIB
    seek_bytes: int = 32 * _KIB
    window_bytes: int = 64 * _MIB
    direct_bytes: int = 1 * _MIB
    keep_bytes: int = 8 * _MIB
    tail_bytes: int = 0
    gap_bytes: int = 128 * _KIB


SEQUENTIAL: Final = ReaderPolicy("sequential")
CHECKPOINT: Final = ReaderPolicy("sequential", tail_bytes=64 * _KIB)
DCP_OPTIMIZED: Final = ReaderPolicy("dcp_optimized")


def range_based(buffer_bytes: int) -> ReaderPolicy:
    """Fetches `buffer_bytes` where a read misses, or exactly what is read when that is more; nothing ahead."""
    return ReaderPolicy(
        "range_based",
        first_bytes=buffer_bytes,
        seek_bytes=buffer_bytes,
        window_bytes=0,
        direct_bytes=max(buffer_bytes, 64 * _KIB),
        keep_bytes=max(buffer_bytes, 8 * _MIB),
    )


def dcp_optimized(max_gap_bytes: float) -> ReaderPolicy:
    """Like sequential; gaps are bridged up to 128 KiB at most, beyond which a request is cheaper than the bytes."""
    return ReaderPolicy("dcp_optimized", gap_bytes=int(min(max_gap_bytes, DCP_OPTIMIZED.gap_bytes)))
