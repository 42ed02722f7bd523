"""Drop-in import path: SequentialS3Reader."""

from s3dataset._io import SequentialS3Reader

__all__ = ["SequentialS3Reader"]
