"""Checkpoints as single objects."""

from s3dataset._checkpoint._single import S3Checkpoint

__all__ = ["S3Checkpoint"]
