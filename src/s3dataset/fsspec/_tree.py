"""Tree: the part of the file system that is about names."""

import errno
import hashlib
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, ClassVar, Final, NoReturn, cast

from fsspec.spec import AbstractFileSystem, _Cached
from fsspec.utils import tokenize

from s3dataset._client import Client
from s3dataset._config import S3ClientConfig
from s3dataset._uri import S3Uri
from s3dataset.errors import ObjectNotFoundError
from s3dataset.fsspec._listing import Entry, Found, directory_entry, entry_of, list_below, list_directory, list_levels
from s3dataset.fsspec._options import client_ref, wants_to_pay, write_headers

__all__ = ["Tree"]

_BUCKETS: Final = "buckets are neither listed, made nor removed here: use the AWS CLI (aws s3 ls, mb, rb)"
_MAGIC: Final = "*?["


class _Operation(threading.local):
    """What one call gathers in this thread, to do it all at once.

    fsspec's own methods find out which paths belong together, so that its rules are not repeated here. Meanwhile
    `get_file`, `put_file` and `cp_file` only note what they were called with.

    Attributes:
        gathered: What they were called with; None when nothing is to be gathered.
        known: What was found out meanwhile, by name, so that nothing is asked for twice.
    """

    gathered: list[tuple[Any, ...]] | None = None
    known: dict[str, Entry] | None = None


class _WithDefaults(_Cached):  # type: ignore[misc] # fsspec has no types
    """Makes instances, with the options that `register` was given where nothing is said."""

    _defaults: Mapping[str, Any]

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - a metaclass's
        options = {**cls._defaults, **kwargs}
        config = options.get("s3client_config")
        if isinstance(config, S3ClientConfig) and (config.credentials or config.sse_customer_key or config.proxy):
            # fsspec tells instances apart by the text of their options, in which secrets are masked.
            options["skip_instance_cache"] = True
        return super().__call__(*args, **options)


