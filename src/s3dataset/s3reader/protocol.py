"""Drop-in import path: what reader_constructor= takes, and what that is called with."""

from s3dataset._io import GetStreamCallable, S3ReaderConstructorProtocol

__all__ = ["GetStreamCallable", "S3ReaderConstructorProtocol"]
