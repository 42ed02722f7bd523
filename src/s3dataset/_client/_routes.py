"""Where a bucket is reached: botocore's endpoint rules, asked once a bucket and never by a request."""

import functools
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from s3dataset.errors import InvalidConfigError, InvalidUriError

if TYPE_CHECKING:
    from botocore.endpoint_provider import EndpointProvider

    from s3dataset._config import ResolvedConfig

__all__ = ["START_REGION", "Address", "address_of", "check_endpoint", "load_endpoint_rules"]

START_REGION: Final = "us-east-1"
"""Where a bucket is first looked for when nobody named a region: it answers with the right one."""


@dataclass(frozen=True, slots=True)
class Address:
    """A bucket's place, as the engine's `Route` takes it."""

    bucket: str
    scheme: str
    host: str
    port: int | None
    path_prefix: str
    region: str
    service: str


def check_endpoint(url: str) -> None:
    """Raises InvalidConfigError when `url` cannot be an endpoint."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid:
        raise InvalidConfigError(
            f"The endpoint {url!r} (endpoint=, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or the profile's endpoint_url) is "
            "no URL of a server: write 'https://host' or 'http://host:port'"
        )
    if parts.query or parts.fragment:
        raise InvalidConfigError(f"The endpoint {url!r} has a query or fragment: leave out what follows the path")


def address_of(bucket: str, settings: "ResolvedConfig") -> Address:
    """Finds where `bucket` is reached.

    For the service's own hosts the region within `host` is written "{region}", so that a redirect changes the host too.

    Raises:
        InvalidConfigError: The endpoint is no URL, or settings contradict each other.
        InvalidUriError: The rules know no place for such a bucket, or it is of a kind that is not supported yet.
    """
    from botocore.exceptions import EndpointProviderError  # noqa: PLC0415 - botocore takes 0.1 s and more to import

    if settings.endpoint is not None:
        check_endpoint(settings.endpoint)
    region = settings.region or START_REGION
    try:
        found = _rules().resolve_endpoint(**_parameters(bucket, region, settings))
    except EndpointProviderError as error:
        raise InvalidUriError(
            f"Client error: No endpoint for bucket {bucket!r} in region {region!r}: {error}. Check the bucket's name "
            "and the settings for endpoint, addressing style, dual-stack and FIPS",
            uri=f"s3://{bucket}/",
        ) from None
    scheme = _signing_scheme(bucket, found.properties)
    parts = urlsplit(found.url)
    host = parts.netloc.rpartition("@")[2]
    if parts.port is not None:
        host = host.rpartition(":")[0]
    region = scheme.get("signingRegion") or region
    if settings.endpoint is None:
        host = _with_placeholder(host, bucket, region)
    return Address(
        bucket=bucket,
        scheme=parts.scheme,
        host=host,
        port=parts.port,
        path_prefix=parts.path.rstrip("/"),
        region=region,
        service=scheme.get("signingName") or "s3",
    )


def _parameters(bucket: str, region: str, settings: "ResolvedConfig") -> dict[str, Any]:
    parameters: dict[str, Any] = {"Bucket": bucket, "Region": region, "UseGlobalEndpoint": False}
    if settings.endpoint is None:
        return parameters | {
            "UseFIPS": settings.use_fips,
            "UseDualStack": settings.use_dualstack,
            "Accelerate": settings.use_accelerate,
            "ForcePathStyle": settings.addressing_style == "path",
        }
    # As botocore does: other people's servers seldom have a DNS name for each bucket.
    return parameters | {
        "UseFIPS": False,
        "UseDualStack": False,
        "Accelerate": False,
        "ForcePathStyle": settings.addressing_style != "virtual" or _is_address(settings.endpoint),
        "Endpoint": settings.endpoint.rstrip("/"),
    }


def _is_address(endpoint: str) -> bool:
    try:
        ipaddress.ip_address(urlsplit(endpoint).hostname or "")
    except ValueError:
        return False
    return True


def _signing_scheme(bucket: str, properties: dict[str, Any]) -> dict[str, Any]:
    schemes: list[dict[str, Any]] = properties.get("authSchemes") or [{"name": "sigv4"}]
    for scheme in schemes:
        if scheme.get("name") == "sigv4":
            return scheme
    what = {
        "sigv4-s3express": "a directory bucket (S3 Express One Zone)",
        "sigv4a": "a multi-region access point (signed with SigV4A)",
    }.get(schemes[0].get("name", ""), f"signed with {schemes[0].get('name')}")
    raise InvalidUriError(
        f"Client error: {bucket!r} is {what}, which s3dataset does not support yet: use a general purpose bucket",
        uri=f"s3://{bucket}/",
    )


def _with_placeholder(host: str, bucket: str, region: str) -> str:
    # The bucket's own name may contain the region, and stays.
    lead = f"{bucket}." if host.startswith(f"{bucket}.") else ""
    labels = ["{region}" if label == region else label for label in host[len(lead) :].split(".")]
    return lead + ".".join(labels)


def load_endpoint_rules() -> None:
    """Reads botocore's rules, which takes 35 ms, unless this process, or the one it was forked from, has them."""
    _rules()


@functools.cache
def _rules() -> "EndpointProvider":
    from botocore.endpoint_provider import EndpointProvider  # noqa: PLC0415
    from botocore.loaders import create_loader  # noqa: PLC0415

    loader = create_loader()
    return EndpointProvider(
        ruleset_data=loader.load_service_model("s3", "endpoint-rule-set-1"),
        partition_data=loader.load_data("partitions"),
    )
