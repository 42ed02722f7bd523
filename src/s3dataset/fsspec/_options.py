"""Storage options, as users of s3fs give them, and as this package has them everywhere."""

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from s3dataset._client import ClientRef
from s3dataset._config import S3ClientConfig
from s3dataset._object_headers import Headers, object_headers
from s3dataset.errors import InvalidConfigError

__all__ = ["client_ref", "wants_to_pay", "write_headers"]

_CLIENT_KEYWORDS: Final = {
    "region_name": "region",
    "endpoint_url": "endpoint",
    "aws_access_key_id": "key",
    "aws_secret_access_key": "secret",
    "aws_session_token": "token",
}
_HEADERS: Final = {
    "ACL": "x-amz-acl",
    "BucketKeyEnabled": "x-amz-server-side-encryption-bucket-key-enabled",
    "CacheControl": "cache-control",
    "ContentDisposition": "content-disposition",
    "ContentEncoding": "content-encoding",
    "ContentLanguage": "content-language",
    "ContentType": "content-type",
    "Expires": "expires",
    "ObjectLockLegalHoldStatus": "x-amz-object-lock-legal-hold",
    "ObjectLockMode": "x-amz-object-lock-mode",
    "ObjectLockRetainUntilDate": "x-amz-object-lock-retain-until-date",
    "SSEKMSEncryptionContext": "x-amz-server-side-encryption-context",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "StorageClass": "x-amz-storage-class",
    "Tagging": "x-amz-tagging",
    "WebsiteRedirectLocation": "x-amz-website-redirect-location",
}
_TUNING: Final = frozenset({"block_size", "cache_type", "chunksize", "fill_cache", "max_concurrency", "requester_pays"})
"""Of s3fs; the engine decides these by itself."""


def client_ref(
    *,
    region: str | None,
    endpoint: str | None,
    config: S3ClientConfig | None,
    anon: bool,
    keys: tuple[str | None, str | None, str | None],
    session: Any,
    profile: str | None,
    use_ssl: bool,
    requester_pays: bool,
    client_kwargs: Mapping[str, Any] | None,
    config_kwargs: Mapping[str, Any] | None,
) -> ClientRef:
    """The client that these options ask for.

    Raises:
        InvalidConfigError: One of them is not known, cannot be honoured, or contradicts another.
    """
    given = {"region": region, "endpoint": endpoint, "key": keys[0], "secret": keys[1], "token": keys[2]}
    changes: dict[str, Any] = {}
    for name, value in (client_kwargs or {}).items():
        if name in _CLIENT_KEYWORDS:
            known_as = _CLIENT_KEYWORDS[name]
            given[known_as] = given[known_as] or value
        elif name == "use_ssl":
            use_ssl = bool(value)
        elif name == "verify" and value is False:
            raise InvalidConfigError(
                'client_kwargs={"verify": False} asks not to look at certificates, which is not supported: give '
                "the path of your own authority's certificate as verify, or AWS_CA_BUNDLE"
            )
        elif name == "verify":
            if isinstance(value, str):
                changes["ca_bundle"] = value
        else:
            known = ", ".join([*_CLIENT_KEYWORDS, "use_ssl", "verify"])
            raise InvalidConfigError(f"client_kwargs knows {known}, not {name!r}: S3ClientConfig has the rest")
    if not use_ssl and not given["endpoint"]:
        raise InvalidConfigError("use_ssl=False needs an endpoint: give endpoint_url='http://host:port'")
    changes |= _of_botocore(config_kwargs or {})
    if "region" in changes:
        given["region"] = given["region"] or changes.pop("region")
    if anon:
        changes["unsigned"] = True
    if requester_pays:
        changes["requester_pays"] = True
    if profile is not None:
        changes["profile"] = profile
    if session is not None:
        if inspect.iscoroutinefunction(getattr(session, "get_credentials", None)):
            raise InvalidConfigError(
                "session must be one of botocore or boto3; aiobotocore's cannot be asked from here"
            )
        changes["credentials"] = session
    if given["key"] or given["secret"] or given["token"]:
        changes["credentials"] = (given["key"], given["secret"], given["token"])
    if changes:
        config = replace(config or S3ClientConfig(), **changes)
    ref = ClientRef(given["region"], given["endpoint"], config)
    ref.get()  # checks them; reads and sends nothing
    return ref


_OF_NO_MEANING: Final = frozenset(
    {
        "disable_request_compression",
        "inject_host_prefix",
        "parameter_validation",
        "request_checksum_calculation",
        "request_min_compression_size_bytes",
        "response_checksum_validation",
        "tcp_keepalive",
        "user_agent",
        "user_agent_appid",
        "user_agent_extra",
    }
)


def _of_botocore(options: Mapping[str, Any]) -> dict[str, Any]:
    """botocore.config.Config's options as S3ClientConfig's."""
    changes: dict[str, Any] = {}
    for name, value in options.items():
        if name in _OF_NO_MEANING or value is None:
            continue
        if name == "region_name":
            changes["region"] = value
        elif name == "connect_timeout":
            changes["connect_timeout_s"] = value
        elif name == "read_timeout":
            changes |= {"first_byte_timeout_s": value, "stall_timeout_s": value}
        elif name == "max_pool_connections":
            changes["max_connections"] = value
        elif name == "retries" and isinstance(value, Mapping):
            if "total_max_attempts" in value:
                changes["max_attempts"] = value["total_max_attempts"]
            elif "max_attempts" in value:
                changes["max_attempts"] = value["max_attempts"] + 1  # retries, there
        elif name == "proxies" and isinstance(value, Mapping):
            changes["proxy"] = value.get("https") or value.get("http")
        elif name == "signature_version" and value in ("s3v4", "v4"):
            continue
        elif name == "signature_version" and not isinstance(value, str):  # botocore.UNSIGNED
            changes["unsigned"] = True
        elif name == "s3" and isinstance(value, Mapping) and set(value) <= {"addressing_style"}:
            changes["addressing_style"] = value.get("addressing_style", "auto")
        else:
            raise InvalidConfigError(
                f"config_kwargs={{{name!r}: {value!r}}} has no equal here: see S3ClientConfig, or say it in the profile"
            )
    return changes


def wants_to_pay(additional: Mapping[str, Any] | None) -> bool:
    """Whether s3_additional_kwargs say that whoever signs pays."""
    return (additional or {}).get("RequestPayer") == "requester"


def write_headers(options: Mapping[str, Any], common: Headers = (), *, acl: str | None = None) -> Headers:
    """What is said of an object that is written, in boto3's names, as headers; what `common` says comes second.

    Raises:
        InvalidConfigError: It cannot be said.
        TypeError: Something in it is unknown.
    """
    made: dict[str, str] = {"x-amz-acl": acl} if acl else {}
    metadata = None
    for name, value in options.items():
        if name == "Metadata":
            metadata = value
        elif name in _HEADERS:
            made[_HEADERS[name]] = str(value).lower() if isinstance(value, bool) else str(value)
        elif name not in _TUNING and name != "RequestPayer":
            raise TypeError(
                f"{name!r} is unknown: objects are written with {', '.join([*_HEADERS, 'Metadata'])}; "
                "S3ClientConfig(sse_customer_key=) has keys of your own"
            )
    own = object_headers(metadata=metadata, headers=list(made.items()))
    said = {name for name, _ in own}
    return (*own, *(header for header in common if header[0] not in said))
