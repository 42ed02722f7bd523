"""S3FileSystem: the parts put together, and objects as files."""

from collections.abc import Mapping
from typing import Any

from fsspec.caching import caches
from fsspec.compression import compr
from fsspec.core import get_compression

from s3dataset.fsspec._bytes import Bytes
from s3dataset.fsspec._files import CompressedFile, ReadFile, TextFile, WriteFile, exists_error
from s3dataset.fsspec._listing import Entry
from s3dataset.fsspec._options import write_headers

__all__ = ["S3FileSystem"]

_MODES = ("rb", "wb", "xb", "ab")
_TEXT = ("encoding", "errors", "newline")


class S3FileSystem(Bytes):
    """S3 for everything that speaks fsspec, over the engine: many objects at once, large ones in parallel ranges.

    Takes the storage options that users of s3fs give, and answers with the same names. A written object appears whole
    or not at all: an exception in `with`, in a transaction too, leaves what was there. What is read is of one version.

    Listings are not kept unless `use_listings_cache=True`, so that what others write is seen. Instances live through
    forks, and pickle with their options: keys among them if they were given as `key` and `secret`. fsspec keeps one for
    each thread and set of options; all share the process's connections. Synchronous: coroutines take
    `fsspec.implementations.asyn_wrapper.AsyncFileSystemWrapper`.

    Example:
        >>> fs = S3FileSystem(region="us-west-2")
        >>> fs.find("bucket/data")
        >>> with fs.open("s3://bucket/report.csv", "w") as file:
        ...     file.write("a,b")

    Args:
        anon: Send no signature: for public buckets.
        endpoint_url, endpoint: URL of a service of one's own; default: from the environment, else Amazon's.
        key, secret, token: Keys; default: botocore's chain. `username` and `password` are the first two as well.
        region: Where buckets are first looked for; default: from the environment, the profile, else the bucket tells.
        s3client_config: Settings of the client; what the other options say goes before it.
        profile: Section of the shared configuration files.
        session: A botocore or boto3 session to take keys from.
        requester_pays: Say with every request that whoever signs pays.
        s3_additional_kwargs: What is said of objects that are written, in boto3's names ("ServerSideEncryption").
        client_kwargs, config_kwargs, use_ssl: As boto3 has them, where they mean something here.
        use_listings_cache: Keep what `ls` found, for `listings_expiry_time` seconds, of `max_paths` directories; both
            without a limit by default.
        default_cache_type: "none" reads exactly what is asked for; every other one reads ahead as `S3Reader` does.
        default_block_size: s3fs's, as are `default_fill_cache`, `max_concurrency`, `cache_regions`,
            `fixed_upload_size`, `local_expiry_check` and `loop`. Accepted; the engine decides.

    Raises:
        InvalidConfigError: An option cannot work, or contradicts another one. It is a ValueError too.
        NotImplementedError: `asynchronous` or `version_aware` is asked for.
        TypeError: An option is unknown.
    """

    # -- Files ------------------------------------------------------------------------------------------------------

    def open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        cache_options: Mapping[str, Any] | None = None,
        compression: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Opens an object as a file.

        Args:
            path: Path or URL.
            mode: "r" (an `S3Reader`), "w", "x" (only if there is none), "a" (what is there is read and written anew,
                unless somebody else writes meanwhile); with "b" for bytes, else for text.
            block_size: Accepted: the reader chooses by itself.
            cache_options: Accepted; "data" of the cache type "parts" is used.
            compression: A name that fsspec knows, or "infer".
            **kwargs: `encoding`, `errors`, `newline` for text; `cache_type`, `version_id`, `size` for reading; `acl`
                and what is said of the object, in boto3's names, for writing.

        Raises:
            FileNotFoundError: There is no such object to read.
            FileExistsError: There is one, and the mode is "x".
            ValueError: It is no such mode.
        """
        options: dict[str, Any] = {"block_size": block_size, "cache_options": cache_options}
        if "r" in mode:
            return super().open(path, mode, compression=compression, **options, **kwargs)
        if "b" not in mode:
            text = {name: kwargs.pop(name) for name in _TEXT if name in kwargs}
            binary = self.open(path, f"{mode.replace('t', '')}b", compression=compression, **options, **kwargs)
            return TextFile(binary, **text)
        file = super().open(path, mode, **options, **kwargs)
        codec = get_compression(self._name(path), compression)
        return file if codec is None else CompressedFile(compr[codec](file, mode=mode[0]), file)

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: Mapping[str, Any] | None = None,
        cache_type: str | None = None,
        version_id: str | None = None,
        size: int | None = None,
        details: Entry | None = None,
        acl: str | None = None,
        **kwargs: Any,
    ) -> ReadFile | WriteFile:
        if mode not in _MODES:
            raise ValueError(f"mode must be one of {', '.join(_MODES)}, or these with t for text, not {mode!r}")
        bucket, key = self._place(path)
        name = f"{bucket}/{key}"
        if mode != "rb":
            if mode == "xb" and self.isfile(path):
                raise exists_error(f"s3://{name}")
            return WriteFile(
                self,
                name,
                client=self.client,
                bucket=bucket,
                key=key,
                mode=mode,
                headers=write_headers(kwargs, self._headers, acl=acl),
                autocommit=autocommit,
                block_size=block_size,
            )
        cache_type = cache_type or self._cache_type
        if cache_type not in caches:
            raise ValueError(f"cache_type must be one of fsspec's, such as 'readahead' or 'none', not {cache_type!r}")
        if details is None and size is not None:
            details = {"name": name, "size": size, "type": "file"}
        if details is None:
            details = self.info(path, version_id=version_id)
        if details["type"] == "directory":
            raise IsADirectoryError(f"s3://{name} is a directory: find lists what is in it")
        return ReadFile(
            self,
            name,
            details,
            client=self.client,
            bucket=bucket,
            key=key,
            version_id=version_id,
            block_size=block_size,
            cache_type=cache_type,
            cache_options=cache_options,
        )

    def touch(self, path: str, truncate: bool = True, **kwargs: Any) -> None:
        """Writes an empty object; with `truncate=False` only where there is none.

        Raises:
            NotImplementedError: There is one, and `truncate` is False: S3 does not change an object's time.
        """
        if not truncate and self.exists(path):
            raise NotImplementedError(f"{path!r} exists, and its time cannot be changed: S3 knows when it was written")
        self.pipe_file(path, b"", **kwargs)
