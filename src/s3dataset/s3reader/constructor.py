"""Drop-in import path: S3ReaderConstructor."""

from s3dataset._io import S3ReaderConstructor

__all__ = ["S3ReaderConstructor"]
