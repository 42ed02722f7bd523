"""The import path of programs written for s3torchconnector."""

from s3dataset.dcp._file_system import S3FileSystem
from s3dataset.dcp._reader import S3StorageReader
from s3dataset.dcp._writer import S3StorageWriter

__all__ = ["S3FileSystem", "S3StorageReader", "S3StorageWriter"]
