"""Drop-in import path: S3ReaderConstructor."""

from s3dataset._io import DCPOptimizedConstructor, S3ReaderConstructor

__all__ = ["DCPOptimizedConstructor", "S3ReaderConstructor"]
