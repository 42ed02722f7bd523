"""Drop-in import path: what reader_constructor= takes."""

from s3dataset._io import S3ReaderConstructorProtocol

__all__ = ["S3ReaderConstructorProtocol"]
