"""S3ClientConfig, and what becomes of it with environment and profile: the only reader of S3's environment variables.

Precedence is argument > environment > profile > default, for every setting that the latter know.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, fields
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeAlias, TypeVar, cast

from s3dataset._object_headers import (
    ENCRYPTION_PREFIX,
    Encryption,
    check_encryption,
    context_text,
    object_headers,
    tags_text,
)
from s3dataset._proxies import PROXY_VARIABLES, ProxyUrl, proxy_of_environment
from s3dataset._secrets import AccessKeys, CredentialSource, CustomerKey, SessionLike
from s3dataset.errors import InvalidConfigError

if TYPE_CHECKING:
    from botocore.session import Session

__all__ = ["Credentials", "ResolvedConfig", "S3ClientConfig", "environment", "open_session", "resolved"]

_T = TypeVar("_T")

Keys: TypeAlias = tuple[str, str] | tuple[str, str, str | None] | Mapping[str, Any] | AccessKeys
Credentials: TypeAlias = Keys | Callable[[], Any] | SessionLike | CredentialSource
"""Keys as a tuple or mapping, a callable that returns such, or a botocore or boto3 session."""

_MIB: Final = 1 << 20
_SAVE_MAX_ELAPSED_S: Final = 1800.0
_STYLES: Final = ("auto", "path", "virtual")
_WHOLE_NUMBERS: Final = ("max_attempts", "part_size", "memory_limit_bytes", "max_connections")
_NUMBERS: Final = (
    "throughput_target_gbps",
    "connect_timeout_s",
    "first_byte_timeout_s",
    "stall_timeout_s",
    "retry_max_elapsed_s",
)
_CHECKSUMS: Final = ("CRC64NVME", "CRC32C", "CRC32", None)

# What decides where requests go and who signs them. A client that was made under other values is not handed out again.
_ENVIRONMENT: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_DEFAULT_PROFILE",
    "AWS_DEFAULT_REGION",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_MAX_ATTEMPTS",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
    "AWS_ROLE_ARN",
    "AWS_S3_DISABLE_EXPRESS_SESSION_AUTH",
    "AWS_S3_USE_ARN_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    *PROXY_VARIABLES,
)


class _LeftOut(Generic[_T]):
    """Stands in a signature for an argument that was not given, and prints as its default."""

    __slots__ = ("default",)

    def __init__(self, default: _T) -> None:
        self.default = default

    def __repr__(self) -> str:
        return repr(self.default)


def _unset(default: _T) -> _T:
    return cast(_T, _LeftOut(default))


@dataclass(frozen=True)
class S3ClientConfig:
    """Settings of a client. Immutable, hashable, picklable.

    A field that is left out reads as its default, and environment and profile may fill it; a value that is given
    always wins, even when it equals the default. `dataclasses.replace` keeps what was left out so.

    Args:
        throughput_target_gbps: A hint, in gigabits a second: how many large ranges are in flight and how many engine
            threads a process has.
        part_size: Bytes of one range of a large download and one part of a large upload; 8 MiB, the largest size at
            which one connection to S3 gives its full throughput. Not checked here: uploads raise it to 5 MiB with a
            warning, and refuse more than 5 GiB.
        unsigned: Send no signature and look for no credentials: for public buckets.
        force_path_style: "host/bucket/key" instead of "bucket.host/key". Hosts that are IP addresses or `localhost`
            get it unasked.
        max_attempts: How often a request is sent before its failure counts; throttling is bounded by
            `retry_max_elapsed_s` instead. A body that broke off goes on where it broke, and counts from the start
            again when it had brought 64 KiB or more.
            Environment: AWS_MAX_ATTEMPTS.
        profile: Section of the shared configuration files. Environment: AWS_PROFILE. Given here it goes before keys
            in the environment.
        requester_pays: Say with every request that whoever signs pays for it.
        memory_limit_bytes: A byte budget of this client's own; default: a share of the process's, which follows from
            the cgroup's limit.
        max_connections: Connections at once; default: 256, divided by the processes that share the machine.
        connect_timeout_s: Seconds to connect; 3, since a lost SYN is sent again after 1.
        first_byte_timeout_s: Seconds from the last byte sent to the first of the answer; default: 10, and 2
            (doubling) for GETs of objects known to be under 512 KiB, as the service's own guide advises.
        stall_timeout_s: A transfer under 64 KiB/s for so many seconds is given up and sent again.
        retry_max_elapsed_s: Seconds for all attempts at one request. Default: 600, since a prefix that scales up is
            throttled for minutes, and 1800 for uploads and copies, since a save that fails may end a job.
        ca_bundle: PEM file (path) or PEM text (bytes) of trusted roots; default: the system's. Environment:
            AWS_CA_BUNDLE.
        proxy: URL of a proxy for all requests of this client, "http://user:password@host:port", the password masked and
            kept out of pickles as credentials are; "" for none. Environment: HTTPS_PROXY or HTTP_PROXY, by the scheme
            of the endpoint, and NO_PROXY.
        addressing_style: "auto" (virtual for the service's hosts, path for others), "path" or "virtual".
        checksum: Sent with uploads: "CRC64NVME" (default: it covers whole objects however they were uploaded),
            "CRC32C", "CRC32" or None.
        expected_bucket_owner: Account that must own the bucket; another one is an `AccessDeniedError`.
        storage_class: Of objects written.
        sse: How the service encrypts what is written: "AES256", "aws:kms", "aws:kms:dsse"; default: as the bucket says.
        kms_key_id: Id or ARN of the KMS key; means "aws:kms" where `sse` is left out.
        kms_context: KMS's encryption context, as a mapping.
        bucket_key: Whether an S3 bucket key saves calls of KMS; default: as the bucket says.
        sse_customer_key: A key of your own, 32 bytes or base64 of them, that everything is written and read with
            (SSE-C); only over HTTPS. Masked in repr, and carried by the pickle that starts a worker process alone.
        tags: Of objects written, as a mapping.
        credentials: Keys, a callable that returns keys (asked again before they expire), or a botocore or boto3
            session. Masked in repr. Carried by the pickle that starts a worker process, and by no other.

    Raises:
        InvalidConfigError: A value cannot work, or two contradict each other. It is a ValueError too.
    """

    throughput_target_gbps: float = _unset(10.0)
    part_size: int = _unset(8 * _MIB)
    unsigned: bool = _unset(False)
    force_path_style: bool = _unset(False)
    max_attempts: int = _unset(10)
    profile: str | None = _unset(None)
    requester_pays: bool = _unset(False)
    _: KW_ONLY
    memory_limit_bytes: int | None = _unset(None)
    max_connections: int | None = _unset(None)
    connect_timeout_s: float = _unset(3.0)
    first_byte_timeout_s: float | None = _unset(None)
    stall_timeout_s: float = _unset(15.0)
    retry_max_elapsed_s: float = _unset(600.0)
    ca_bundle: str | os.PathLike[str] | bytes | None = _unset(None)  # noqa: RUF009 - immutable, as are all here
    proxy: str | ProxyUrl | None = _unset(None)  # noqa: RUF009 - likewise
    addressing_style: Literal["auto", "path", "virtual"] = _unset("auto")
    checksum: Literal["CRC64NVME", "CRC32C", "CRC32"] | None = _unset("CRC64NVME")
    expected_bucket_owner: str | None = _unset(None)
    storage_class: str | None = _unset(None)
    sse: Encryption | None = _unset(None)  # noqa: RUF009 - likewise
    kms_key_id: str | None = _unset(None)
    kms_context: Mapping[str, str] | str | None = _unset(None)  # kept as text
    bucket_key: bool | None = _unset(None)
    sse_customer_key: bytes | str | CustomerKey | None = _unset(None)  # noqa: RUF009 - likewise
    tags: Mapping[str, str] | str | None = _unset(None)  # kept as text
    credentials: Credentials | None = _unset(None)  # noqa: RUF009 - likewise
    # In the constructor because dataclasses.replace() hands every field over, left out or not.
    _left_out: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        set_field = object.__setattr__
        left_out = set()
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, _LeftOut):
                set_field(self, f.name, value.default)
                left_out.add(f.name)
            elif f.name in self._left_out and isinstance(f.default, _LeftOut) and value == f.default.default:
                left_out.add(f.name)
        set_field(self, "_left_out", frozenset(left_out))
        if self.credentials is not None and not isinstance(self.credentials, CredentialSource):
            set_field(self, "credentials", CredentialSource(self.credentials))
        if self.sse_customer_key is not None and not isinstance(self.sse_customer_key, CustomerKey):
            set_field(self, "sse_customer_key", CustomerKey(self.sse_customer_key))
        # As the headers have them: a configuration is hashable.
        set_field(self, "kms_context", context_text(self.kms_context))
        set_field(self, "tags", tags_text(self.tags))
        if isinstance(self.ca_bundle, os.PathLike):
            set_field(self, "ca_bundle", os.fspath(self.ca_bundle))
        if isinstance(self.proxy, str):
            set_field(self, "proxy", ProxyUrl(self.proxy))
        self._check()

    def __repr__(self) -> str:
        given = (f.name for f in fields(self) if f.name != "_left_out" and f.name not in self._left_out)
        return f"S3ClientConfig({', '.join(f'{name}={getattr(self, name)!r}' for name in given)})"

    def is_left_out(self, name: str) -> bool:
        """Whether this field was not given, so that environment and profile may fill it."""
        return name in self._left_out

    def _check(self) -> None:
        for name in (*_WHOLE_NUMBERS, *_NUMBERS):
            value: Any = getattr(self, name)
            if value is None:
                continue
            if not issubclass(type(value), Integral if name in _WHOLE_NUMBERS else Real):
                called = "a whole number" if name in _WHOLE_NUMBERS else "a number"
                raise InvalidConfigError(f"{name} must be {called}, not {value!r}")
            if name == "max_attempts":
                _check_max_attempts(value, name)
            elif not value > 0:
                raise InvalidConfigError(f"{name} must be greater than 0, not {value!r}")
        if self.requester_pays and self.unsigned:
            raise InvalidConfigError(
                "requester_pays with unsigned cannot work: whoever pays must sign. Leave one of them out"
            )
        if self.credentials is not None and self.unsigned:
            raise InvalidConfigError("credentials with unsigned contradict each other: leave one of them out")
        check_encryption(self.sse, self.kms_key_id, self.kms_context, self.bucket_key)
        kms = self.kms_key_id is not None or self.kms_context is not None
        if self.sse_customer_key is not None and (self.sse is not None or kms):
            raise InvalidConfigError("sse_customer_key and sse or KMS contradict each other: leave one of them out")
        if self.addressing_style not in _STYLES:
            raise InvalidConfigError(
                f"addressing_style must be one of {', '.join(_STYLES)}, not {self.addressing_style!r}"
            )
        if self.force_path_style and self.addressing_style == "virtual":
            raise InvalidConfigError(
                'force_path_style and addressing_style="virtual" contradict each other: leave one out'
            )
        if self.checksum not in _CHECKSUMS:
            raise InvalidConfigError(
                f"checksum must be one of {', '.join(map(str, _CHECKSUMS))}, not {self.checksum!r}"
            )


for _field in fields(S3ClientConfig):
    # The constructor keeps the stand-ins; whoever looks at the class sees plain defaults.
    if isinstance(_field.default, _LeftOut):
        setattr(S3ClientConfig, _field.name, _field.default.default)


def _check_max_attempts(value: int, source: str) -> int:
    if value < 1:
        raise InvalidConfigError(f"{source} must be at least 1 (1 means no retries), not {value!r}")
    return value


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


def environment() -> tuple[str | None, ...]:
    """The values of the environment variables that settings come from; equal as long as none of them changed."""
    return tuple(map(os.environ.get, _ENVIRONMENT))


def environment_region() -> str | None:
    """AWS_REGION, which botocore alone of the SDKs does not read, before AWS_DEFAULT_REGION."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None


def environment_has_keys() -> bool:
    """Whether keys are in the environment, where botocore's chain begins unless a profile was given in code."""
    return bool(os.environ.get("AWS_ACCESS_KEY_ID"))


def request_log_setting() -> str | None:
    """S3DATASET_LOG: "debug", or "debug:" and a file name in which %p stands for the process id."""
    return os.environ.get("S3DATASET_LOG") or None


def metadata_service_is_disabled() -> bool:
    """Whether the user said not to ask EC2's metadata service."""
    return os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"


def metadata_service_is_configured(session: "Session") -> bool:
    """Whether the user said where EC2's metadata service is, which means that there is one."""
    names = ("ec2_metadata_service_endpoint", "ec2_metadata_service_endpoint_mode")
    return any(session.get_config_variable(name) for name in names)


def load_botocore() -> None:
    """Imports what `open_session` needs: 0.15 s, which the first batch would come later."""
    import botocore.session  # noqa: F401, PLC0415


def open_session(profile: str | None) -> "Session":
    """A botocore session on this profile, or on the one that the environment names.

    Raises:
        InvalidConfigError: There is no such profile, or its file cannot be parsed.
    """
    from botocore.exceptions import ConfigParseError, ProfileNotFound  # noqa: PLC0415 - botocore takes 0.1 s and more to import
    from botocore.session import Session  # noqa: PLC0415

    session = Session(profile=profile) if profile is not None else Session()
    try:
        session.get_scoped_config()
    except ProfileNotFound as error:
        known = ", ".join(session.available_profiles) or "none"
        raise InvalidConfigError(
            f"Client error: {error}. Profiles in {session.get_config_variable('config_file')} and "
            f"{session.get_config_variable('credentials_file')}: {known}"
        ) from None
    except ConfigParseError as error:
        raise InvalidConfigError(f"Client error: {error}: correct it, or name another by AWS_CONFIG_FILE") from None
    return session


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
        large_in_flight=max(8, round(target * 3.2)),
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
    if style not in _STYLES:
        raise InvalidConfigError(
            f"s3.addressing_style in the profile must be one of {', '.join(_STYLES)}, not {style!r}"
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
        else _check_max_attempts(value, "AWS_MAX_ATTEMPTS or max_attempts of the profile")
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
