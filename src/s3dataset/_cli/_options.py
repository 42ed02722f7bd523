"""Options that commands share."""

import argparse
import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

__all__ = ["add_connection_options", "client_of", "connection", "imported", "pattern", "place", "size", "whole_number"]

_UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 1 << 10, "MI": 1 << 20, "GI": 1 << 30}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]?I?)B?", re.IGNORECASE)


def add_connection_options(parser: argparse.ArgumentParser, *, unsigned: bool = True) -> None:
    """The options by which a command finds the service, and who asks."""
    group = parser.add_argument_group("connection")
    group.add_argument("--region", help="the bucket's region; found from the environment or the bucket when left out")
    group.add_argument(
        "--endpoint", type=_endpoint, metavar="URL", help="another service than Amazon's, as https://host:port"
    )
    signing = group.add_mutually_exclusive_group()
    signing.add_argument("--profile", help="whose credentials and settings to use, from ~/.aws; default: AWS_PROFILE")
    if unsigned:
        signing.add_argument("--unsigned", action="store_true", help="use no credentials: for public buckets")


def connection(arguments: argparse.Namespace) -> dict[str, Any]:
    """What these options say, as the keyword arguments of everything public."""
    from s3dataset._config import S3ClientConfig  # noqa: PLC0415 - `--help` need not load it

    return {
        "region": arguments.region,
        "endpoint": arguments.endpoint,
        "s3client_config": S3ClientConfig(
            profile=arguments.profile, unsigned=bool(getattr(arguments, "unsigned", False))
        ),
    }


def client_of(arguments: argparse.Namespace) -> Any:
    """A client by these options, with all that needs no network read, so that it counts in no measured time."""
    from s3dataset._client import Client  # noqa: PLC0415 - likewise

    client = Client(**connection(arguments))
    client.settle()
    return client


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """A type of arguments: whole numbers within bounds."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"write a whole number, not {text!r}") from None
        if value < least or (most is not None and value > most):
            bounds = f"at least {least}" if most is None else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"must be {bounds}, not {text}")
        return value

    return number


def place(text: str) -> str:
    """A type of arguments: a bucket, with or without a prefix."""
    from s3dataset._uri import S3Uri  # noqa: PLC0415 - `--help` need not load it

    return _accepted(S3Uri.parse_prefix, text)


def pattern(text: str) -> str:
    """A type of arguments: a glob on keys."""
    from s3dataset._manifest import Pattern  # noqa: PLC0415 - likewise

    return _accepted(Pattern, text)


def _endpoint(text: str) -> str:
    from s3dataset._client import check_endpoint  # noqa: PLC0415 - likewise

    return _accepted(check_endpoint, text)


def _accepted(check: Callable[[str], object], text: str) -> str:
    """The text, if `check` does not refuse it."""
    from s3dataset.errors import InvalidConfigError, InvalidUriError  # noqa: PLC0415 - likewise

    try:
        check(text)
    except (InvalidConfigError, InvalidUriError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def size(text: str) -> int:
    """A type of arguments: bytes, as 256MB or 256MiB."""
    match = _SIZE.fullmatch(text.strip())
    value = int(float(match[1]) * _UNITS[match[2].upper()]) if match and match[2].upper() in _UNITS else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write it as 256MB or 256MiB")
    return value


def imported(parser: argparse.ArgumentParser, place: str, option: str = "--transform") -> Callable[[Any], Any]:
    """The function that MODULE:NAME names; modules of the current folder count."""
    module, colon, name = place.partition(":")
    if not (module and colon and name):
        parser.error(f"argument {option}: write MODULE:NAME, not {place!r}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        parser.error(f"argument {option}: {error}")
    if not callable(found):
        parser.error(f"argument {option}: {place} is no function")
    return found  # type: ignore[no-any-return]
