"""What to tell somebody whose prefix is empty."""

import difflib
from typing import Final, NamedTuple, cast

from s3dataset._client import Client, ListPage
from s3dataset._uri import S3Uri

_MOST_LEVELS: Final = 8
_MOST_NAMES: Final = 5
_MOST_COMPARED: Final = 100


class Near(NamedTuple):
    """The nearest prefix that has objects.

    Attributes:
        parent: It, as a URI.
        names: URIs of what lies in it, at least one, the most similar to what was asked for first.
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
            page = cast(ListPage, queue.take(queue.list_page(uri.bucket, parent, delimiter="/")))
            names = [*page.common_prefixes, *(page.key(row) for row in range(min(len(page), _MOST_COMPARED)))]
            if names:
                slash = wanted.find("/", len(parent))
                missing = wanted[: slash + 1] if slash >= 0 else wanted
                close = difflib.get_close_matches(missing, names, n=_MOST_NAMES)
                shown = close or names[:_MOST_NAMES]
                return Near(str(S3Uri(uri.bucket, parent)), [str(S3Uri(uri.bucket, name)) for name in shown])
            if not parent:
                return None
            parent = parent[:-1]
    return None
