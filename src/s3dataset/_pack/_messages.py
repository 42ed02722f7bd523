"""Pickles over pipes, between the process that packs and its workers."""

import pickle
import struct
from typing import Any, BinaryIO, Final

__all__ = ["receive", "send"]

_LENGTH: Final = struct.Struct("<Q")


def send(stream: BinaryIO, message: Any) -> None:
    """Writes one message; bytes go as they are pickled already."""
    data = message if isinstance(message, bytes) else pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    """Reads one message.

    Raises:
        EOFError: There are no more.
    """
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return pickle.loads(data)  # noqa: S301 - from our own process
