"""All checks in their order."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from s3dataset._client import Client
from s3dataset._config import S3ClientConfig
from s3dataset._doctor._check import Check, first_line
from s3dataset._doctor._identity import Asked, find_address, find_credentials, find_settings, find_who
from s3dataset._doctor._machine import look_at_machine, look_at_versions
from s3dataset._doctor._network import look_at_network
from s3dataset._doctor._place import look_at_place
from s3dataset._uri import S3Uri
from s3dataset.errors import S3Exception

__all__ = ["examine"]

_PATIENCE_S: Final = 15.0


def examine(
    place: S3Uri | None, *, region: str | None, endpoint: str | None, s3client_config: S3ClientConfig, write: bool
) -> Iterator[Check]:
    """Looks at machine, identity, network and place.

    Args:
        place: Bucket and prefix; None: whatever needs one is left out.
        region: As everywhere.
        endpoint: As everywhere.
        s3client_config: As everywhere.
        write: Whether to write, and delete, an object under a new name below the place.

    Yields:
        One check after the other. Nothing is raised for what is wrong with the world.
    """
    yield from look_at_versions()
    yield from look_at_machine()
    asked = Asked(region, endpoint, s3client_config)
    settings, checks = find_settings(asked)
    yield from checks
    if settings is None:
        return
    keys, checks = find_credentials(asked, settings)
    yield from checks
    if keys is not None and settings.endpoint is None:
        yield from find_who(asked, keys)
    address, checks = find_address(settings, None if place is None else place.bucket)
    yield from checks
    if address is not None:
        yield from look_at_network(address, settings)
    if place is None:
        yield Check(
            "place",
            "bucket",
            "info",
            "none was named",
            "s3dataset doctor s3://BUCKET/PREFIX/ tries what may be done there",
        )
        return
    why = "there is nothing to sign with" if keys is None and not settings.unsigned else ""
    if address is None or why:
        yield Check("place", "permissions", "info", f"{place} was not asked: {why or 'it has no address'}")
        return
    try:
        client = Client(region, endpoint=endpoint, s3client_config=_impatient(s3client_config))
        yield from look_at_place(client, place, write=write)
    except S3Exception as error:
        yield Check("place", "client", "fail", first_line(error))


def _impatient(config: S3ClientConfig) -> S3ClientConfig:
    """So that what does not answer is told soon: a job would try for minutes."""
    return replace(
        config,
        max_attempts=min(config.max_attempts, 3),
        retry_max_elapsed_s=min(config.retry_max_elapsed_s, _PATIENCE_S),
        first_byte_timeout_s=config.first_byte_timeout_s or _PATIENCE_S / 3,
    )
