"""Drop-in import path: S3IterableDataset."""

from s3dataset._datasets import S3IterableDataset

__all__ = ["S3IterableDataset"]
