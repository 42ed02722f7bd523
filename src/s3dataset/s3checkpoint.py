"""Drop-in import path: S3Checkpoint."""

from s3dataset._checkpoint import S3Checkpoint

__all__ = ["S3Checkpoint"]
