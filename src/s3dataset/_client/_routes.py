"""Where a bucket is reached: botocore's endpoint rules, asked once a bucket and never by a request."""

import functools
import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from s3dataset._uri import is_arn, is_directory_bucket
from s3dataset.errors import InvalidConfigError, InvalidUriError, S3Exception

if TYPE_CHECKING:
    from botocore.endpoint_provider import EndpointProvider
    from botocore.loaders import Loader

    from s3dataset._config import ResolvedConfig

__all__ = ["START_REGION", "Address", "address_of", "check_endpoint", "load_endpoint_rules"]

START_REGION: Final = "us-east-1"
"""Where a bucket is first looked for when nobody named a region: it answers with the right one."""


@dataclass(frozen=True, slots=True)
class Address:
    """A bucket's place, as the engine's `Route` takes it.

    Attributes:
        has_sessions: Whether requests are signed with the keys of a session, which the engine makes.
    """

    bucket: str
    scheme: str
    host: str
    port: int | None
    path_prefix: str
    region: str
    service: str
    has_sessions: bool = False


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

    For the service's own hosts the region within `host` is written "{region}", so that a redirect changes the host too;
    not so where the name tells the region for good: ARNs and directory buckets.

    Raises:
        InvalidConfigError: The endpoint is no URL, or settings contradict each other, or the kind of bucket.
        InvalidUriError: The rules know no place for such a bucket, or it is of a kind that is not supported.
    """
    from botocore.exceptions import EndpointProviderError  # noqa: PLC0415 - botocore takes 0.1 s and more to import

    _refuse(bucket)
    region = settings.region or START_REGION
    if settings.endpoint is not None:
        check_endpoint(settings.endpoint)
        if is_arn(bucket) and _is_address(settings.endpoint):
            raise InvalidConfigError(
                f"The access point {bucket!r} is reached under a host name of its own, which {settings.endpoint!r} "
                "cannot have: use an endpoint with a name, or the bucket's name"
            )
    elif is_directory_bucket(bucket):
        region = _region_of_zone(bucket) or region
    try:
        found = _rules().resolve_endpoint(**_parameters(bucket, region, settings))
    except EndpointProviderError as error:
        raise _explained(bucket, region, str(error)) from None
    scheme = _signing_scheme(bucket, found.properties)
    parts = urlsplit(found.url)
    host = parts.netloc.rpartition("@")[2]
    if parts.port is not None:
        host = host.rpartition(":")[0]
    region = scheme.get("signingRegion") or region
    service = scheme.get("signingName") or "s3"
    if settings.endpoint is None and service == "s3" and not is_arn(bucket):
        host = _with_placeholder(host, bucket, region)
    address = Address(
        bucket=bucket,
        scheme=parts.scheme,
        host=host,
        port=parts.port,
        path_prefix=parts.path.rstrip("/"),
        region=region,
        service=service,
        has_sessions=scheme["name"] == _SESSION_SCHEME,
    )
    _check(address, settings)
    return address


_SESSION_SCHEME: Final = "sigv4-s3express"


def _parameters(bucket: str, region: str, settings: "ResolvedConfig") -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "Bucket": bucket,
        "Region": region,
        "UseGlobalEndpoint": False,
        "UseArnRegion": settings.use_arn_region,
        "DisableS3ExpressSessionAuth": not settings.use_express_sessions,
    }
    # Access points have no path style, whatever is set for buckets.
    path_style = settings.addressing_style == "path" and not is_arn(bucket)
    if settings.endpoint is None:
        return parameters | {
            "UseFIPS": settings.use_fips,
            "UseDualStack": settings.use_dualstack,
            "Accelerate": settings.use_accelerate,
            "ForcePathStyle": path_style,
        }
    # As botocore does: other people's servers seldom have a DNS name for each bucket.
    by_path = settings.addressing_style != "virtual" or _is_address(settings.endpoint)
    return parameters | {
        "UseFIPS": False,
        "UseDualStack": False,
        "Accelerate": False,
        "ForcePathStyle": by_path and not is_arn(bucket),
        "Endpoint": settings.endpoint.rstrip("/"),
    }


def _is_address(endpoint: str) -> bool:
    try:
        ipaddress.ip_address(urlsplit(endpoint).hostname or "")
    except ValueError:
        return False
    return True


_MULTI_REGION: Final = "a multi-Region access point, which wants signatures of version 4A"
_REGIONAL: Final = "use the bucket in the region where this job runs, by its name or an access point of its own"
_LAMBDA: Final = "read the bucket, or the access point behind it, and transform here: transform=..."


def _refuse(bucket: str) -> None:
    """Refuses names that the rules take for a bucket's."""
    if bucket.endswith(".mrap"):
        raise _unsupported(bucket, _MULTI_REGION, _REGIONAL)
    if bucket.endswith("--ol-s3"):
        raise _unsupported(bucket, "the alias of an Object Lambda access point", _LAMBDA)


