"""Manifest: what a dataset consists of."""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Self

from s3dataset._client import Client, ClientRef
from s3dataset._config import S3ClientConfig
from s3dataset._manifest._builder import Builder, Chunk
from s3dataset._manifest._chunks import ends_of, rebuilt
from s3dataset._manifest._columns import Columns, Row
from s3dataset._manifest._entries import Change, ManifestEntry, ManifestObjects, row_at
from s3dataset._manifest._files import fetched, map_file, write_file
from s3dataset._manifest._index import Indexing, IndexProgress, index_location
from s3dataset._manifest._indexed import ManifestSamples
from s3dataset._manifest._listing import Progress, list_columns
from s3dataset._manifest._lookup import Lookup
from s3dataset._manifest._split import dealt
from s3dataset._manifest._verify import changes
from s3dataset._uri import S3Uri, split_object_uri
from s3dataset.errors import InvalidUriError, ManifestMismatchError
from s3dataset.formats import Format

_SMALL_PICKLE_BYTES: Final = 1 << 20
_URIS_AT_ONCE: Final = 8192


class Manifest(ManifestSamples):
    """The objects of a dataset, in order: immutable columns that are mapped from a file, not parsed.

    Opening one of ten million objects takes as long as opening one of ten, and processes that map the same file share
    its memory: about 40 bytes an object and its key. The order of a listing is S3's: by the bytes of the keys' UTF-8. A
    manifest of up to a megabyte, or one that is in memory, pickles by value; any other as the path of its file, for
    other processes on the same machine: `save` it for other machines. Safe between threads and after forks.
    """

    __slots__ = ("__weakref__", "_lookup", "_ref")

    _lookup: Lookup
    _ref: ClientRef

    def __init__(self) -> None:
        raise TypeError("make a Manifest with from_prefix, from_objects or load")

    # -- Making one -------------------------------------------------------------------------------------------------

    @classmethod
    def from_prefix(
        cls,
        s3_uri: str,
        *,
        pattern: str | None = None,
        region: str | None = None,
        endpoint: str | None = None,
        s3client_config: S3ClientConfig | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> Self:
        """Lists everything below a prefix, with many requests at once.

        Takes at most 1.25 x as many requests as there are pages of 1,000 keys, and 32; one for up to 1,000 keys. Keys
        that end in "/" and are empty (the "folders" of consoles) are objects like others. What lies below the prefix in
        a folder ".s3dataset/" is left out: indexes of this data. Memory is bounded: rows beyond 64 MiB wait in the
        temporary folder.

        Args:
            s3_uri: "s3://bucket/prefix"; it need not end in a slash.
            pattern: Which keys to take: a glob on what follows the prefix. "*.jpg" is about the last component, in
                whatever folder; with a slash it is about the whole rest: "{train,val}/**/*.png",
                "shards/shard-{000..099}.tar". Default: all.
            region: Where the bucket is; default: environment, profile, else the bucket tells.
            endpoint: URL of a service of one's own.
            s3client_config: Further settings.
            progress: Called in this thread every so often with how far the listing is.

        Raises:
            InvalidUriError: The URI is none.
            InvalidConfigError: The pattern is none.
            S3Exception: Listing failed: BucketNotFoundError, AccessDeniedError, NoCredentialsError, ...

        Warns:
            EmptyPrefixWarning: There is nothing; the warning names prefixes that exist.
        """
        uri = S3Uri.parse_prefix(s3_uri)
        ref = ClientRef(region, endpoint, s3client_config)
        return cls._of(list_columns(ref.get(), uri, pattern=pattern, progress=progress), ref)

    @classmethod
    def from_objects(
        cls,
        object_uris: str | Iterable[str],
        *,
        region: str | None = None,
        endpoint: str | None = None,
        s3client_config: S3ClientConfig | None = None,
    ) -> Self:
        """Takes objects by name, without asking the service: sizes and ETags are not known.

        Args:
            object_uris: One URI, or an iterable of them, which is consumed at once. Order and repetitions are kept.
            region: As for `from_prefix`.
            endpoint: As for `from_prefix`.
            s3client_config: As for `from_prefix`.

        Raises:
            InvalidUriError: One of them is no URI of an object.
        """
        builder = Builder()
        uris = [object_uris] if isinstance(object_uris, str) else object_uris
        try:
            bucket, keys = "", list[bytes]()
            for uri in uris:
                next_bucket, key = split_object_uri(uri)
                if next_bucket != bucket or len(keys) == _URIS_AT_ONCE:
                    builder.add(Chunk(bucket, b"".join(keys), ends_of(keys)))
                    bucket, keys = next_bucket, []
                try:
                    keys.append(key.encode())
                except UnicodeEncodeError as e:
                    raise InvalidUriError(f"{uri!r} is no URI of an object: its key cannot be UTF-8 ({e})") from e
            builder.add(Chunk(bucket, b"".join(keys), ends_of(keys)))
            return cls._of(builder.finish(), ClientRef(region, endpoint, s3client_config))
        finally:
            builder.close()

    @classmethod
    def load(
        cls,
        location: str | os.PathLike[str],
        *,
        region: str | None = None,
        endpoint: str | None = None,
        s3client_config: S3ClientConfig | None = None,
    ) -> Self:
        """Opens a saved manifest.

        Args:
            location: A path, which is mapped, or "s3://bucket/key", which is downloaded first: a large one into the
                temporary folder, so that workers share it.
            region: Of the objects, as for `from_prefix`, and of `location` if it is in S3.
            endpoint: As for `from_prefix`.
            s3client_config: As for `from_prefix`.

        Raises:
            FileNotFoundError: There is nothing there (an ObjectNotFoundError for S3).
            DecodeError: It is no manifest.
            S3Exception: The download failed.
        """
        return cls._load(os.fspath(location), ClientRef(region, endpoint, s3client_config))

    @classmethod
    def _load(cls, text: str, ref: ClientRef) -> Self:
        if not text.startswith("s3://"):
            return cls.open(text, ref=ref)
        return cls._of(fetched(ref.get(), S3Uri.parse(text, need_key=True)), ref)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, ref: ClientRef | None = None) -> Self:
        """Maps a manifest's file.

        Raises:
            FileNotFoundError: There is none.
            DecodeError: It is something else.
        """
        text = os.fspath(path)
        return cls._of(map_file(text), ref or ClientRef())

    @classmethod
    def _of(cls, columns: Columns, ref: ClientRef) -> Self:
        self = cls.__new__(cls)
        self._columns = columns
        self._ref = ref
        prefixes = [S3Uri.parse_prefix(source["uri"]).key for source in columns.header["sources"]]
        self._lookup = Lookup(columns, [prefix for prefix in prefixes if prefix])
        return self

    # -- Keeping one ------------------------------------------------------------------------------------------------

    def save(self, location: str | os.PathLike[str]) -> None:
        """Writes the manifest, atomically: what is there before stays until the new one is whole.

        Args:
            location: A path, or "s3://bucket/key", written with the region, endpoint and settings of this manifest.

        Raises:
            OSError: The path cannot be written to.
            S3Exception: The upload failed.
        """
        text = os.fspath(location)
        if not text.startswith("s3://"):
            write_file(self._columns, text)
            return
        uri = S3Uri.parse(text, need_key=True)
        self._ref.get().put_many([(uri.bucket, uri.key, memoryview(self._columns.buffer))])

    def publish(self, path: str) -> None:
        """Makes the manifest's file at `path`, on the same machine, for processes that then `open` it.

        A link where it can be one, so that its memory is shared, else a copy. Atomic.

        Raises:
            OSError: The path cannot be written to.
        """
        if self._columns.path is not None:
            try:
                os.link(self._columns.path, path)
            except OSError:
                pass
            else:
                return
        write_file(self._columns, path)

    @property
    def path(self) -> str | None:
        """The file that this is mapped from; None where it is in memory."""
        return self._columns.path

    def __reduce__(self) -> tuple[Any, ...]:
        columns = self._columns
        small = columns.path is None or columns.nbytes <= _SMALL_PICKLE_BYTES
        return _unpickle, (
            type(self),
            bytes(columns.buffer) if small else None,
            None if small else self._columns.path,
            self.fingerprint,
            self._ref,
        )

    # -- What it holds ----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._columns)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Manifest):
            return NotImplemented
        return self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        buckets = ", ".join(self._columns.buckets) or "no bucket"
        samples = self._columns.samples
        of_shards = "" if samples is None else f"{samples.num_samples:,} samples, "
        return f"Manifest({self.num_objects:,} objects, {of_shards}{self.num_bytes:,} bytes, {buckets})"

    @property
    def num_objects(self) -> int:
        """How many objects."""
        return len(self._columns)

    @property
    def num_bytes(self) -> int:
        """The sum of their sizes, as far as they are known."""
        return int(self._columns.header["num_bytes"])

    @property
    def sizes(self) -> memoryview | None:
        """The sizes of all objects in bytes, in order, as the column of the file; None where none is known."""
        return self._columns.sizes

    @property
    def buckets(self) -> tuple[str, ...]:
        """The buckets that the objects are in."""
        return tuple(self._columns.buckets)

    @property
    def prefixes(self) -> tuple[str, ...]:
        """The prefixes that the objects were listed below, "s3://bucket/prefix"; none where they were named."""
        return tuple(str(source["uri"]) for source in self._columns.header["sources"])

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that are equal for equal objects in equal order: buckets, keys, sizes and ETags.

        With an index its format and the places of all samples count too. Made when the manifest is, so that reading it
        costs nothing.
        """
        return str(self._columns.header["fingerprint"])

    @property
    def objects(self) -> ManifestObjects:
        """The objects as a sequence of `ManifestEntry`, each made when asked for."""
        return ManifestObjects(self._columns)

    def rows(self, positions: Iterable[int]) -> list[Row]:
        """(bucket, key, size or None, ETag or None) at these positions, from 0 on; about a microsecond each.

        Raises:
            IndexError: A position is out of range.
        """
        return self._columns.rows(positions)

    def bucket(self, index: int) -> str:
        """The bucket of an object; a negative index counts from the end."""
        return self._columns.bucket(row_at(index, len(self)))

    def key(self, index: int) -> str:
        """The key of an object."""
        return self._columns.key(row_at(index, len(self)))

    def uri(self, index: int) -> str:
        """s3://bucket/key of an object."""
        row = row_at(index, len(self))
        return f"s3://{self._columns.bucket(row)}/{self._columns.key(row)}"

    def size(self, index: int) -> int | None:
        """The size of an object in bytes, None where not known."""
        return self._columns.size(row_at(index, len(self)))

    def etag(self, index: int) -> str | None:
        """The ETag of an object with its quotes, None where not known."""
        return self._columns.etag(row_at(index, len(self)))

    def mtime(self, index: int) -> int | None:
        """When an object was last modified, in epoch seconds, None where not known."""
        return self._columns.mtime(row_at(index, len(self)))

    def find(self, key_or_uri: str) -> int:
        """The position of an object: a binary search in a listing, else a table of hashes made at first use.

        Args:
            key_or_uri: A whole key, or "s3://bucket/key". A key in several buckets means the first of them.

        Raises:
            KeyError: It is not there; the message names similar ones.
            InvalidUriError: It begins as a URI and is none.
        """
        return self._lookup.find(key_or_uri)

    # -- An index of it ---------------------------------------------------------------------------------------------

    def index(
        self,
        format: str | Format,  # noqa: A002 - as the datasets call it
        *,
        reuse: "Manifest | str | os.PathLike[str] | None" = None,
        progress: Callable[[IndexProgress], None] | None = None,
        region: str | None = None,
        endpoint: str | None = None,
        s3client_config: S3ClientConfig | None = None,
    ) -> Self:
        """Finds where the samples of all shards lie, which makes them readable at random.

        Shards are scanned many at a time. Where samples are small their bytes stream through, over as many connections
        as the service takes; contents of more than 2 MiB are hopped over. Objects are those listed: their size and ETag
        are checked, and filled in where the manifest was made from URIs alone. Ctrl-C ends it within a second. Memory:
        128 MiB, or half of the client's byte budget; offsets beyond 32 MiB wait in the temporary folder.

        Args:
            format: What the objects are: "tar", "jsonl", ..., or a format with its options.
            reuse: An earlier index, or where it was saved: shards with the same bucket, key, size and ETag are not
                scanned again. What this manifest knows itself is used in any case.
            progress: Called in this thread, some times a second, with how far it is.
            region: Default, as for the others: that of the manifest.
            endpoint: See `region`.
            s3client_config: See `region`.

        Returns:
            The same objects in the same order, with their samples. `save` it; datasets take it as it is.

        Raises:
            ObjectChangedError: An object was replaced since the manifest was made; the message names it.
            UnindexableError: A shard can only be read from its beginning; the message names the command that packs it.
            DecodeError: A shard is not of this format, or it is broken.
            S3Exception: A shard could not be read.
            OSError: The disk is full.
        """
        ref = self._ref_with(region, endpoint, s3client_config)
        known = [self._columns]
        if reuse is not None:
            earlier = reuse if isinstance(reuse, Manifest) else Manifest._load(os.fspath(reuse), ref)
            known.append(earlier._columns)  # noqa: SLF001 - of the same class
        with closing(Indexing(self._columns, format, ref.get(), known)) as indexing:
            return self._of(indexing.run(progress), self._ref)

    @staticmethod
    def index_location(s3_uri: str, format: str | Format) -> str:  # noqa: A002
        """Where `s3dataset index` keeps the index of a prefix, and datasets look for it.

        There is one for each folder and format: of "s3://bucket/data/train-" in format "tar" it is
        "s3://bucket/data/.s3dataset/tar-index.manifest". It may hold more shards of that folder than those below the
        prefix.

        Raises:
            InvalidUriError: The URI is none.
        """
        return index_location(s3_uri, format)

    # -- Others made of it ------------------------------------------------------------------------------------------

    def filter(self, predicate: Callable[[ManifestEntry], bool]) -> Self:
        """The objects for which `predicate` is true, in their order."""
        objects = self.objects
        return self._picked(row for row, entry in enumerate(objects) if predicate(entry))

    def split(self, fractions: Mapping[str, float], seed: int = 0) -> dict[str, Self]:
        """Deals the objects to named parts, each by a hash of bucket, key and seed.

        An object's part does not depend on the others: a training set that grows keeps its validation set apart. So the
        fractions hold on average, not exactly: of 10,000 objects a part of 0.1 has 1,000 give or take 60. Fractions
        that sum to less than 1 leave the rest out.

        Args:
            fractions: Name and share of each part, as {"train": 0.9, "val": 0.1}.
            seed: Another seed deals otherwise.

        Returns:
            The parts by name, each in the order of the whole.

        Raises:
            ValueError: A share is not between 0 and 1, or they sum to more than 1.
        """
        return {name: self._picked(rows) for name, rows in dealt(self._columns, fractions, seed).items()}

    def __add__(self, other: "Manifest") -> Self:
        """All objects of this manifest, then all of the other; those in both come twice.

        Raises:
            ValueError: The samples of one of them are known and not those of the other, or they are in another format.
        """
        if not isinstance(other, Manifest):
            return NotImplemented
        both = (self._columns, other._columns)
        if len(both[0]) and len(both[1]):
            told = [None if columns.samples is None else columns.samples.description for columns in both]
            if told[0] != told[1]:
                raise ValueError(_not_alike(self, other))
        sources = self._columns.header["sources"]
        more = [source for source in other._columns.header["sources"] if source not in sources]
        return self._of(rebuilt([(columns, range(len(columns))) for columns in both], [*sources, *more]), self._ref)

    def _picked(self, rows: Iterable[int]) -> Self:
        """A manifest of these rows, which ascend."""
        sources = [{**source, "complete": False} for source in self._columns.header["sources"]]
        return self._of(rebuilt([(self._columns, rows)], sources), self._ref)

    @property
    def ref(self) -> ClientRef:
        """The client that lists, loads and verifies."""
        return self._ref

    # -- Against the service ----------------------------------------------------------------------------------------

    def verify(
        self,
        *,
        region: str | None = None,
        endpoint: str | None = None,
        s3client_config: S3ClientConfig | None = None,
    ) -> list[Change]:
        """Compares the manifest with what is there now.

        Prefixes that it was listed from are listed again; objects that were named are asked for one by one. What was
        added below a prefix is told only where the manifest holds all of the prefix, not after `filter` or `split`.

        Args:
            region: Default, as for the others: that of the manifest.
            endpoint: See `region`.
            s3client_config: See `region`.

        Returns:
            The differences by URI; [] when there are none.

        Raises:
            S3Exception: Asking failed.
        """
        return changes(self._columns, self._lookup, self._ref_with(region, endpoint, s3client_config).get())

    def _ref_with(self, region: str | None, endpoint: str | None, s3client_config: S3ClientConfig | None) -> ClientRef:
        """The client of this manifest, but for what is given."""
        ref = self._ref
        if region or endpoint or s3client_config:
            return ClientRef(region or ref.region, endpoint or ref.endpoint, s3client_config or ref.config)
        return ref


