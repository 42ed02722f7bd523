"""Formats by name, and what an index keeps of the format that it was made with."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final, overload

from s3dataset.formats._csv import CSV
from s3dataset.formats._format import Format
from s3dataset.formats._lines import JSONL, Text
from s3dataset.formats._npy import Npy
from s3dataset.formats._parquet import Parquet
from s3dataset.formats._tar import Tar
from s3dataset.formats._tfrecord import TFRecord

__all__ = ["describe", "format_of_key", "from_description", "named_format"]

_FORMATS: Final[dict[str, type[Any]]] = {kind.name: kind for kind in (Tar, TFRecord, JSONL, Text, CSV, Parquet, Npy)}


@overload
def named_format(spec: str | Format) -> Format: ...
@overload
def named_format(spec: None) -> None: ...
def named_format(spec: str | Format | None) -> Format | None:
    """The format that `format=` names: "tar", or a format such as `Tar()`, or None.

    Raises:
        ValueError: There is no such format.
    """
    if spec is None or not isinstance(spec, str):
        if spec is None or isinstance(spec, Format):
            return spec
        raise ValueError(f"format={spec!r} is no format: give the name of one, or a value such as formats.Tar()")
    kind = _FORMATS.get(spec)
    if kind is None:
        close = get_close_matches(spec.lower().lstrip("."), _FORMATS, n=2)
        hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
        raise ValueError(f"format={spec!r} is unknown: {hint}There are {', '.join(map(repr, _FORMATS))}")
    made: Format = kind()
    return made


def describe(format: Format) -> dict[str, Any]:  # noqa: A002 - the name that users write
    """What influences where a format finds samples, as JSON can hold it; equal for formats whose index is the same.

    Arguments that only say how a sample is decoded, or what counts as too large, are not in it.
    """
    options = getattr(format, "_boundaries", None)
    return {"name": format.name, **(options() if options is not None else {})}


def from_description(description: Mapping[str, Any]) -> Format:
    """The format that `describe` described, with defaults for what is not in it.

    Raises:
        ValueError: It describes no format known here.
    """
    options = dict(description)
    kind = _FORMATS.get(str(options.pop("name", None)))
    if kind is None:
        raise ValueError(
            f"the index was made with the format {description.get('name')!r}, which this version of s3dataset does not "
            f"know; it knows {', '.join(map(repr, _FORMATS))}"
        )
    made: Format = kind(**options)
    return made


def format_of_key(key: str) -> Format | None:
    """The format whose shards are named so, compressed or not; None where the name tells none."""
    plain = key.removesuffix(".gz").removesuffix(".zst")
    for kind in _FORMATS.values():
        if plain.endswith(kind.suffix):
            made: Format = kind()
            return made
    return None
