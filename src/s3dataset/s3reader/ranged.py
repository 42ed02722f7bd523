"""Drop-in import path: RangedS3Reader."""

from s3dataset._io import DEFAULT_BUFFER_BYTES as DEFAULT_BUFFER_SIZE
from s3dataset._io import RangedS3Reader

__all__ = ["DEFAULT_BUFFER_SIZE", "RangedS3Reader"]
