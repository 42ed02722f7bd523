"""Drop-in import path: S3LightningCheckpoint."""

from s3dataset.lightning import S3LightningCheckpoint

__all__ = ["S3LightningCheckpoint"]