def list_prefix(
    client: Client,
    uri: S3Uri | str,
    *,
    pattern: str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Manifest:
    """`Manifest.from_prefix` over a client at hand."""
    if isinstance(uri, str):
        uri = S3Uri.parse_prefix(uri)
    columns = list_columns(client, uri, pattern=pattern, progress=progress)
    return Manifest._of(columns, client.ref)  # noqa: SLF001


def _not_alike(one: Manifest, other: Manifest) -> str:
    """Why two manifests do not add."""
    kinds = [manifest.format for manifest in (one, other)]
    if None not in kinds:
        return f"a manifest of {kinds[0]!r} and one of {kinds[1]!r} do not add: index both with the same format"
    manifest, kind = (one, kinds[1]) if kinds[0] is None else (other, kinds[0])
    return (
        "one of these manifests knows the samples of its shards, and the other does not. Index that one too, with "
        f".index({kind.name if kind else None!r}), or use what was listed of both: the one without has {manifest!r}"
    )


def _unpickle(
    cls: type[Manifest], content: bytes | None, path: str | None, fingerprint: str, ref: ClientRef
) -> Manifest:
    if content is not None:
        return cls._of(Columns(content, "a pickled manifest"), ref)
    if path is None or not Path(path).exists():
        raise ManifestMismatchError(
            f"the file of a pickled manifest is not on this machine ({path}): large manifests pickle as the path of "
            "their file. Save it with Manifest.save where both can reach it, and load it there"
        )
    manifest = cls.open(path, ref=ref)
    if manifest.fingerprint != fingerprint:
        raise ManifestMismatchError(
            f"{path} holds another manifest than the one that was pickled: it was replaced in the meantime"
        )
    return manifest
