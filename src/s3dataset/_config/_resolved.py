"""A configuration with environment and profile applied.

Precedence is argument > environment > profile > default, for every setting that the latter know.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from s3dataset._config._environment import environment_region
from s3dataset._config._settings import STYLES, S3ClientConfig, check_max_attempts
from s3dataset._object_headers import ENCRYPTION_PREFIX, object_headers
from s3dataset._proxies import ProxyUrl, proxy_of_environment
from s3dataset._secrets import CustomerKey
from s3dataset.errors import InvalidConfigError

if TYPE_CHECKING:
    from botocore.session import Session

__all__ = ["ResolvedConfig", "resolved"]

_SAVE_MAX_ELAPSED_S: Final = 1800.0


@dataclass(frozen=True, slots=True)
class ResolvedConfig:
    """A configuration with environment and profile applied: nothing in it is open any more, nothing needs the network.

    Attributes:
        region: None when nobody named one: the bucket tells.
        endpoint: URL of a service of one's own, None for Amazon's.
        ca_bundle: PEM text, None for the system's roots.
        proxy: None for none.
        no_proxy: Hosts that are reached without it, as NO_PROXY has them.
        verify_reads: Compare whole objects with the checksum that the service has stored.
        headers: Sent with every request.
        write_headers: Sent with whatever makes an object.
        customer_key: What objects are encrypted with.
        use_arn_region: Whether an access point's ARN may name another region than `region`.
        use_express_sessions: Whether requests to directory buckets are signed with the keys of a session.
    """

    region: str | None
    endpoint: str | None
    addressing_style: str
    use_dualstack: bool
    use_fips: bool
    use_accelerate: bool
    unsigned: bool
    max_attempts: int
    part_size: int
    large_in_flight: int
    max_connections: int | None
    memory_limit_bytes: int | None
    connect_timeout_s: float
    first_byte_timeout_s: float | None
    stall_timeout_s: float
    retry_max_elapsed_s: float
    save_max_elapsed_s: float
    ca_bundle: bytes | None
    proxy: ProxyUrl | None
    no_proxy: str
    checksum: str | None
    verify_reads: bool
    headers: tuple[tuple[str, str], ...]
    write_headers: tuple[tuple[str, str], ...]
    customer_key: CustomerKey | None
    use_arn_region: bool
    use_express_sessions: bool

    @property
    def encryption_headers(self) -> tuple[tuple[str, str], ...]:
        """Those of the write headers that say how objects are encrypted."""
        return tuple(header for header in self.write_headers if header[0].startswith(ENCRYPTION_PREFIX))


def resolved(
    config: S3ClientConfig, session: "Session", *, region: str | None = None, endpoint: str | None = None
) -> ResolvedConfig:
    """Applies environment and profile to what was left out.

    Args:
        config: What the user gave.
        session: From `open_session`, on the same profile.
        region: The argument that goes before all else.
        endpoint: Likewise; "" counts as none.

    Raises:
        InvalidConfigError: A value in environment or profile cannot work, or a CA bundle cannot be read.
    """
    s3 = session.get_config_variable("s3") or {}
    headers = []
    if config.requester_pays:
        headers.append(("x-amz-request-payer", "requester"))
    if config.expected_bucket_owner:
        headers.append(("x-amz-expected-bucket-owner", config.expected_bucket_owner))
    target = config.throughput_target_gbps
    style = _addressing_style(config, s3)
    use_accelerate = bool(s3.get("use_accelerate_endpoint"))
    if use_accelerate and style == "path":
        # There is no path style with it; a style given in code goes before the profile.
        use_accelerate = config.is_left_out("force_path_style") and config.is_left_out("addressing_style")
        style = "auto" if use_accelerate else style
    endpoint = endpoint or _endpoint(session)
    proxy, no_proxy = _proxy(config, endpoint)
    return ResolvedConfig(
        region=region or environment_region() or session.get_config_variable("region") or None,
        endpoint=endpoint,
        addressing_style=style,
        use_dualstack=_use_dualstack(session, s3),
        use_fips=bool(session.get_config_variable("use_fips_endpoint")),
        use_accelerate=use_accelerate,
        unsigned=config.unsigned,
        max_attempts=_max_attempts(config, session),
        part_size=config.part_size,
        # 40 MB/s a connection: half of what S3 gives at its best.
        large_in_flight=max(8, round(min(target, 10_000) * 3.2)),
        max_connections=config.max_connections,
        memory_limit_bytes=config.memory_limit_bytes,
        connect_timeout_s=config.connect_timeout_s,
        first_byte_timeout_s=config.first_byte_timeout_s,
        stall_timeout_s=config.stall_timeout_s,
        retry_max_elapsed_s=config.retry_max_elapsed_s,
        save_max_elapsed_s=(
            _SAVE_MAX_ELAPSED_S if config.is_left_out("retry_max_elapsed_s") else config.retry_max_elapsed_s
        ),
        ca_bundle=_ca_bundle(config, session),
        proxy=proxy,
        no_proxy=no_proxy,
        checksum=_checksum(config, session),
        verify_reads=session.get_config_variable("response_checksum_validation") != "when_required",
        headers=tuple(headers),
        write_headers=tuple(
            object_headers(
                storage_class=config.storage_class or None,
                tags=config.tags,
                sse=config.sse,
                kms_key_id=config.kms_key_id,
                kms_context=config.kms_context,
                bucket_key=config.bucket_key,
            )
        ),
        customer_key=cast("CustomerKey | None", config.sse_customer_key),
        use_arn_region=s3.get("use_arn_region") is not False,
        use_express_sessions=not _is_true(session.get_config_variable("s3_disable_express_session_auth")),
    )


def _proxy(config: S3ClientConfig, endpoint: str | None) -> tuple[ProxyUrl | None, str]:
    if config.proxy is not None:
        # As botocore does: what is given in code holds for every host.
        return cast(ProxyUrl, config.proxy) or None, ""
    return proxy_of_environment("http" if (endpoint or "").lower().startswith("http://") else "https")


def _use_dualstack(session: "Session", s3: Mapping[str, Any]) -> bool:
    """The environment first; then what the profile says of S3, and last what it says of all services."""
    of_s3 = s3.get("use_dualstack_endpoint")
    if of_s3 is None or os.environ.get("AWS_USE_DUALSTACK_ENDPOINT"):
        return bool(session.get_config_variable("use_dualstack_endpoint"))
    return bool(of_s3)


def _is_true(value: object) -> bool:
    return str(value).lower() == "true"


def _endpoint(session: "Session") -> str | None:
    if session.get_config_variable("ignore_configured_endpoint_urls"):
        return None
    profile = session.get_scoped_config()
    services = session.full_config.get("services", {}).get(profile.get("services"), {})
    return (
        os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
        or services.get("s3", {}).get("endpoint_url")
        or profile.get("endpoint_url")
        or None
    )


def _addressing_style(config: S3ClientConfig, s3: Mapping[str, Any]) -> str:
    if config.force_path_style:
        return "path"
    if not config.is_left_out("addressing_style"):
        return config.addressing_style
    style = s3.get("addressing_style") or "auto"
    if style not in STYLES:
        raise InvalidConfigError(
            f"s3.addressing_style in the profile must be one of {', '.join(STYLES)}, not {style!r}"
        )
    if style == "path" and not config.is_left_out("force_path_style"):
        return "auto"
    return str(style)


def _max_attempts(config: S3ClientConfig, session: "Session") -> int:
    if not config.is_left_out("max_attempts"):
        return config.max_attempts
    try:
        value = session.get_config_variable("max_attempts")
    except ValueError as error:
        raise InvalidConfigError(f"AWS_MAX_ATTEMPTS or max_attempts of the profile is no number: {error}") from None
    return (
        config.max_attempts
        if value is None
        else check_max_attempts(value, "AWS_MAX_ATTEMPTS or max_attempts of the profile")
    )


def _checksum(config: S3ClientConfig, session: "Session") -> str | None:
    if (
        config.is_left_out("checksum")
        and session.get_config_variable("request_checksum_calculation") == "when_required"
    ):
        return None
    return config.checksum


# Where rustls-native-certs looks on the systems that wheels run on.
_SYSTEM_ROOTS: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def _ca_bundle(config: S3ClientConfig, session: "Session") -> bytes | None:
    bundle = config.ca_bundle
    if isinstance(bundle, bytes):
        return bundle
    path = bundle or session.get_config_variable("ca_bundle")
    if path:
        try:
            return Path(path).expanduser().read_bytes()
        except OSError as error:
            raise InvalidConfigError(
                f"The CA bundle {os.fspath(path)!r} (ca_bundle, AWS_CA_BUNDLE or the profile) "
                f"cannot be read: {error.strerror}"
            ) from None
    if os.environ.get("SSL_CERT_FILE") or any(map(os.path.exists, _SYSTEM_ROOTS)):
        return None
    import botocore.httpsession  # noqa: PLC0415

    return Path(botocore.httpsession.where()).read_bytes()
