"""Seeds of what is random about a single sample."""

from hashlib import blake2b


def sample_seed(seed: int, epoch: int, sample_id: int | str) -> int:
    """Returns 64 bits that belong to (seed, epoch, sample), independent of one another.

    The same in every process, on every platform and in every release, so that what is drawn from it for a sample does
    not depend on who made the sample, nor when.

    Args:
        seed: Any integer.
        epoch: Any integer.
        sample_id: What names the sample: its number in the manifest, or its URI or key. A number and its digits as text
            are different ids.
    """
    kind = "n" if isinstance(sample_id, int) else "s"
    name = f"{seed},{epoch},{kind},{sample_id}".encode("utf-8", "surrogateescape")
    return int.from_bytes(blake2b(name, digest_size=8, person=b"s3dataset.sample").digest(), "little")
