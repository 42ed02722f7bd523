"""Drop-in import path: the readers."""

from s3dataset._io import (
    DCPOptimizedS3Reader,
    GetStreamCallable,
    RangedS3Reader,
    S3Reader,
    S3ReaderConstructor,
    S3ReaderConstructorProtocol,
    SequentialS3Reader,
)

__all__ = [
    "DCPOptimizedS3Reader",
    "GetStreamCallable",
    "RangedS3Reader",
    "S3Reader",
    "S3ReaderConstructor",
    "S3ReaderConstructorProtocol",
    "SequentialS3Reader",
]
