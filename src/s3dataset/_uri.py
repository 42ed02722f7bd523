"""S3Uri: the only parser of s3:// URIs."""

import re
from dataclasses import dataclass
from typing import Final, Self

from s3dataset.errors import InvalidUriError

__all__ = ["S3Uri", "is_arn", "is_directory_bucket", "parse_s3_uri", "split_object_uri"]

_SCHEME: Final = "s3://"
_ARN_BEGIN: Final = "arn:"  # no bucket's name has a colon
# An access point's name may stand behind a slash, which does not end the bucket then.
_ARN: Final = re.compile(
    r"(arn:[^:/]+:s3[a-z-]*:[^:/]*:[^:/]*:(?:outpost[:/][^:/]+[:/])?accesspoint[:/][^:/]+)(?:/(.*))?", re.DOTALL
)


def is_arn(bucket: str) -> bool:
    """Whether what stands where a bucket's name is expected is the ARN of an access point."""
    return bucket.startswith(_ARN_BEGIN)


def is_directory_bucket(bucket: str) -> bool:
    """Whether this is the name of a directory bucket (S3 Express One Zone), or of an access point to one."""
    return bucket.endswith(("--x-s3", "--xa-s3"))


@dataclass(frozen=True, slots=True, order=True)
class S3Uri:
    """A bucket and a key (or prefix) in it. Hashable, ordered by bucket and key, and picklable.

    Keys are taken as they stand: nothing is percent-decoded, "?" and "#" are ordinary characters, and a slash behind
    another one counts.

    The ARN of an access point may stand for the bucket, as botocore and the AWS CLI have it:
    "s3://arn:aws:s3:us-west-2:123456789012:accesspoint/name/key", or with ":name".

    Attributes:
        bucket: Name of the bucket or ARN of the access point, never empty.
        key: Key or prefix, "" for the whole bucket.
    """

    bucket: str
    key: str

    @classmethod
    def parse(cls, text: str, *, need_key: bool) -> Self:
        """Reads "s3://bucket/key".

        Args:
            text: The URI.
            need_key: Whether an object is meant, which cannot have an empty key; False for prefixes.

        Raises:
            InvalidUriError: It is something else. The message quotes it.
            TypeError: `text` is no string.
        """
        if not isinstance(text, str):
            raise TypeError(f"an S3 URI must be a str such as 's3://bucket/key', not {type(text).__name__}: {text!r}")
        if not text.startswith(_SCHEME):
            hint = f"{_SCHEME}{text}" if is_arn(text) else "s3://bucket/key"
            raise InvalidUriError(f"Only s3:// URIs are supported, got {text!r}: write {hint!r}", uri=text)
        bucket, key = _split(text)
        if not (text.isascii() or _is_utf8(text)):
            raise InvalidUriError(
                f"Keys are UTF-8, and {text!r} has a lone surrogate: os.fsdecode makes them of file names in another "
                "encoding",
                uri=text,
            )
        if not bucket:
            raise InvalidUriError(f"Bucket name must be non-empty, got {text!r}: write 's3://bucket/key'", uri=text)
        if need_key and not key:
            raise cls.no_key(bucket, text)
        return cls(bucket, key)

    @staticmethod
    def no_key(bucket: str, text: str | None = None) -> InvalidUriError:
        """What to raise for an empty key where an object is meant: such a request would be one about the bucket."""
        text = f"{_SCHEME}{bucket}/" if text is None else text
        return InvalidUriError(
            f"Object key must be non-empty, got {text!r}: write 's3://{bucket}/key', or use a prefix where one fits",
            uri=text,
        )

    @classmethod
    def parse_prefix(cls, text: str) -> Self:
        """Reads "s3://bucket", "s3://bucket/" or "s3://bucket/prefix"; a prefix need not end in a slash.

        Raises:
            InvalidUriError: It is something else. The message quotes it.
        """
        return cls.parse(text, need_key=False)

    def __str__(self) -> str:
        return f"{_SCHEME}{self.bucket}/{self.key}"


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _split(text: str) -> tuple[str, str]:
    rest = text[len(_SCHEME) :]
    if not is_arn(rest):
        bucket, _, key = rest.partition("/")
        return bucket, key
    found = _ARN.fullmatch(rest)
    if found is None:
        raise InvalidUriError(
            f"This is not the ARN of an access point, got {text!r}: write "
            "'s3://arn:aws:s3:region:account:accesspoint/name/key' for an access point, 's3://bucket/key' for a bucket",
            uri=text,
        )
    return found[1], found[2] or ""


def split_object_uri(text: str) -> tuple[str, str]:
    """Bucket and key of an object's URI, without the object around them: a third of the time, for lists of millions.

    Raises:
        InvalidUriError: It is something else, as `S3Uri.parse` says.
        TypeError: `text` is no string.
    """
    try:
        has_scheme = text[: len(_SCHEME)] == _SCHEME
    except TypeError:  # no text: the parser below names it
        has_scheme = False
    if has_scheme:
        bucket, _, key = text[len(_SCHEME) :].partition("/")
        if bucket and key and bucket[:4] != _ARN_BEGIN and (text.isascii() or _is_utf8(text)):
            return bucket, key
    uri = S3Uri.parse(text, need_key=True)
    return uri.bucket, uri.key


def parse_s3_uri(uri: str) -> tuple[str, str]:
    """Bucket and key, or prefix, of a URI, as programs written for s3torchconnector take it apart.

    Raises:
        InvalidUriError: It is something else, or empty. It is a ValueError too.
    """
    if not uri:
        raise InvalidUriError(f"Only s3:// URIs are supported, got {uri!r}: write 's3://bucket/key'")
    parsed = S3Uri.parse_prefix(uri)
    return parsed.bucket, parsed.key
