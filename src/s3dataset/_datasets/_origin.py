"""Where the objects of a dataset come from: a prefix, a list of URIs, or a manifest."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from s3dataset._client import ClientRef
from s3dataset._manifest import Manifest, check_pattern, find_index, index_location, list_prefix
from s3dataset._uri import S3Uri
from s3dataset._warnings import warn_caller
from s3dataset.formats import Format

__all__ = ["Given", "Origin", "Prefix", "Saved", "given_objects", "manifest_origin", "prefix_origin"]


@dataclass(frozen=True, slots=True)
class Prefix:
    """The objects under a prefix, as they are when they are listed."""

    uri: S3Uri
    pattern: str | None
    format: Format | None = None

    def find(self, client_ref: ClientRef) -> Manifest:
        """Lists; where the objects are shards, also looks for their index beside them.

        Warns:
            UserWarning: There is an index, and it is not of what is there now.
        """
        client = client_ref.get()
        listed = list_prefix(client, self.uri, pattern=self.pattern)
        if self.format is None:
            return listed
        found = find_index(client, self.uri, listed, self.format)
        if found is None:
            return listed
        if found.manifest is None:
            own = index_location(self.uri, self.format)
            warn_caller(
                f"the index {found.location} is not used: it {found.why}. `s3dataset index {self.uri}` "
                f"{'brings it up to date' if found.location == own else 'makes one here'}, and reads only what changed",
                UserWarning,
            )
            return listed
        return found.manifest

    def __str__(self) -> str:
        return str(self.uri) + (f" with pattern {self.pattern!r}" if self.pattern is not None else "")


@dataclass(frozen=True, slots=True)
class Saved:
    """The objects of a manifest that was saved somewhere."""

    location: str

    def find(self, client_ref: ClientRef) -> Manifest:
        """Loads it."""
        return Manifest.load(
            self.location, region=client_ref.region, endpoint=client_ref.endpoint, s3client_config=client_ref.config
        )

    def __str__(self) -> str:
        return f"the manifest {self.location}"


@dataclass(frozen=True, slots=True)
class Given:
    """The objects of a manifest at hand."""

    manifest: Manifest

    def find(self, client_ref: ClientRef) -> Manifest:  # noqa: ARG002 - of the same form as the others
        """Returns it."""
        return self.manifest

    def __str__(self) -> str:
        return f"{len(self.manifest):,} objects"


Origin: TypeAlias = Prefix | Saved | Given


def prefix_origin(s3_uri: str, pattern: str | None, format: Format | None = None) -> Prefix:  # noqa: A002
    """Checks URI and pattern.

    Raises:
        InvalidUriError: The URI is none.
        ValueError: The pattern is none.
    """
    uri = S3Uri.parse_prefix(s3_uri)
    if pattern is not None:
        check_pattern(pattern)
    return Prefix(uri, pattern, format)


def given_objects(object_uris: str | Iterable[str], client_ref: ClientRef) -> Given:
    """Takes the URIs, at once, so that the dataset pickles.

    Raises:
        InvalidUriError: One of them is none.
        TypeError: One of them is no text, or `object_uris` is no iterable.
    """
    uris: Any = [object_uris] if isinstance(object_uris, str) else object_uris
    if isinstance(uris, bytes) or not (hasattr(uris, "__iter__") or hasattr(uris, "__getitem__")):
        raise TypeError(f"object_uris must be a URI or an iterable of URIs, not {type(uris).__name__}: {uris!r}")
    return Given(
        Manifest.from_objects(
            uris, region=client_ref.region, endpoint=client_ref.endpoint, s3client_config=client_ref.config
        )
    )


def manifest_origin(manifest: Manifest | str) -> Given | Saved:
    """Takes a manifest, or the place of one, which is loaded at first use.

    Raises:
        TypeError: It is neither.
        InvalidUriError: The place begins as an S3 URI and is none.
    """
    if isinstance(manifest, Manifest):
        return Given(manifest)
    if not isinstance(manifest, str):
        raise TypeError(f"manifest must be a Manifest, or the path or URI of one; got {type(manifest).__name__}")
    if manifest.startswith("s3:"):
        S3Uri.parse(manifest, need_key=True)
    return Saved(manifest)
