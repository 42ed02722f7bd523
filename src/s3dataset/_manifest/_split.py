"""Dealing objects to named parts."""

import hashlib
import math
from array import array
from bisect import bisect_right
from collections.abc import Mapping

from s3dataset._manifest._columns import Columns


def dealt(columns: Columns, fractions: Mapping[str, float], seed: int) -> "dict[str, array[int]]":
    """The rows of each part, ascending; see `Manifest.split`.

    Raises:
        ValueError: A share is not between 0 and 1, or they sum to more than 1.
    """
    if not fractions:
        raise ValueError("fractions is empty: name the parts, as {'train': 0.9, 'val': 0.1}")
    bounds: list[float] = []
    total = 0.0
    for name, share in fractions.items():
        if not 0 <= share <= 1:
            raise ValueError(f"the share of {name!r} is {share}; it must be between 0 and 1")
        total += share
        bounds.append(total)
    if total > 1 + 1e-9:
        raise ValueError(f"the shares {dict(fractions)} sum to {total:.6g}, more than 1")
    if math.isclose(total, 1):
        bounds[-1] = 1.0
    limits = [round(bound * 2**64) for bound in bounds]
    parts = [array("Q") for _ in limits]
    salts = [hashlib.blake2b(f"{seed}\0{bucket}\0".encode(), digest_size=8) for bucket in columns.buckets]
    bucket_index = columns.bucket_index if len(salts) > 1 else lambda _: 0
    for row, key in enumerate(columns.keys()):
        digest = salts[bucket_index(row)].copy()
        digest.update(key)
        part = bisect_right(limits, int.from_bytes(digest.digest(), "little"))
        if part < len(parts):
            parts[part].append(row)
    return dict(zip(fractions, parts, strict=True))
