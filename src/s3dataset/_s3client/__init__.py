"""Drop-in import path: S3Client and its configuration."""

from s3dataset._config import S3ClientConfig
from s3dataset._io import S3Client

__all__ = ["S3Client", "S3ClientConfig"]
