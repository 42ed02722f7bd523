"""UserAgent: how a client introduces itself, in S3's access logs and CloudTrail."""

import platform

from s3dataset import _native

__all__ = ["UserAgent"]


class UserAgent:
    """The library's name and version, the system's, and what a program adds.

    Args:
        comments: Stand in brackets behind the rest, "name/version" or any words; empty ones are left out.

    Raises:
        ValueError: `comments` is no list.
    """

    def __init__(self, comments: list[str] | None = None) -> None:
        if comments is not None and not isinstance(comments, list):
            raise ValueError(f"Argument comments must be a List[str], not {type(comments).__name__}")
        self._comments = tuple(filter(None, comments or ()))

    @staticmethod
    def get_default_prefix() -> str:
        """What stands in front of the comments."""
        system = platform.system().lower().replace("darwin", "macos")
        return (
            f"s3dataset/{_native.__version__} ua/2.1 os/{system}#{platform.release()} "
            f"lang/python#{platform.python_version()} md/arch#{platform.machine().lower()}"
        )

    @property
    def prefix(self) -> str:
        """The whole of it."""
        comments = "; ".join(self._comments)
        return f"{self.get_default_prefix()} ({comments})" if comments else self.get_default_prefix()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self._comments)!r})"
