"""Drop-in import path: RangedS3Reader."""

from s3dataset._io import RangedS3Reader

__all__ = ["RangedS3Reader"]
