"""The environment variables that point this process at a server."""

import os
from collections.abc import Mapping

# Settings of an account that would take precedence over, or mix with, those of a server.
_SHADOWING = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_ENDPOINT_URL_S3",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_CA_BUNDLE",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_USE_DUALSTACK_ENDPOINT",
)

# Servers may end in another order than they began, and each must leave the others' settings alone.
_active: list[tuple[object, dict[str, str | None]]] = []
_original: dict[str, str | None] = {}


def point_at(server: object, variables: Mapping[str, str]) -> None:
    """Sets the variables of a server, and removes those that would keep a library from it."""
    values: dict[str, str | None] = {**dict.fromkeys(_SHADOWING), **variables}
    # A proxy of the machine must not get requests for loopback.
    for name in ("NO_PROXY", "no_proxy"):
        values[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1", "localhost")))
    for name in values:
        _original.setdefault(name, os.environ.get(name))
    _active.append((server, values))
    _set(values)


def point_away(server: object) -> None:
    """Sets what the server started last of those that remain has set, or what was there before the first."""
    mine = [name for other, values in _active if other is server for name in values]
    _active[:] = [(other, values) for other, values in _active if other is not server]
    wanted = dict(_original)
    for _, values in _active:
        wanted.update(values)
    _set({name: wanted[name] for name in mine})
    if not _active:
        _original.clear()


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
