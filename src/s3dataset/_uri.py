"""S3Uri: the only parser of s3:// URIs."""

from dataclasses import dataclass
from typing import Final, Self

from s3dataset.errors import InvalidUriError

__all__ = ["S3Uri", "parse_s3_uri", "split_object_uri"]

_SCHEME: Final = "s3://"


@dataclass(frozen=True, slots=True, order=True)
class S3Uri:
    """A bucket and a key (or prefix) in it. Hashable, ordered by bucket and key, and picklable.

    Keys are taken as they stand: nothing is percent-decoded, "?" and "#" are ordinary characters, and a slash behind
    another one counts.

    Attributes:
        bucket: Name of the bucket, never empty.
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
            raise InvalidUriError(f"Only s3:// URIs are supported, got {text!r}: write 's3://bucket/key'", uri=text)
        bucket, _, key = text[len(_SCHEME) :].partition("/")
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
        if bucket and key:
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
