"""ETags in 18 bytes a row: the MD5 that most are, and the number of parts; anything else is kept as it stands."""

from array import array
from collections.abc import Sequence
from functools import lru_cache
from struct import Struct
from typing import Final

DIGEST_BYTES: Final = 16
NO_ETAG: Final = 0xFFFF
OTHER_ETAG: Final = 0xFFFE
"""The digest's place then holds where the text begins and ends in the column `etag_texts`."""

PLACE: Final = Struct("<QQ")
_HEX_DIGITS: Final = frozenset(b"0123456789abcdef")
_MOST_PARTS: Final = 10_000


def pack_etags(blob: bytes, ends: Sequence[int]) -> "tuple[bytes, array[int], bytes]":
    """ETags without quotes, one behind the other -> digests, numbers of parts (0: no multipart upload), other texts."""
    count = len(ends)
    if len(blob) == 2 * DIGEST_BYTES * count and list(ends) == _plain_ends(count):
        # The usual page: plain MD5s only. Hexadecimal digits in capitals would not come back as they were.
        try:
            digests = bytes.fromhex(blob.decode("ascii"))
        except ValueError:
            pass
        else:
            if len(digests) == DIGEST_BYTES * count and digests.hex().encode() == blob:
                return digests, array("H", bytes(2 * count)), b""
    digests_out = bytearray()
    parts = array("H")
    texts = bytearray()
    start = 0
    for end in ends:
        text = blob[start:end]
        start = end
        known = _split(text)
        if known is not None:
            digests_out += known[0]
            parts.append(known[1])
        elif not text:
            digests_out += bytes(DIGEST_BYTES)
            parts.append(NO_ETAG)
        else:
            digests_out += PLACE.pack(len(texts), len(texts) + len(text))
            parts.append(OTHER_ETAG)
            texts += text
    return bytes(digests_out), parts, bytes(texts)


@lru_cache(maxsize=8)
def _plain_ends(count: int) -> list[int]:
    """The ends of as many MD5s."""
    return [2 * DIGEST_BYTES * (row + 1) for row in range(count)]


def _split(text: bytes) -> tuple[bytes, int] | None:
    """Digest and number of parts, if exactly these make the text."""
    digits, dash, number = text.partition(b"-")
    if len(digits) != 2 * DIGEST_BYTES or not _HEX_DIGITS.issuperset(digits):
        return None
    if not dash:
        return bytes.fromhex(digits.decode()), 0
    if not number.isdigit() or number.startswith(b"0") or len(number) > 5 or int(number) > _MOST_PARTS:
        return None
    return bytes.fromhex(digits.decode()), int(number)