class Tree(AbstractFileSystem, metaclass=_WithDefaults):  # type: ignore[misc] # likewise
    """Options, and what is there. See `S3FileSystem`."""

    protocol = ("s3", "s3a", "s3dataset")
    _defaults: Mapping[str, Any] = {}
    _caching: ClassVar["list[weakref.ref[Tree]]"] = []
    """Instances that keep listings: what one of them writes, the others must not go on to deny."""

    def __init__(
        self,
        anon: bool = False,
        endpoint_url: str | None = None,
        key: str | None = None,
        secret: str | None = None,
        token: str | None = None,
        *,
        use_ssl: bool = True,
        client_kwargs: Mapping[str, Any] | None = None,
        requester_pays: bool = False,
        default_block_size: int | None = None,
        default_fill_cache: bool = True,  # noqa: ARG002 - what is not used is s3fs's
        default_cache_type: str = "readahead",
        version_aware: bool = False,
        config_kwargs: Mapping[str, Any] | None = None,
        s3_additional_kwargs: Mapping[str, Any] | None = None,
        session: Any = None,
        username: str | None = None,
        password: str | None = None,
        region: str | None = None,
        endpoint: str | None = None,
        s3client_config: S3ClientConfig | None = None,
        profile: str | None = None,
        asynchronous: bool = False,
        loop: Any = None,  # noqa: ARG002
        cache_regions: bool = True,  # noqa: ARG002
        max_concurrency: int | None = None,  # noqa: ARG002
        fixed_upload_size: bool = False,  # noqa: ARG002
        local_expiry_check: bool = False,  # noqa: ARG002
        use_listings_cache: bool = False,
        listings_expiry_time: float | None = None,
        max_paths: int | None = None,
    ) -> None:
        super().__init__(
            use_listings_cache=use_listings_cache, listings_expiry_time=listings_expiry_time, max_paths=max_paths
        )
        if asynchronous:
            raise NotImplementedError(
                "S3FileSystem is synchronous: wrap it in fsspec.implementations.asyn_wrapper.AsyncFileSystemWrapper"
            )
        if version_aware:
            raise NotImplementedError(
                "S3FileSystem does not list versions: leave version_aware out, and give version_id= to open, info or "
                "cat_file"
            )
        self._ref = client_ref(
            region=region,
            endpoint=endpoint or endpoint_url,
            config=s3client_config,
            anon=anon,
            keys=(key or username, secret or password, token),
            session=session,
            profile=profile,
            use_ssl=use_ssl,
            requester_pays=requester_pays or wants_to_pay(s3_additional_kwargs),
            client_kwargs=client_kwargs,
            config_kwargs=config_kwargs,
        )
        self._headers = write_headers(s3_additional_kwargs or {})
        self._cache_type = default_cache_type
        if default_block_size is not None:
            self.blocksize = default_block_size
        self._operation = _Operation()
        if use_listings_cache:
            self._caching[:] = [ref for ref in self._caching if ref() is not None]
            self._caching.append(weakref.ref(self))

    @classmethod
    def set_defaults(cls, options: Mapping[str, Any]) -> None:
        """Instances that are made from now on have these options where nothing else is said."""
        cls._defaults = dict(options)
        cls.clear_instance_cache()

    @property
    def client(self) -> Client:
        """The client that the requests go through."""
        return self._ref.get()

    def __eq__(self, other: object) -> bool:
        return bool(super().__eq__(other)) and self._ref == cast("Tree", other)._ref

    def __hash__(self) -> int:
        return int(super().__hash__())

    # -- Names ------------------------------------------------------------------------------------------------------

    def split_path(self, path: str) -> tuple[str, str]:
        """Bucket and key of a path or URL; the key of a bucket is "".

        Raises:
            InvalidUriError: It names nothing in S3.
        """
        uri = S3Uri.parse_prefix(f"s3://{self._strip_protocol(path).lstrip('/')}")
        return uri.bucket, uri.key

    def _place(self, path: str) -> tuple[str, str]:
        """Bucket and key of what must be an object."""
        bucket, key = self.split_path(path)
        if not key:
            raise S3Uri.no_key(bucket)
        return bucket, key

    def _name(self, path: str) -> str:
        return cast(str, self._strip_protocol(path)).lstrip("/")

    # -- What is there ----------------------------------------------------------------------------------------------

    def info(self, path: str, refresh: bool = False, version_id: str | None = None, **_: Any) -> Entry:
        """What is known of a file or directory.

        A file has `name`, `size` (bytes), `type` "file", `ETag`, `LastModified` (a datetime), `mtime` (epoch seconds),
        `StorageClass` and, of a bucket with versions, `VersionId`. A directory has a size of 0 and the type
        "directory", and takes a listing more.

        Args:
            path: Path or URL.
            refresh: Ask, whatever is known from a listing.
            version_id: Of a bucket with versions; default: the current one.

        Raises:
            FileNotFoundError: There is nothing of that name. It is an ObjectNotFoundError or BucketNotFoundError.
            S3Exception: The service did not tell.
        """
        name = self._name(path)
        if not name:
            return directory_entry("")
        known = self._operation.known
        if version_id is None and not refresh:
            if known is not None and name in known:
                return known[name]
            listed = self._listed(name)
            if listed is not None:
                return listed
        bucket, key = self.split_path(path)
        entry = entry_of(self.client, bucket, key, version_id)
        if known is not None and version_id is None:
            known[name] = entry
        return entry

    def _listed(self, name: str) -> Entry | None:
        """What the listing of its directory, where that is kept, tells of a name that is in it."""
        try:
            entries = self.dircache[self._parent(name)]
        except KeyError:
            return None
        return next((entry for entry in entries if entry["name"] == name), None)

    def exists(self, path: str, **kwargs: Any) -> bool:
        """Whether there is a file or directory of this name. That nobody tells is an error, not a no."""
        try:
            self.info(path, **kwargs)
        except FileNotFoundError:
            return False
        return True

    def isdir(self, path: str) -> bool:
        """Whether there are objects whose keys go on behind this name and a slash, and none of this very name."""
        return self._type(path) == "directory"

    def isfile(self, path: str) -> bool:
        """Whether there is an object of this name."""
        return self._type(path) == "file"

    def _type(self, path: str) -> str | None:
        try:
            return str(self.info(path)["type"])
        except FileNotFoundError:
            return None

    def ls(self, path: str, detail: bool = False, refresh: bool = False, **_: Any) -> list[Any]:
        """What is directly in a directory, by name; of a file, itself.

        Args:
            path: Path or URL.
            detail: Give what `info` gives, not names alone; False, as s3fs has it.
            refresh: Ask, whatever is kept.

        Raises:
            FileNotFoundError: There is nothing of that name.
            NotImplementedError: All buckets are asked for.
            S3Exception: The service did not tell.
        """
        name = self._name(path)
        if not name:
            raise NotImplementedError(_BUCKETS)
        try:
            entries = None if refresh else cast("list[Entry] | None", self.dircache[name])
        except KeyError:
            entries = None
        if entries is None:
            bucket, key = self.split_path(path)
            found = list_directory(self.client, bucket, key)
            entries = list(found.entries(withdirs=True).values())
            if not found.exists and key:
                entries = [entry_of(self.client, bucket, key)]
            else:
                self.dircache[name] = entries
        return list(entries) if detail else [entry["name"] for entry in entries]

    def find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        prefix: str = "",
        **_: Any,
    ) -> Any:
        """All files below a directory, by name; of a file, itself.

        All depths take one listing, which is one request for a thousand files; `maxdepth` one for each directory, side
        by side.

        Args:
            path: Path or URL.
            maxdepth: How many levels.
            withdirs: Give directories too, the one asked for among them.
            detail: Give a dictionary from names to what `info` gives.
            prefix: Only names that begin so below `path`.

        Raises:
            NotImplementedError: All buckets are asked for.
            S3Exception: The service did not tell.
        """
        if maxdepth is not None and maxdepth < 1:
            raise ValueError(f"maxdepth must be at least 1, not {maxdepth}")
        if not self._name(path):
            raise NotImplementedError(_BUCKETS)
        bucket, key = self.split_path(path)
        found: Found
        if maxdepth is None:
            found = list_below(self.client, bucket, key, prefix)
        else:
            found = list_levels(self.client, bucket, key, maxdepth, prefix)
        entries = found.entries(withdirs=withdirs, withroot=not prefix)
        if not found.exists and key and not prefix:
            entries = self._itself(path)
        if self._operation.known is not None:
            self._operation.known.update(entries)
        return entries if detail else list(entries)

    def _itself(self, path: str) -> dict[str, Entry]:
        try:
            entry = self.info(path)
        except ObjectNotFoundError:
            return {}
        return {entry["name"]: entry} if entry["type"] == "file" else {}

    def glob(self, path: str, maxdepth: int | None = None, **kwargs: Any) -> Any:
        """Files and directories whose names match a pattern; only names that begin as it does are listed."""
        name = self._name(path)
        magic = min((at for at in map(name.find, _MAGIC) if at >= 0), default=None)
        if magic is None:
            return super().glob(path, maxdepth=maxdepth, **kwargs)
        if "/" not in name[:magic]:
            raise NotImplementedError(f"{path!r} is a pattern for buckets: {_BUCKETS}")
        return super().glob(path, maxdepth=maxdepth, prefix=name[:magic].rpartition("/")[2], **kwargs)

    def du(
        self, path: str, total: bool = True, maxdepth: int | None = None, withdirs: bool = False, **kwargs: Any
    ) -> Any:
        """Bytes of the files below a directory: their sum, or with `total=False` by name. Directories have none."""
        found = self.find(path, maxdepth=maxdepth, withdirs=withdirs, detail=True, **kwargs)
        sizes = {name: entry["size"] for name, entry in found.items()}
        return sum(sizes.values()) if total else sizes

    def modified(self, path: str) -> datetime:
        """When an object was written."""
        entry = self.info(path, refresh=True)
        if entry["type"] == "directory":
            raise IsADirectoryError(errno.EISDIR, "Directories of S3 have no time", path)
        return cast(datetime, entry["LastModified"])

    def created(self, path: str) -> datetime:
        """When an object was written: it is made anew each time."""
        return self.modified(path)

    def checksum(self, path: str, refresh: bool = True) -> int:
        """A number that is another one when an object has changed; from its ETag."""
        return int(self.ukey(path, refresh=refresh)[:32], 16)

    def ukey(self, path: str, refresh: bool = True) -> str:
        """A text that is another one when an object has changed; from its ETag."""
        entry = self.info(path, refresh=refresh)
        told = entry.get("ETag") or tokenize(entry)
        return hashlib.sha256(f"{entry['name']}\n{entry['size']}\n{told}".encode()).hexdigest()

    # -- Directories ------------------------------------------------------------------------------------------------

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:  # noqa: ARG002 - fsspec's
        """Does nothing: directories come with what is in them. Buckets are not made.

        Raises:
            FileExistsError: The path is a bucket, which is there.
            NotImplementedError: It is a bucket, which is not there.
        """
        bucket, key = self.split_path(path)
        if key:
            return
        if self.exists(path):
            raise FileExistsError(errno.EEXIST, "The bucket exists", bucket)
        self._refuse_bucket(bucket)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Does nothing, as `mkdir`."""
        try:
            self.mkdir(path)
        except FileExistsError:
            if not exist_ok:
                raise

    def rmdir(self, path: str) -> None:
        """Removes an empty directory: the empty object that stands for it.

        Raises:
            FileNotFoundError: There is no such directory.
            OSError: It is not empty.
            NotImplementedError: It is a bucket.
        """
        bucket, key = self.split_path(path)
        if not key:
            self._refuse_bucket(bucket)
        found = list_directory(self.client, bucket, key)
        if not found.exists:
            raise FileNotFoundError(errno.ENOENT, "There is no such directory", path)
        if found.entries(withdirs=True):
            raise OSError(errno.ENOTEMPTY, "The directory is not empty: rm(recursive=True) removes what is in it", path)
        self.client.delete_object(bucket, f"{key}/")
        self.invalidate_cache(path)

    def _refuse_bucket(self, bucket: str) -> NoReturn:
        raise NotImplementedError(f"{bucket!r}: {_BUCKETS}")

    # -- What is kept of listings -----------------------------------------------------------------------------------

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forgets listings: all, or those that tell something of a path; in every instance of this process."""
        super().invalidate_cache(path)
        for reference in list(self._caching):
            tree = reference()
            if tree is not None:
                tree.forget(path)

    def forget(self, path: str | None) -> None:
        """Forgets the listings of this instance."""
        if path is None:
            self.dircache.clear()
            return
        name = self._name(path)
        for kept in list(self.dircache):
            if kept.startswith(f"{name}/"):
                self.dircache.pop(kept, None)
        while name:
            self.dircache.pop(name, None)
            name = self._parent(name)

    @contextmanager
    def _one_operation(self) -> "Iterator[dict[str, Entry]]":
        """Within it, what was found out once is not asked for again."""
        operation = self._operation
        if operation.known is not None:
            yield operation.known
            return
        operation.known = {}
        try:
            yield operation.known
        finally:
            operation.known = None

    @contextmanager
    def _gathering(self) -> "Iterator[list[tuple[Any, ...]]]":
        """Within it, operations on single files are noted instead."""
        with self._one_operation():
            gathered: list[tuple[Any, ...]] = []
            self._operation.gathered = gathered
            try:
                yield gathered
            finally:
                self._operation.gathered = None
