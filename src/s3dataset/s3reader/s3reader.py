"""Drop-in import path: S3Reader."""

from s3dataset._io import S3Reader

__all__ = ["S3Reader"]
