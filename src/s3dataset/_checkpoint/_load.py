"""An object of S3 on its way into torch's memory: no copy, every byte compared."""

import pickle
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import torch

from s3dataset._checkpoint._fetch import Fetch, Fetching, Opened, open_object
from s3dataset._checkpoint._image import Image, Place, UnusualArchiveError
from s3dataset._checkpoint._selection import select, storages_of
from s3dataset._checkpoint._sharing import SharedFetch, Sharing
from s3dataset._client import Client
from s3dataset._progress import Progress
from s3dataset._uri import S3Uri
from s3dataset.errors import ChecksumMismatchError, S3Exception

if TYPE_CHECKING:
    from s3dataset._client import RequestQueue

__all__ = ["load_object"]

_ATTEMPTS: Final = 3


def load_object(
    client: Client,
    uri: S3Uri,
    *,
    map_location: Any,
    keys: list[Any] | None,
    sharing: Sharing | None,
    progress: Progress | None,
    **arguments: Any,
) -> Any:
    """Fetches an archive of torch.save, each storage straight into the memory where it will stay.

    The unpickling goes on while bytes come. What came is compared at the end: the whole with the checksum that the
    service has of it, parts with those of the archive.

    Args:
        client: Of the store.
        uri: Of the archive.
        map_location: As torch.load's.
        keys: Of the part wanted; None: all.
        sharing: The ranks that do this together; None: this process by itself.
        progress: Is told of the bytes that are there.
        arguments: Others of torch.load.

    Raises:
        UnusualArchiveError: It is none that can be taken apart beforehand.
        ChecksumMismatchError: Several times other bytes came than are stored.
        S3Exception: It could not be read.
    """
    # A rank that has no use for the bytes of its own takes part in the exchanges of those that have.
    metas = [_is_meta(map_location)] if sharing is None else sharing.each(lambda: _is_meta(map_location))
    for _ in range(_ATTEMPTS):
        with client.queue() as queue:

            def open_it() -> Opened:
                opened = open_object(queue, uri)
                return opened if keys is None else opened.read_around(queue)

            opened = open_it() if sharing is None else sharing.opened(open_it)
            is_whole = keys is None and not all(metas)
            settings: dict[str, Any] = {
                "part_bytes": client.part_size,
                "algorithm": opened.stored.algorithm if is_whole and opened.stored else None,
                "progress": progress,
            }
            image, ranges = _prepared(opened, keys, sharing, arguments, is_whole=is_whole)
            fetch: Fetching
            if sharing is None:
                fetch = Fetch(queue, opened, image, ranges, **settings)
            else:
                fetch = _shared(sharing, queue, opened, image, ranges, settings)
            try:
                result = image.load(map_location, wait=fetch.wait, **arguments)
                if keys is not None:
                    result = select(result, keys, str(uri))
                found = fetch.finish()
            except Exception as error:
                fetch.give_up(error)
                raise
        wrong: object = None
        if not is_whole:
            wrong = image.differing() or None
        elif opened.stored is not None and found != opened.stored.value:
            wrong = found
        if sharing is not None:
            wrong = next((other for other in sharing.gather(wrong) if other is not None), None)
        if wrong is None:
            return result
        del result, image, fetch
    raise ChecksumMismatchError(_wrong_text(uri, opened, wrong), operation="GetObject", uri=str(uri))


def _prepared(
    opened: Opened, keys: list[Any] | None, sharing: Sharing | None, arguments: dict[str, Any], *, is_whole: bool
) -> tuple[Image, list[tuple[int, int]]]:
    """-> an image with memory, and the ranges that are wanted, on all ranks or on none.

    Raises:
        ValueError: The ranks want different ones.
    """
    prepared: list[tuple[Image, list[tuple[int, int]]]] = []

    def prepare() -> int:
        image = opened.image()
        places = image.places if is_whole else [] if keys is None else _needed(image, keys, opened.uri, arguments)
        image.want(places)
        ranges = [(0, opened.nbytes)] if is_whole else _ranges(image, places)
        prepared.append((image, ranges))
        return hash(tuple(ranges))

    if sharing is None:
        prepare()
    elif len(set(sharing.each(prepare))) > 1:
        raise ValueError(
            f"{opened.uri}: the ranks of the group ask for different parts of it: give all of them the same keys, or "
            "load without a group"
        )
    return prepared[0]


def _shared(
    sharing: Sharing,
    queue: "RequestQueue",
    opened: Opened,
    image: Image,
    ranges: list[tuple[int, int]],
    settings: dict[str, Any],
) -> SharedFetch:
    """Takes the memory of exchanges on all ranks or on none: the others would wait for one that has none."""
    made: list[SharedFetch] = []
    sharing.each(lambda: made.append(SharedFetch(sharing, queue, opened, image, ranges, **settings)))
    return made[0]


def _is_meta(map_location: Any) -> bool:
    return isinstance(map_location, str | torch.device) and torch.device(map_location).type == "meta"


def _needed(image: Image, keys: list[Any], uri: S3Uri, arguments: dict[str, Any]) -> list[Place]:
    """The storages of a part; all, when that cannot be told without them.

    Raises:
        KeyError: There is no such part.
        UnpicklingError: As torch.load.
    """
    try:
        everything = image.load("cpu", wait=lambda start, end: None, **arguments)  # noqa: ARG005 - all is there
    except (S3Exception, UnusualArchiveError, pickle.UnpicklingError):
        raise
    except Exception:  # noqa: BLE001 - whatever a class does with tensors that have no values
        return image.places
    part = select(everything, keys, str(uri))
    try:
        found = {place for place in map(image.place_of, storages_of(part)) if place is not None}
    except Exception:  # noqa: BLE001 - as above
        return image.places
    return sorted(found, key=lambda place: place.start)


def _ranges(image: Image, places: Iterable[Place]) -> list[tuple[int, int]]:
    """Of these storages, their headers, and what else is not known; neighbours are joined."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted([*image.unknown_around(), *((place.header_start, place.end) for place in places)]):
        if joined and joined[-1][1] >= start:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def _wrong_text(uri: S3Uri, opened: Opened, wrong: object) -> str:
    if isinstance(wrong, str) and opened.stored:
        told = f"have the {opened.stored.algorithm} {wrong}, the service has stored {opened.stored.value}"
    else:
        told = f"are others than were saved, in {wrong}, as the checksums of the file tell"
    return f"{uri}: the bytes that came {told}: something on the way, in the store or in memory here, changes bytes"
