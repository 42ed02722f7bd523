"""S3's checksums, bit by bit: slow, and independent of every library."""

import hashlib
import zlib
from collections.abc import Callable


def _crc(data: bytes, polynomial: int, width: int) -> bytes:
    """A reflected CRC with all bits set before and inverted after."""
    mask = (1 << width) - 1
    crc = mask
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (polynomial if crc & 1 else 0)
    return (crc ^ mask).to_bytes(width // 8, "big")


CHECKSUMS: dict[str, Callable[[bytes], bytes]] = {
    "CRC32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "CRC32C": lambda data: _crc(data, 0x82F63B78, 32),
    "CRC64NVME": lambda data: _crc(data, 0x9A6C9329AC4BC9B5, 64),
    "SHA1": lambda data: hashlib.sha1(data).digest(),
    "SHA256": lambda data: hashlib.sha256(data).digest(),
}
