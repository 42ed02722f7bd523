"""Options that commands share."""

import argparse
from collections.abc import Callable


def add_connection_options(parser: argparse.ArgumentParser) -> None:
    """The options by which a command finds the service."""
    parser.add_argument("--region", help="the bucket's region; found from the environment or the bucket when left out")
    parser.add_argument("--endpoint", metavar="URL", help="another service than Amazon's, as https://host:port")


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """A type of arguments: whole numbers within bounds."""

    def number(text: str) -> int:
        value = int(text)
        if value < least or (most is not None and value > most):
            bounds = f"at least {least}" if most is None else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"must be {bounds}, not {text}")
        return value

    return number
