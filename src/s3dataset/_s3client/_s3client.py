"""Drop-in import path: S3Client."""

from s3dataset._io import S3Client

__all__ = ["S3Client"]
