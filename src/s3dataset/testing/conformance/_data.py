"""Bytes for the suite."""

import random

from s3dataset._io import S3Client

__all__ = ["MIB", "make", "write"]

MIB = 1 << 20


def make(size: int, salt: int = 0) -> bytes:
    """Bytes that differ at every offset and for every salt, so that a mix-up shows."""
    return random.Random(size * 31 + salt).randbytes(size)


def write(client: S3Client, bucket: str, key: str, size: int, salt: int = 0) -> bytes:
    """Writes an object and returns its bytes."""
    data = make(size, salt)
    with client.put_object(bucket, key) as writer:
        writer.write(data)
    return data
