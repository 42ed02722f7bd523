"""Drop-in import path: S3Writer."""

from s3dataset._io import S3Writer

__all__ = ["S3Writer"]
