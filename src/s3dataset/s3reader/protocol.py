"""Drop-in import path: what reader_constructor= takes, and what that is called with."""

from s3dataset._io import DCPS3ReaderConstructorProtocol, GetStreamCallable, S3ReaderConstructorProtocol

__all__ = ["DCPS3ReaderConstructorProtocol", "GetStreamCallable", "S3ReaderConstructorProtocol"]
