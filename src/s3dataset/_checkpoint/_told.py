"""Errors of torch, which knows no URI, told with it."""

import pickle
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from s3dataset._uri import S3Uri
from s3dataset.errors import DecodeError

__all__ = ["naming", "reading_foreign"]

_NONSENSE: Final = (EOFError, LookupError, OverflowError, UnicodeError, struct.error)
"""What an unpickler raises of bytes that are no pickle, beside its own UnpicklingError."""


@contextmanager
def naming(uri: S3Uri, *, weights_only: bool) -> Iterator[None]:
    """Notes the URI on errors that do not tell it."""
    try:
        yield
    except Exception as error:
        if str(uri) not in str(error):
            error.add_note(f"This happened while {uri} was loaded.")
        if weights_only and isinstance(error, pickle.UnpicklingError):
            error.add_note("If you trust the file, give weights_only=False to the call that loads it from S3.")
        raise


@contextmanager
def reading_foreign(uri: S3Uri, beginning: bytes) -> Iterator[None]:
    """Tells what is no file of torch.save from one that torch refuses.

    Args:
        uri: The file.
        beginning: Its first 9 bytes.

    Raises:
        DecodeError: The bytes are no pickle.
    """
    if beginning[8:] == b"{" and beginning[4:8] == bytes(4):
        # torch would advise to trust it, and to run what is in it.
        raise DecodeError(
            f"{uri} is no file of torch.save but one of safetensors: s3dataset.safetensors.load_file loads it",
            uri=str(uri),
        )
    try:
        yield
    except _NONSENSE as error:
        raise DecodeError(
            f"{uri} is no file of torch.save, or a damaged one ({error!r}). Files of safetensors are "
            "loaded by s3dataset.safetensors.load_file",
            uri=str(uri),
        ) from error
