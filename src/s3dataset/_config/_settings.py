"""S3ClientConfig: what a user gives."""

import os
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, fields
from numbers import Integral, Real
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar, cast

from s3dataset._object_headers import Encryption, check_encryption, context_text, tags_text
from s3dataset._proxies import ProxyUrl
from s3dataset._secrets import AccessKeys, CredentialSource, CustomerKey, SessionLike
from s3dataset.errors import InvalidConfigError

__all__ = ["STYLES", "Credentials", "S3ClientConfig", "check_max_attempts"]

_T = TypeVar("_T")

Keys: TypeAlias = tuple[str, str] | tuple[str, str, str | None] | Mapping[str, Any] | AccessKeys
Credentials: TypeAlias = Keys | Callable[[], Any] | SessionLike | CredentialSource
"""Keys as a tuple or mapping, a callable that returns such, or a botocore or boto3 session."""

_MIB: Final = 1 << 20
STYLES: Final = ("auto", "path", "virtual")
_WHOLE_NUMBERS: Final = ("max_attempts", "part_size", "memory_limit_bytes", "max_connections")
_NUMBERS: Final = (
    "throughput_target_gbps",
    "connect_timeout_s",
    "first_byte_timeout_s",
    "stall_timeout_s",
    "retry_max_elapsed_s",
)
_OPTIONAL_NUMBERS: Final = ("memory_limit_bytes", "max_connections", "first_byte_timeout_s")
_SWITCHES: Final = ("unsigned", "force_path_style", "requester_pays", "bucket_key")
_HEADERS: Final = ("expected_bucket_owner", "storage_class", "sse", "kms_key_id", "kms_context", "tags")
_CHECKSUMS: Final = ("CRC64NVME", "CRC32C", "CRC32", None)


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
        for name in _SWITCHES:
            set_field(self, name, _switch(name, getattr(self, name)))
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
            if value is None and name in _OPTIONAL_NUMBERS:
                continue
            if not issubclass(type(value), Integral if name in _WHOLE_NUMBERS else Real):
                called = "a whole number" if name in _WHOLE_NUMBERS else "a number"
                raise InvalidConfigError(f"{name} must be {called}, not {value!r}")
            if name == "max_attempts":
                check_max_attempts(value, name)
            elif not value > 0:
                raise InvalidConfigError(f"{name} must be greater than 0, not {value!r}")
        if not (self.ca_bundle is None or isinstance(self.ca_bundle, str | bytes)):
            raise InvalidConfigError(f"ca_bundle must be a path or PEM text as bytes, not {self.ca_bundle!r}")
        if not (self.proxy is None or isinstance(self.proxy, ProxyUrl)):
            raise InvalidConfigError(f"proxy must be a URL, not {type(self.proxy).__name__}")
        for name in _HEADERS:
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and value.isascii() and value.isprintable()):
                raise InvalidConfigError(f"{name} is sent in a header, which cannot carry {value!r}")
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
        if self.addressing_style not in STYLES:
            raise InvalidConfigError(
                f"addressing_style must be one of {', '.join(STYLES)}, not {self.addressing_style!r}"
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


def _switch(name: str, value: Any) -> bool | None:
    """-> True or False, also of 0, 1 and what numpy has; None where that means a default."""
    if value is None and name == "bucket_key":
        return None
    if value not in (True, False):
        raise InvalidConfigError(f"{name} must be True or False, not {value!r}")
    return bool(value)


def check_max_attempts(value: int, source: str) -> int:
    if value < 1:
        raise InvalidConfigError(f"{source} must be at least 1 (1 means no retries), not {value!r}")
    return value
