"""The bytes of synthetic objects, for those who check what they have read."""


def synthetic_bytes(seed: int, start: int, end: int) -> bytes:
    """Bytes [start, end) of a synthetic object, as the server computes them. For small ranges: 1 MB takes 0.2 s."""
    mask = (1 << 64) - 1
    gamma = 0x9E3779B97F4A7C15

    def mix(x: int) -> int:
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    state = mix((seed + gamma) & mask)
    first = start // 8
    words = (mix((state + index * gamma) & mask).to_bytes(8, "little") for index in range(first, (end + 7) // 8))
    return b"".join(words)[start - first * 8 : end - first * 8]
