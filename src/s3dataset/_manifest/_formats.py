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
