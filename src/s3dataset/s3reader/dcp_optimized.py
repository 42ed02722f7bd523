"""Drop-in import path: DCPOptimizedS3Reader."""

from s3dataset._io import DCPOptimizedS3Reader, ItemRange

__all__ = ["DCPOptimizedS3Reader", "ItemRange"]
