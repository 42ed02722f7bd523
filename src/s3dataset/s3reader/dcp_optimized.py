"""Drop-in import path: DCPOptimizedS3Reader."""

from s3dataset._io import DEFAULT_MAX_GAP_BYTES as DEFAULT_MAX_GAP_SIZE
from s3dataset._io import DCPOptimizedS3Reader, ItemRange

__all__ = ["DEFAULT_MAX_GAP_SIZE", "DCPOptimizedS3Reader", "ItemRange"]
