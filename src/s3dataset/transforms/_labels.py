"""Labels that a key tells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from s3dataset.errors import DecodeError
from s3dataset.transforms._decoders import Readable

__all__ = ["LabelFromKey"]


@dataclass(frozen=True, slots=True)
class LabelFromKey:
    """A label that is a part of the object's key, as in "images/cat/0001.jpg". The object itself is not read.

    Attributes:
        level: Which part of the key, cut at "/": -2 is the folder of the object, -1 its name, 0 the first.
        classes: The labels in the order of their numbers, or numbers by label; the transform then returns the number.
            None: the label's text.
    """

    level: int = -2
    classes: Sequence[str] | Mapping[str, int] | None = None
    _numbers: Mapping[str, int] | None = None

    def __init__(self, level: int = -2, classes: Sequence[str] | Mapping[str, int] | None = None) -> None:
        """Sees to it that the classes are distinct.

        Raises:
            ValueError: A class is named twice.
        """
        if classes is not None and not isinstance(classes, Mapping):
            classes = tuple(classes)
            numbers: Mapping[str, int] | None = {label: number for number, label in enumerate(classes)}
            if numbers is not None and len(numbers) != len(classes):
                twice = sorted({label for label in classes if classes.count(label) > 1})
                raise ValueError(f"LabelFromKey(classes=) names {', '.join(map(repr, twice))} more than once")
        else:
            numbers = classes
        object.__setattr__(self, "level", level)
        object.__setattr__(self, "classes", classes)
        object.__setattr__(self, "_numbers", numbers)

    def __repr__(self) -> str:
        return f"LabelFromKey(level={self.level}, classes={self.classes!r})"

    def __call__(self, source: Readable | Mapping[str, Any]) -> int | str:
        """Returns the number of the label, or its text where no classes were given.

        Raises:
            DecodeError: The key has too few parts, or the label is none of the classes.
        """
        key, uri = _place(source)
        parts = key.split("/")
        try:
            label = parts[self.level]
        except IndexError:
            raise DecodeError(
                f"{self._short()} finds no label in {uri or key}: the key has {len(parts)} part(s) between slashes; "
                "choose another level=",
                uri=uri,
            ) from None
        if self._numbers is None:
            return label
        number = self._numbers.get(label)
        if number is None:
            close = get_close_matches(label, self._numbers, n=3)
            hint = f"; close to {', '.join(map(repr, close))}" if close else ""
            raise DecodeError(
                f"{self._short()} finds the label {label!r} in {uri}, which is none of the "
                f"{len(self._numbers)} classes{hint}",
                uri=uri,
            )
        return number

    def _short(self) -> str:
        return f"LabelFromKey(level={self.level})"


def _place(source: Readable | Mapping[str, Any]) -> tuple[str, str]:
    """The key, and what to call it in a message."""
    if isinstance(source, Mapping):
        key = str(source["__key__"])
        return key, f"{key!r} of {source.get('__url__') or 'a shard'}"
    return source.key, f"s3://{source.bucket}/{source.key}"
