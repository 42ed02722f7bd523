"""The index that lies beside the data, or above it: where, and what of a listing it covers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from s3dataset._client import Client, ClientRef
from s3dataset._manifest._chunks import with_samples
from s3dataset._manifest._index import index_location
from s3dataset._manifest._listing import OWN_FOLDER
from s3dataset._manifest._lookup import Lookup
from s3dataset._manifest._manifest import Manifest
from s3dataset._manifest._sample_columns import SampleColumns
from s3dataset._uri import S3Uri
from s3dataset.errors import ObjectNotFoundError, S3Exception
from s3dataset.formats import Format, describe, named_format

_FOLDERS_ABOVE: Final = 8
_INDEXES_ABOVE: Final = 2
_FORBIDDEN: Final = 403


@dataclass(frozen=True, slots=True)
class FoundIndex:
    """An index, held against a listing.

    Attributes:
        location: Where it was found.
        manifest: The objects of the listing with their samples; None unless it covers them all.
        missing: How many objects it does not know.
        changed: How many have another size or ETag than when they were indexed.
        example: The URI of the first of these, or "".
        other_format: It is of this format, another one than was asked for.
    """

    location: str
    manifest: Manifest | None
    missing: int = 0
    changed: int = 0
    example: str = ""
    other_format: Format | None = None

    @property
    def why(self) -> str:
        """What keeps it from being used, as the end of a sentence about it; "" where nothing does."""
        if self.other_format is not None:
            return f"is of {self.other_format!r}"
        parts = [f"does not know {_shards(self.missing)}"] * bool(self.missing)
        parts += [f"is of earlier contents of {_shards(self.changed)}"] * bool(self.changed)
        return f"{' and '.join(parts)}, as {self.example}" if parts else ""


def find_index(
    client: Client,
    prefix_uri: str | S3Uri,
    listed: Manifest,
    format: str | Format,  # noqa: A002
) -> FoundIndex | None:
    """Looks for the index beside the data, and where there is none that covers them, in the folders above.

    Requests: one where the folder itself has an index that is current (a large one is fetched with several). Else also
    one byte for each of the folders above, of eight at most, all at once; of the indexes there the nearest two are
    fetched.

    Args:
        client: Whose connections fetch it.
        prefix_uri: What was listed.
        listed: The listing; each of its objects is compared with the index by size and ETag.
        format: What the objects are.

    Returns:
        What covers the listing, else the nearest that knows some of its objects, or lies beside them; None where there
        is none.

    Raises:
        DecodeError: What is there is no manifest, or was written by a newer release.
        S3Exception: It could not be fetched.
        OSError: The disk is full.
    """
    own = index_location(prefix_uri, format)
    found = check_index(own, listed, format, client=client)
    if not len(listed) or (found is not None and found.manifest is not None):
        return found
    for location in indexes_above(client, own):
        other = check_index(location, listed, format, client=client)
        if other is None or other.missing == len(listed):
            continue
        if other.manifest is not None:
            return other
        found = found or other
    return found


def indexes_above(client: Client, location: str) -> Iterator[str]:
    """Where indexes of the same format lie in the folders above that of an index, the nearest first; two at most."""
    uri = S3Uri.parse(location, need_key=True)
    folder, own, name = uri.key.rpartition(OWN_FOLDER.decode())
    folders = folder.split("/")[:-1]  # each ends in a slash
    if not own or not folders:
        return
    depths = range(len(folders) - 1, max(len(folders) - 1 - _FOLDERS_ABOVE, -1), -1)
    keys = ["".join(f"{part}/" for part in folders[:depth]) + own + name for depth in depths]
    with client.queue() as queue:
        # Of a HEAD without an object nobody learns whether the bucket is there, which takes another request to tell.
        results = queue.take_many(queue.get([(uri.bucket, key, 0, 1, None, None) for key in keys]))
    left = _INDEXES_ABOVE
    for key, result in zip(keys, results, strict=True):
        if isinstance(result, S3Exception):
            # Who may read the folder need not be allowed to read what lies above it.
            if not isinstance(result, ObjectNotFoundError) and result.status != _FORBIDDEN:
                raise result
        elif left:
            left -= 1
            yield f"s3://{uri.bucket}/{key}"


def check_index(
    location: str,
    listed: Manifest,
    format: str | Format,  # noqa: A002
    *,
    client: Client | None = None,
) -> FoundIndex | None:
    """The same for an index elsewhere, fetched with the listing's client unless another is given."""
    index = _load(location, listed._ref if client is None else client.ref)  # noqa: SLF001
    return None if index is None else _compare(location, index, listed, format)


def _compare(location: str, index: Manifest, listed: Manifest, format: str | Format) -> FoundIndex:  # noqa: A002
    known, columns = index._columns, listed._columns  # noqa: SLF001
    description = describe(named_format(format))
    if known.samples is None or known.samples.description != description:
        return FoundIndex(location, None, len(columns), 0, listed.uri(0) if len(columns) else "", index.format)
    if known.samples.objects_fingerprint == columns.header["fingerprint"]:
        return FoundIndex(location, Manifest._of(known, listed._ref))  # noqa: SLF001
    lookup, samples = Lookup(known, ()), SampleColumns(description)
    missing = changed = 0
    example = ""
    for row in range(len(columns)):
        bucket = columns.bucket(row)
        there = lookup.row(bucket, columns.key_bytes(row))
        if there is None or known.bucket(there) != bucket:
            missing += 1
        elif known.size(there) != columns.size(row) or known.etag(there) != columns.etag(row):
            changed += 1
        else:
            samples.keep(row, known.samples, there)
            continue
        example = example or listed.uri(row)
    if missing or changed:
        samples.close()
        return FoundIndex(location, None, missing, changed, example)
    return FoundIndex(location, Manifest._of(with_samples(columns, samples), listed._ref))  # noqa: SLF001


def _shards(count: int) -> str:
    return f"{count:,} shard{'s' * (count != 1)}"


def _load(location: str, ref: ClientRef) -> Manifest | None:
    try:
        return Manifest._load(location, ref)  # noqa: SLF001
    except (ObjectNotFoundError, FileNotFoundError):
        return None
