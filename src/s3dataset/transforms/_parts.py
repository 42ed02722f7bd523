"""Transforms made of others: of an object, or of the fields of a shard's sample."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from s3dataset.errors import DecodeError
from s3dataset.transforms._decoders import Image, Json, Npy, Text, Torch, is_bytes
from s3dataset.transforms._labels import LabelFromKey

__all__ = ["Decode", "Field", "Fields", "Pair"]

_A_co = TypeVar("_A_co", covariant=True)
_B_co = TypeVar("_B_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a shard's sample, and what to make of it: `Field("jpg;png", Image())`.

    Attributes:
        names: The field's name, or several with ";" between them, of which the first that the sample has counts.
        transform: Any callable that takes the field's value, such as `Image()` or `int`. None: the value as it is.
    """

    names: str
    transform: Callable[[Any], Any] | None = None

    def __call__(self, sample: Mapping[str, Any]) -> Any:
        """Returns what the transform makes of the field.

        Raises:
            DecodeError: The sample has no such field, or it cannot be decoded.
        """
        if not isinstance(sample, Mapping):
            raise TypeError(
                f"{self!r} takes a sample of a shard, not a {type(sample).__name__}: give the dataset a format=, or "
                "use the "
                "transform without Field"
            )
        for name in self.names.split(";"):
            if name in sample:
                return _made(sample, name, self.transform)
        there = ", ".join(repr(name) for name in sample if not name.startswith("__"))
        raise DecodeError(
            f"{_place(sample)} has no field {' or '.join(map(repr, self.names.split(';')))}; it has {there or 'none'}",
            uri=str(sample.get("__url__", "")),
        )


@dataclass(frozen=True, slots=True)
class Pair(Generic[_A_co, _B_co]):
    """A tuple of what two transforms make of the same object or sample, as (image, label).

    Of an object, each begins at its start, and the bytes are fetched once. Of a shard's sample, name the fields:
    `Pair(Field("jpg;png", Image()), Field("cls", int))`.

    Attributes:
        a: Makes the first.
        b: Makes the second.
    """

    a: Callable[[Any], _A_co]
    b: Callable[[Any], _B_co]

    def __call__(self, source: Any) -> tuple[_A_co, _B_co]:
        """Returns (a(source), b(source))."""
        first = self.a(source)
        _rewind(source)
        return first, self.b(source)


class Fields:
    """A dict of what several transforms make of the same object or sample.

    Of an object, as in `Fields(image=Image(), label=LabelFromKey())`, each begins at the object's start, and the bytes
    are fetched once. Of a shard's sample, each gets the field of its own name, as in `Fields(jpg=Image(), cls=int)`;
    those that take a whole sample (`Field`, `LabelFromKey`, `Pair`, `Fields`, `Decode`) get that, so that fields can be
    renamed: `Fields(image=Field("jpg;png", Image()), label=Field("cls", int))`. A part that is no callable stands in
    every sample as it is.
    """

    __slots__ = ("_parts",)

    def __init__(self, **parts: Any) -> None:
        self._parts = parts

    def __repr__(self) -> str:
        return f"Fields({', '.join(f'{name}={part!r}' for name, part in self._parts.items())})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fields):
            return NotImplemented
        return self._parts == other._parts

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return _fields, (self._parts,)

    def __call__(self, source: Any) -> dict[str, Any]:
        """Returns the parts by name, in the order given.

        Raises:
            DecodeError: The sample lacks a field, or one cannot be decoded.
        """
        made: dict[str, Any] = {}
        of_sample = isinstance(source, Mapping)
        for name, part in self._parts.items():
            if not callable(part):
                made[name] = part
            elif of_sample and not isinstance(part, _WHOLE):
                made[name] = Field(name, part)(source)
            else:
                if made:
                    _rewind(source)
                made[name] = part(source)
        return made


def _fields(parts: dict[str, Any]) -> Fields:
    return Fields(**parts)


def _integer(value: Any) -> int:
    return int(bytes(value) if isinstance(value, memoryview) else value)


