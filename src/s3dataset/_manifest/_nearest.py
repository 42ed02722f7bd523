"""What to tell somebody whose prefix is empty."""

import difflib
from typing import Final, NamedTuple

from s3dataset._client import Client, ListPage
from s3dataset._uri import S3Uri

_MOST_LEVELS: Final = 8
_MOST_NAMES: Final = 5


class EmptyPrefixWarning(UserWarning):
    """A prefix has no objects, or none that the pattern chooses."""


class Near(NamedTuple):
    """The nearest prefix that has objects.

    Attributes:
        parent: It, as a URI.
        names: URIs of what lies in it, the most similar to what was asked for first.
    """

    parent: str
    names: list[str]


def nearest_prefixes(client: Client, uri: S3Uri) -> Near | None:
    """Looks upward from a prefix for objects, with one request a level; None when the bucket is empty.

    Raises:
        S3Exception: Listing failed.
    """
    wanted = uri.key
    parent = wanted.rstrip("/")
    with client.queue() as queue:
        for level in range(_MOST_LEVELS):
            parent = parent[: parent.rfind("/") + 1] if level < _MOST_LEVELS - 1 else ""
            page = queue.take(queue.list_page(uri.bucket, parent, delimiter="/"))
            if isinstance(page, ListPage):
                names = [*page.common_prefixes, *(page.key(row) for row in range(min(len(page), 100)))]
                if names:
                    missing = wanted[: len(parent) + wanted[len(parent) :].find("/") + 1] or wanted
                    close = difflib.get_close_matches(missing, names, n=_MOST_NAMES, cutoff=0.6)
                    shown = close or names[:_MOST_NAMES]
                    return Near(str(S3Uri(uri.bucket, parent)), [str(S3Uri(uri.bucket, name)) for name in shown])
            if not parent:
                return None
            parent = parent[:-1]
    return None
