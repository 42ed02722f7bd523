"""What lies where below a manager's URI, and which names are foreign. Pure."""

import re
import secrets
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

from s3dataset._uri import S3Uri

__all__ = ["Attempt", "Layout", "check_step"]

_DIGITS: Final = 12
_STEPS: Final = 10**_DIGITS
_COMMIT: Final = re.compile(r"(\d{12})\.json")
_PIN: Final = re.compile(r"(\d{12})\.json")
_MARK: Final = re.compile(r"(\d{12})\.[0-9a-f]+")
_ATTEMPT: Final = re.compile(r"(0|[1-9]\d{0,11})\.([0-9a-f]{8,64})/")


def check_step(step: Any) -> int:
    """The step, if it is one.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is negative, or has more than twelve digits.
    """
    if isinstance(step, bool) or not hasattr(step, "__index__"):
        raise TypeError(f"step must be a whole number, not {type(step).__name__}: {step!r}")
    number = int(step.__index__())
    if not 0 <= number < _STEPS:
        raise ValueError(f"step must be from 0 to {_STEPS - 1:,}, not {number:,}")
    return number


class Attempt(NamedTuple):
    """One try to save a step. Its files are nobody else's; they count once a commit record names the attempt."""

    step: int
    name: str

    @classmethod
    def new(cls, step: int) -> Self:
        return cls(step, secrets.token_hex(8))


@dataclass(frozen=True, slots=True)
class Layout:
    """The keys below a manager's URI.

    Attributes:
        bucket: Name of the bucket.
        root: What all keys begin with: "" or something that ends in a slash.
    """

    bucket: str
    root: str

    @classmethod
    def at(cls, uri: str) -> Self:
        """Reads "s3://bucket" or "s3://bucket/prefix".

        Raises:
            InvalidUriError: It is something else.
        """
        place = S3Uri.parse_prefix(uri)
        root = place.key if not place.key or place.key.endswith("/") else f"{place.key}/"
        return cls(place.bucket, root)

    def __str__(self) -> str:
        return self.uri("")

    def uri(self, key: str) -> str:
        """The URI of a key, or of the root."""
        return str(S3Uri(self.bucket, key or self.root))

    # -- Commit records: the newest lists first ----------------------------------------------------------------------

    @property
    def commits(self) -> str:
        return f"{self.root}commits/"

    def commit(self, step: int) -> str:
        return f"{self.commits}{_STEPS - 1 - step:0{_DIGITS}}.json"

    def step_of_commit(self, key: str) -> int | None:
        found = _COMMIT.fullmatch(key.removeprefix(self.commits))
        return _STEPS - 1 - int(found[1]) if found else None

    # -- Files -------------------------------------------------------------------------------------------------------

    @property
    def data(self) -> str:
        return f"{self.root}data/"

    def files(self, attempt: Attempt) -> str:
        return f"{self.data}{attempt.step}.{attempt.name}/"

    def attempt_of(self, prefix: str) -> Attempt | None:
        """The attempt whose files have this prefix, or that a file belongs to."""
        found = _ATTEMPT.match(prefix.removeprefix(self.data)) if prefix.startswith(self.data) else None
        return Attempt(int(found[1]), found[2]) if found else None

    # -- Pins, and marks of restores ---------------------------------------------------------------------------------

    @property
    def pins(self) -> str:
        return f"{self.root}pins/"

    def pin(self, step: int) -> str:
        return f"{self.pins}{step:0{_DIGITS}}.json"

    def step_of_pin(self, key: str) -> int | None:
        found = _PIN.fullmatch(key.removeprefix(self.pins))
        return int(found[1]) if found else None

    @property
    def restores(self) -> str:
        return f"{self.root}restores/"

    def new_mark(self, step: int) -> str:
        return f"{self.restores}{step:0{_DIGITS}}.{secrets.token_hex(8)}"

    def step_of_mark(self, key: str) -> int | None:
        found = _MARK.fullmatch(key.removeprefix(self.restores))
        return int(found[1]) if found else None
