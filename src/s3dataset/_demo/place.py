"""Where the demo keeps its objects: a local S3 that lives as long as the demo, or a prefix of a user's bucket."""

import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import s3dataset
from s3dataset._uri import S3Uri

LOCAL_BUCKET = "s3dataset-demo"


class DeclinedError(Exception):
    """The user did not agree to writing into the bucket."""


@dataclass(frozen=True, slots=True)
class Place:
    """A prefix that the demo may fill, and how it is reached. `uri` ends in a slash."""

    uri: str
    region: str | None
    endpoint: str | None
    profile: str | None = None

    @property
    def connection(self) -> dict[str, Any]:
        """The keyword arguments that name the service, of everything public."""
        config = s3dataset.S3ClientConfig(profile=self.profile) if self.profile else None
        return {"region": self.region, "endpoint": self.endpoint, "s3client_config": config}

    @property
    def images(self) -> str:
        return self.uri + "images/"

    def checkpoint(self, epoch: int) -> str:
        return f"{self.uri}checkpoints/epoch-{epoch}.pt"

    def client(self) -> s3dataset.S3Client:
        return s3dataset.S3Client(**self.connection)


@contextmanager
def local_place() -> Iterator[Place]:
    """A bucket in an S3 server on this machine, gone when the block ends."""
    from s3dataset.testing import LocalS3  # noqa: PLC0415 - only the local demo needs the server

    with LocalS3(LOCAL_BUCKET) as server:
        print(f"a local S3 at {server.endpoint} (in memory, gone when the demo ends)")
        yield Place(f"s3://{LOCAL_BUCKET}/", server.region, server.endpoint)


@contextmanager
def own_place(
    uri: str, *, region: str | None, endpoint: str | None, profile: str | None, yes: bool, keep: bool
) -> Iterator[Place]:
    """A new prefix `s3dataset-demo-<id>/` below `uri`; what the demo wrote there is deleted when the block ends.

    Raises:
        DeclinedError: The user said no, or cannot be asked.
        InvalidUriError: `uri` is no S3 URI.
    """
    base = S3Uri.parse_prefix(uri)
    parent = base.key + ("/" if base.key and not base.key.endswith("/") else "")
    place = Place(f"s3://{base.bucket}/{parent}s3dataset-demo-{secrets.token_hex(4)}/", region, endpoint, profile)
    if not yes:
        ask(place, keep=keep)
    try:
        yield place
    finally:
        if keep:
            print(f"kept: {place.uri}")
        else:
            remove(place)


def ask(place: Place, *, keep: bool) -> None:
    end = "It stays there" if keep else "All of it is removed at the end"
    print(f"The demo writes some 1,800 objects (5 MB with its checkpoints) below {place.uri} and nowhere else. {end}.")
    if not sys.stdin.isatty():
        raise DeclinedError("There is no terminal to ask on: say --yes to agree.")
    try:
        answer = input("Go on? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in {"y", "yes"}:
        raise DeclinedError("Nothing was written.")


def remove(place: Place) -> None:
    """Deletes everything below the place's own prefix."""
    target = S3Uri.parse_prefix(place.uri)
    try:
        client = place.client()
        removed = 0
        for page in client.list_objects(target.bucket, target.key):
            keys = [entry.key for entry in page.object_info]
            refused = client.delete_objects(target.bucket, keys)
            if refused:
                raise refused[0][1]
            removed += len(keys)
    except BaseException:
        print(f"Not everything was removed. Do: aws s3 rm --recursive {place.uri}", file=sys.stderr)
        raise
    print(f"removed {removed:,} objects below {place.uri}")
