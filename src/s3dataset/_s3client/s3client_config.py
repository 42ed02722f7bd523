"""Drop-in import path: S3ClientConfig."""

from s3dataset._config import S3ClientConfig

__all__ = ["S3ClientConfig"]
