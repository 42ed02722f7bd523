"""Drop-in import path: UserAgent."""

from s3dataset._client import UserAgent

__all__ = ["UserAgent"]