def _signing_scheme(bucket: str, properties: dict[str, Any]) -> dict[str, Any]:
    schemes: list[dict[str, Any]] = properties.get("authSchemes") or [{"name": "sigv4"}]
    scheme = next((scheme for scheme in schemes if scheme.get("name") in ("sigv4", _SESSION_SCHEME)), None)
    if scheme is None:
        raise _unsupported(bucket, _MULTI_REGION, _REGIONAL)
    if scheme.get("signingName") == "s3-object-lambda":
        raise _unsupported(bucket, "an Object Lambda access point, whose answers fit no listing and no range", _LAMBDA)
    return scheme


def _unsupported(bucket: str, what: str, instead: str) -> InvalidUriError:
    return InvalidUriError(
        f"Client error: {bucket!r} is {what}; s3dataset does not support that. Instead, {instead}",
        uri=f"s3://{bucket}/",
    )


def _explained(bucket: str, region: str, says: str) -> S3Exception:
    """What the rules say, as an error of the name or of the settings."""
    about_the_name = ("invalid arn", "invalid access point", "unrecognized", "s3express bucket name", "expected a")
    said = says.removeprefix("Endpoint Provider Error: ")
    begin = f"Client error: No endpoint for bucket {bucket!r} in region {region!r}: {said}"
    if said.lower().startswith(about_the_name):
        return InvalidUriError(f"{begin.rstrip('.')}. Check the bucket's name", uri=f"s3://{bucket}/")
    return InvalidConfigError(
        f"{begin.rstrip('.')}. Check region and endpoint, addressing style, and dual-stack, FIPS and acceleration in "
        "environment and profile"
    )


def _check(address: Address, settings: "ResolvedConfig") -> None:
    """Raises InvalidConfigError when requests to this place could only fail, or would give a secret away."""
    if address.has_sessions and settings.unsigned:
        raise InvalidConfigError(
            f"The directory bucket {address.bucket!r} cannot be read with unsigned=True: none of them is public"
        )
    if settings.customer_key is not None and address.scheme == "http" and not _is_loopback(address.host):
        raise InvalidConfigError(
            f"sse_customer_key would go to {address.host} unencrypted: use an https endpoint (S3 refuses it too)"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _with_placeholder(host: str, bucket: str, region: str) -> str:
    # The bucket's own name may contain the region, and stays.
    lead = f"{bucket}." if host.startswith(f"{bucket}.") else ""
    labels = ["{region}" if label == region else label for label in host[len(lead) :].split(".")]
    return lead + ".".join(labels)


_ZONE: Final = re.compile(r".*--([a-z]+[0-9]+)-[a-z0-9-]*az[0-9]+--xa?-s3")
_DIRECTIONS: Final = {"north": "n", "east": "e", "south": "s", "west": "w", "central": "c", "gov": "g", "iso": "i"}


def _region_of_zone(bucket: str) -> str | None:
    """The region that a directory bucket's name tells: "data--usw2-az1--x-s3" can be in us-west-2 alone."""
    found = _ZONE.fullmatch(bucket)
    return _regions_by_code().get(found[1]) if found else None


@functools.cache
def _regions_by_code() -> dict[str, str]:
    """Regions by what the names of their zones begin with: "us-west-2" by "usw2"."""
    direction = re.compile("|".join(_DIRECTIONS))
    codes = {}
    for partition in _loader().load_data("partitions")["partitions"]:
        for region in partition["regions"]:
            area, _, rest = region.partition("-")
            codes[area + direction.sub(lambda word: _DIRECTIONS[word[0]], rest).replace("-", "")] = region
    return codes


def load_endpoint_rules() -> None:
    """Reads botocore's rules, which takes 35 ms, unless this process, or the one it was forked from, has them."""
    _rules()


@functools.cache
def _loader() -> "Loader":
    from botocore.loaders import create_loader  # noqa: PLC0415

    return create_loader()


@functools.cache
def _rules() -> "EndpointProvider":
    from botocore.endpoint_provider import EndpointProvider  # noqa: PLC0415

    return EndpointProvider(
        ruleset_data=_loader().load_service_model("s3", "endpoint-rule-set-1"),
        partition_data=_loader().load_data("partitions"),
    )
