"""How far a transfer is; see `s3dataset._progress`, which loads no torch."""

from s3dataset._progress import Progress, showing

__all__ = ["Progress", "showing"]
