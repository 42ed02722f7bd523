"""Formats as a manifest's header tells them."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from s3dataset.formats import Format

KNOWN: Final[dict[str, Any]] = {}


def describe(format: Format) -> dict[str, Any]:  # noqa: A002
    """What JSON holds of a format."""
    return {"name": format.name, **dataclasses.asdict(format)}  # type: ignore[call-overload]


def restore(description: Mapping[str, Any]) -> Format:
    """The format of a description."""
    arguments = {name: value for name, value in description.items() if name != "name"}
    found: Format = KNOWN[description["name"]](**arguments)
    return found


def resolve(format: str | Format) -> Format:  # noqa: A002
    """A format by its name, or as it is."""
    if not isinstance(format, str):
        return format
    named: Format = KNOWN[format]()
    return named


def format_of_key(key: str) -> Format | None:
    """The format whose shards are named so, compressed or not."""
    for suffix in (".gz", ".zst"):
        key = key.removesuffix(suffix)
    for kind in KNOWN.values():
        if key.endswith(kind.suffix):
            return resolve(kind.name)
    return None
