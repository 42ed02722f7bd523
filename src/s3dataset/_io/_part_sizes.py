"""How large part n of an upload is. Pure arithmetic.

Source: Amazon S3 multipart upload limits (5 MiB to 5 GiB a part but the last, 10,000 parts, 50 TB an object).
"""

from typing import Final

from s3dataset._warnings import warn_caller
from s3dataset.errors import InvalidConfigError

__all__ = ["MAX_PARTS", "PartSizes"]

MAX_PARTS: Final = 10_000

_MIB: Final = 1 << 20
_MIN_BYTES: Final = 5 * _MIB
_MAX_BYTES: Final = 5 << 30
_GROWN_BYTES: Final = 1 << 30
_CONSTANT_PARTS: Final = 1_000
_STEP_PARTS: Final = 500


class PartSizes:
    """Sizes of the parts of one upload.

    With a known total all parts are alike and large enough for 10,000 of them to hold it. Without one they are constant
    up to part 1,000, as some stores want them, and then double every 500 parts up to 1 GiB, so that 5 TB fit.

    Args:
        part_bytes: The configured size.
        total_bytes: Bytes of the whole object where known.

    Raises:
        InvalidConfigError: A part of the configured size, or an object of this total, is more than S3 takes.
    """

    def __init__(self, part_bytes: int, total_bytes: int | None = None) -> None:
        if part_bytes > _MAX_BYTES:
            raise InvalidConfigError(
                f"part_size is {part_bytes:,} bytes, and S3 takes parts of {_MAX_BYTES:,} (5 GiB) at most: lower it"
            )
        self._configured_bytes = part_bytes
        self._first_bytes = max(part_bytes, _MIN_BYTES)
        self._grows = total_bytes is None
        if total_bytes is not None:
            needed = -(-total_bytes // MAX_PARTS)
            if needed > self._first_bytes:
                self._first_bytes = -(-needed // _MIB) * _MIB
            if self._first_bytes > _MAX_BYTES:
                raise InvalidConfigError(
                    f"an object of {total_bytes:,} bytes does not fit into {MAX_PARTS:,} parts of {_MAX_BYTES:,} bytes"
                )

    @property
    def first(self) -> int:
        """Bytes of part 1: an object that fits is not uploaded in parts at all."""
        return self._first_bytes

    def of(self, part_number: int) -> int:
        """Bytes of this part, counted from 1."""
        size = self._first_bytes
        if not self._grows or part_number <= _CONSTANT_PARTS or size >= _GROWN_BYTES:
            return size
        steps = (part_number - _CONSTANT_PARTS - 1) // _STEP_PARTS + 1
        # 5 MiB reach 1 GiB in 8 steps.
        return min(size << min(steps, 8), _GROWN_BYTES)

    def warn_if_raised(self) -> None:
        """To be called when parts are really used: programs set tiny sizes for downloads alone."""
        if self._configured_bytes < _MIN_BYTES:
            warn_caller(
                f"part_size is {self._configured_bytes:,} bytes, and S3 takes no parts under {_MIN_BYTES:,} (5 MiB): "
                "uploading in parts of 5 MiB",
            )
