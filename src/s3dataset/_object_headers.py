"""What is said of an object when it is written, as the headers that say it; checked where the user gives it."""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias
from urllib.parse import quote, urlencode

from s3dataset.errors import InvalidConfigError

__all__ = ["ENCRYPTION_PREFIX", "TAGGING", "Encryption", "Headers", "context_text", "object_headers", "tags_text"]

Headers: TypeAlias = Sequence[tuple[str, str]]
Encryption: TypeAlias = Literal["AES256", "aws:kms", "aws:kms:dsse"]

TAGGING: Final = "x-amz-tagging"
ENCRYPTION_PREFIX: Final = "x-amz-server-side-encryption"

_ENCRYPTIONS: Final = ("AES256", "aws:kms", "aws:kms:dsse")
_MOST_TAGS: Final = 10  # the service's limit
_NAME: Final = re.compile(r"[a-z0-9._-]+")


def object_headers(
    *,
    storage_class: str | None = None,
    content_type: str | None = None,
    metadata: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | str | None = None,
    sse: str | None = None,
    kms_key_id: str | None = None,
    kms_context: Mapping[str, str] | str | None = None,
    bucket_key: bool | None = None,
    headers: Headers = (),
) -> list[tuple[str, str]]:
    """The headers that say all this of an object that is written.

    Args:
        storage_class: "STANDARD_IA", "INTELLIGENT_TIERING" ...
        content_type: Its media type.
        metadata: Of the user's; names without "x-amz-meta-", ASCII.
        tags: As a mapping, or as "name=value&name=value" with both percent-encoded.
        sse: "AES256" (SSE-S3), "aws:kms" or "aws:kms:dsse".
        kms_key_id: Id or ARN of the KMS key; means "aws:kms" where `sse` is not given.
        kms_context: KMS's encryption context, as a mapping, or as base64 of its JSON.
        bucket_key: Whether an S3 bucket key saves calls of KMS.
        headers: Others, names in lower case; they go before those that the rest makes.

    Raises:
        InvalidConfigError: Something in it cannot be said, or contradicts something else.
    """
    made = dict(headers)

    def say(name: str, value: str | None) -> None:
        if value is not None:
            made.setdefault(name, value)

    say("x-amz-storage-class", storage_class)
    say("content-type", content_type)
    say(TAGGING, tags_text(tags))
    for name, value in (metadata or {}).items():
        say(f"x-amz-meta-{_metadata_name(name)}", _metadata_value(name, value))
    if kms_key_id is not None and sse is None:
        sse = "aws:kms"
    check_encryption(sse, kms_key_id, kms_context, bucket_key)
    say(ENCRYPTION_PREFIX, sse)
    say(f"{ENCRYPTION_PREFIX}-aws-kms-key-id", kms_key_id)
    say(f"{ENCRYPTION_PREFIX}-context", context_text(kms_context))
    say(f"{ENCRYPTION_PREFIX}-bucket-key-enabled", None if bucket_key is None else str(bucket_key).lower())
    return list(made.items())


def check_encryption(
    sse: str | None, kms_key_id: str | None, kms_context: Mapping[str, str] | str | None, bucket_key: bool | None
) -> None:
    """Raises InvalidConfigError when these contradict each other."""
    if sse is not None and sse not in _ENCRYPTIONS:
        raise InvalidConfigError(f"sse must be one of {', '.join(_ENCRYPTIONS)}, not {sse!r}")
    if sse == "AES256" and (kms_key_id is not None or kms_context is not None or bucket_key is not None):
        raise InvalidConfigError(
            'sse="AES256" uses no KMS key: leave kms_key_id, kms_context and bucket_key out, or say sse="aws:kms"'
        )


def tags_text(tags: Mapping[str, str] | str | None) -> str | None:
    """Tags as the header has them, "name=value&name=value"; None for none.

    Raises:
        InvalidConfigError: There are more than the service takes, or one cannot be written.
    """
    if tags is None or isinstance(tags, str):
        return tags or None
    if len(tags) > _MOST_TAGS:
        raise InvalidConfigError(f"An object has at most {_MOST_TAGS} tags, and these are {len(tags)}")
    try:
        return urlencode(tags, quote_via=quote) or None
    except UnicodeEncodeError as error:
        raise InvalidConfigError(f"A tag cannot be written: {error}") from None


def context_text(context: Mapping[str, str] | str | None) -> str | None:
    """KMS's encryption context as the header has it, base64 of its JSON; None for none."""
    if context is None or isinstance(context, str):
        return context or None
    return base64.b64encode(json.dumps(dict(context), sort_keys=True).encode()).decode() if context else None


def _metadata_name(name: str) -> str:
    lower = name.lower()
    if not _NAME.fullmatch(lower):
        raise InvalidConfigError(f"{name!r} is no name of metadata: use letters, digits, '-', '_' and '.'")
    return lower


def _metadata_value(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidConfigError(f"The metadata {name!r} must be a str, not {type(value).__name__}")
    if not value.isascii() or not value.isprintable():
        raise InvalidConfigError(
            f"The metadata {name!r} has characters that a header cannot carry: percent-encode it "
            "(urllib.parse.quote), and decode it when you read it"
        )
    return value
