"""A seeded permutation of range(n) that is computed, not stored."""

from collections.abc import Sequence
from hashlib import blake2b
from math import isqrt
from typing import Final, overload

_MASK: Final = (1 << 64) - 1
_ODD_1: Final = 0xBF58476D1CE4E5B9
_ODD_2: Final = 0x94D049BB133111EB

_SMALL_DOMAIN: Final = 4096
_ROUNDS: Final = 6
_ROUNDS_OF_SMALL_DOMAIN: Final = 16


def round_keys(count: int, *labels: int | str) -> tuple[int, ...]:
    """Derives `count` independent 64-bit keys from integers of any size and names, the same on every platform."""
    text = ",".join(str(label) for label in labels)
    return tuple(
        int.from_bytes(
            blake2b(
                text.encode(), digest_size=8, salt=number.to_bytes(2, "little"), person=b"s3dataset.order"
            ).digest(),
            "little",
        )
        for number in range(count)
    )


class Permutation(Sequence[int]):
    """The permutation of range(n) that belongs to (seed, epoch): `p[i]` is what stands at place i.

    Takes constant memory and constant time an element, whatever n, so a shuffled epoch of ten billion samples costs
    what one of ten does. Immutable, hashable by value, picklable; equal arguments give equal permutations on every
    platform and in every release.

    A generalised Feistel network over Z_a x Z_b with a * b >= n and both about sqrt(n); positions that fall outside
    range(n) walk the cycle until they are inside, which happens to fewer than 2 in sqrt(n). Domains under 4,096 get 16
    rounds instead of 6, as few halves mean few distinct round functions.

    Source: J. Black and P. Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002 (generalised Feistel, cycle
        walking). The
    round function is two multiply-xorshift steps with the multipliers of SplitMix64 (G. Steele, D. Lea, C. Flood,
    OOPSLA 2014), keyed by BLAKE2b.
    """

    __slots__ = ("_a", "_b", "_epoch", "_keys", "_n", "_seed")

    def __init__(self, n: int, *, seed: int, epoch: int = 0) -> None:
        """Makes the permutation.

        Args:
            n: How many elements; 0 is fine.
            seed: Any integer.
            epoch: Any integer; each epoch is an order of its own.

        Raises:
            ValueError: n is negative.
        """
        if n < 0:
            raise ValueError(f"a permutation needs n >= 0, got {n}")
        self._n, self._seed, self._epoch = n, seed, epoch
        self._a = max(2 if n > 2 else 1, isqrt(n))  # with a = 1 three elements could only rotate
        self._b = -(-n // self._a)
        rounds = _ROUNDS if n >= _SMALL_DOMAIN else _ROUNDS_OF_SMALL_DOMAIN
        self._keys = round_keys(rounds, seed, epoch, n)

    def __len__(self) -> int:
        return self._n

    def __repr__(self) -> str:
        return f"Permutation({self._n}, seed={self._seed}, epoch={self._epoch})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Permutation):
            return NotImplemented
        return (self._n, self._seed, self._epoch) == (other._n, other._seed, other._epoch)

    def __hash__(self) -> int:
        return hash((self._n, self._seed, self._epoch))

    def __reduce__(self) -> tuple[object, tuple[int, int, int]]:
        return _rebuild, (self._n, self._seed, self._epoch)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        if isinstance(index, slice):
            return self.take(range(self._n)[index])
        return self.take((range(self._n)[index],))[0]

    def take(self, places: Sequence[int]) -> list[int]:
        """Returns what stands at `places`, which must lie in range(n); about 2 microseconds each."""
        n, a, b, keys = self._n, self._a, self._b, self._keys
        taken = []
        for place in places:
            x = place
            while True:
                left, right = divmod(x, b)
                side = True
                for key in keys:
                    z = (((right if side else left) ^ key) * _ODD_1) & _MASK
                    # The upper bits are mixed best, and 48 of them leave no bias to see behind the remainder below.
                    z = (((z ^ (z >> 32)) * _ODD_2) & _MASK) >> 16
                    if side:
                        left = (left + z) % a
                    else:
                        right = (right + z) % b
                    side = not side
                x = left * b + right
                if x < n:
                    break
            taken.append(x)
        return taken


def _rebuild(n: int, seed: int, epoch: int) -> Permutation:
    return Permutation(n, seed=seed, epoch=epoch)
