"""A seeded permutation of range(n) that is stored: for orders whose elements are all asked for."""

import sys
from array import array
from collections.abc import Sequence
from hashlib import shake_128
from typing import Final

from s3dataset._order._permutation import Permutation, round_keys

_PIECE: Final = 1 << 16
_LARGEST_STORED: Final = 1 << 16


def stored_shuffle(n: int, *labels: int | str) -> "array[int]":
    """Returns range(n) in the order that belongs to the labels, the same on every platform and in every release.

    About 0.2 microseconds an element, a tenth of what `Permutation` takes, for 2, 4 or 8 bytes an element.

    Source: R. Durstenfeld, "Algorithm 235: Random permutation", CACM 1964, with 64 bits of SHAKE128 (FIPS 202) for each
    choice, whose remainder prefers no element by more than n / 2^64.
    """
    order = list(range(n))
    left = n
    name = ",".join(map(str, labels)).encode()
    for piece in range(-(-n // _PIECE)):
        draws = array("Q")
        draws.frombytes(shake_128(b"s3dataset.order:%d:%b" % (piece, name)).digest(8 * min(_PIECE, left)))
        if sys.byteorder == "big":
            draws.byteswap()
        for draw in draws:
            chosen = draw % left
            left -= 1
            order[left], order[chosen] = order[chosen], order[left]
    return array("H" if n <= 1 << 16 else "I" if n <= 1 << 32 else "Q", order)


def shuffled(n: int, *labels: int | str) -> Sequence[int]:
    """Returns the same kind of order, stored up to 65,536 elements and computed element by element beyond."""
    if n <= _LARGEST_STORED:
        return stored_shuffle(n, *labels)
    return Permutation(n, seed=round_keys(1, *labels)[0])
