"""Drop-in import path: S3MapDataset."""

from s3dataset._datasets import S3MapDataset

__all__ = ["S3MapDataset"]
