"""Drop-in import path: the version."""

from s3dataset import __version__

__all__ = ["__version__"]