_IMAGES: Final = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm"})
_BY_SUFFIX: Final[Mapping[str, Callable[[Any], Any]]] = {
    **dict.fromkeys(("json", "jsn"), Json()),
    **dict.fromkeys(("txt", "text"), Text()),
    **dict.fromkeys(("npy", "npz"), Npy()),
    **dict.fromkeys(("pt", "pth"), Torch()),
    **dict.fromkeys(("cls", "cls2", "index"), _integer),
}


class Decode:
    """Decodes every field of a shard's sample by the suffix of its name, as "png" of "seg.png".

    | suffix | becomes |
    |---|---|
    | jpg jpeg png webp gif bmp tif tiff ppm pgm | what `image` makes |
    | json jsn | what the document holds |
    | txt text | str |
    | npy npz | an array, or a dict of arrays |
    | pt pth | what torch.save was given, without code |
    | cls cls2 index | int |

    Other fields, and values that are no bytes, stay as they are.

    Args:
        image: Decodes images; None leaves them as bytes.
        by_suffix: Other transforms for fields by their name, or by its suffix; None leaves them as they are:
            `Decode(jpg=None, **{"mask.png": Image(mode="L")})`.
    """

    __slots__ = ("_by_suffix", "_image")

    def __init__(self, image: Callable[[Any], Any] | None = Image(), **by_suffix: Callable[[Any], Any] | None) -> None:  # noqa: B008 - a frozen value
        self._image = image
        self._by_suffix = by_suffix

    def __repr__(self) -> str:
        parts = [f"image={self._image!r}", *(f"{name}={part!r}" for name, part in self._by_suffix.items())]
        return f"Decode({', '.join(parts)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Decode):
            return NotImplemented
        return (self._image, self._by_suffix) == (other._image, other._by_suffix)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return _decode, (self._image, self._by_suffix)

    def __call__(self, sample: Mapping[str, Any]) -> Any:
        """Returns the sample with its fields decoded; the one given stays as it is.

        Raises:
            DecodeError: A field is not what its suffix says.
        """
        if not isinstance(sample, Mapping):
            raise TypeError(
                f"Decode takes a sample of a shard, not a {type(sample).__name__}: give the dataset a format=, or "
                "use a "
                "transform such as Image()"
            )
        decoded = {
            name: _made(sample, name, self._transform(name)) if is_bytes(value) and not name.startswith("__") else value
            for name, value in sample.items()
        }
        return type(sample)(decoded) if isinstance(sample, dict) else decoded

    def _transform(self, name: str) -> Callable[[Any], Any] | None:
        suffix = name.rpartition(".")[2]
        for chosen in (name, suffix):
            if chosen in self._by_suffix:
                return self._by_suffix[chosen]
        return self._image if suffix in _IMAGES else _BY_SUFFIX.get(suffix)


def _decode(image: Callable[[Any], Any] | None, by_suffix: dict[str, Any]) -> Decode:
    return Decode(image, **by_suffix)


_WHOLE: Final = (Field, Pair, Fields, Decode, LabelFromKey)

# What these raise for bytes is about the bytes; what a transform of the user's raises may be its own fault.
_NUMBERS: Final = (int, float, _integer)


def _made(sample: Mapping[str, Any], name: str, transform: Callable[[Any], Any] | None) -> Any:
    """What the transform makes of a field; its failures tell which field of which sample it was."""
    value = sample[name]
    if transform is None:
        return value
    try:
        return transform(value)
    except DecodeError as error:
        what: Exception = error
    except ValueError as error:
        if not any(transform is known for known in _NUMBERS):
            raise
        what = error
    raise DecodeError(f"{_place(sample)}, field {name!r}: {what}", uri=str(sample.get("__url__", ""))) from what


def _place(sample: Mapping[str, Any]) -> str:
    return f"Sample {sample.get('__key__')!r} of {sample.get('__url__') or 'a shard'}"


def _rewind(source: Any) -> None:
    if hasattr(source, "seek"):
        source.seek(0)
