"""Bytes: the part of the file system that moves objects, many at once."""

import mimetypes
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.utils import isfilelike

from s3dataset.fsspec._options import write_headers
from s3dataset.fsspec._transfers import Download, Upload, copy_all, download, fetch, fetch_ranges, put_all, upload
from s3dataset.fsspec._tree import Tree

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Buffer

    from s3dataset.errors import S3Exception

__all__ = ["Bytes"]


class Bytes(Tree):
    """Between S3, memory and the local disk, and within S3. See `S3FileSystem`."""

    # -- Between S3 and memory --------------------------------------------------------------------------------------

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, version_id: str | None = None, **_: Any
    ) -> bytes:
        """The bytes of an object, or those of a slice of it, by one request or parallel ranges."""
        return fetch(self.client, self._place(path), (start, end), version_id)

    def cat(
        self, path: Any, recursive: bool = False, on_error: str = "raise", **kwargs: Any
    ) -> bytes | dict[str, bytes | Exception]:
        """The bytes of objects, all fetched at once: of one path bytes, of more, or of a pattern, by name.

        Args:
            path: Path, pattern, or several.
            recursive: What is below directories.
            on_error: "raise", "omit", or "return" the exception.
            **kwargs: `start` and `end` of each.

        Raises:
            ValueError: It is no such `on_error`.
            FileNotFoundError: An object is missing, or nothing matches a pattern.
        """
        if on_error not in ("raise", "omit", "return"):
            raise ValueError(f'on_error must be "raise", "omit" or "return", not {on_error!r}')
        with self._one_operation() as known:
            names = self.expand_path(path, recursive=recursive)
        if len(names) == 1 and isinstance(path, str) and names[0] == self._strip_protocol(path):
            return self.cat_file(names[0], **kwargs)
        names = [name for name in names if known.get(name, {}).get("type") != "directory"]
        span = kwargs.get("start"), kwargs.get("end")
        results = fetch_ranges(self.client, [(self._place(name), span) for name in names])
        found: dict[str, bytes | Exception] = {}
        for name, result in zip(names, results, strict=True):
            if not isinstance(result, Exception) or on_error == "return":
                found[name] = result
            elif on_error == "raise":
                raise result
        return found

    def cat_ranges(
        self,
        paths: list[str],
        starts: int | list[int | None] | None,
        ends: int | list[int | None] | None,
        max_gap: int | None = None,  # noqa: ARG002 - ranges side by side need no gaps bridged
        on_error: str = "return",
        **_: Any,
    ) -> list[bytes | Exception]:
        """Slices of objects, all fetched at once; those of one object are of one version of it.

        Args:
            paths: One for each slice.
            starts: First bytes, or one for all.
            ends: The bytes behind the last, or one for all.
            max_gap: Accepted.
            on_error: "return" exceptions in place of bytes, or "raise".
        """
        if not isinstance(paths, list):
            raise TypeError(f"paths must be a list, not {type(paths).__name__}")
        first = starts if isinstance(starts, list) else [starts] * len(paths)
        last = ends if isinstance(ends, list) else [ends] * len(paths)
        if not len(paths) == len(first) == len(last):
            raise ValueError(f"{len(paths)} paths, {len(first)} starts and {len(last)} ends do not belong together")
        wanted = [(self._place(path), (start, end)) for path, start, end in zip(paths, first, last, strict=True)]
        results = fetch_ranges(self.client, wanted)
        failed = [result for result in results if isinstance(result, Exception)]
        if failed and on_error == "raise":
            raise failed[0]
        return results

    def head(self, path: str, size: int = 1024) -> bytes:
        """The first `size` bytes, by one request."""
        return self.cat_file(path, 0, size)

    def tail(self, path: str, size: int = 1024) -> bytes:
        """The last `size` bytes, by one request."""
        return self.cat_file(path, -size) if size else b""

    def pipe_file(self, path: str, value: "Buffer", mode: str = "overwrite", **kwargs: Any) -> None:
        """Writes an object, from where the bytes are, large ones in parallel parts; "create" only where there is none.

        Raises:
            FileExistsError: There is one, and `mode` is "create".
            S3Exception: It was not written; an object that was there is as it was.
        """
        self._pipe({path: value}, mode=mode, **kwargs)

    def pipe(self, path: Any, value: "Buffer | None" = None, **kwargs: Any) -> None:
        """Writes an object, or all those of a dictionary from paths to bytes, many at once."""
        if isinstance(path, str):
            path = {path: value}
        elif not isinstance(path, dict):
            raise ValueError(f"path must be a str, or a dict from paths to bytes, not {type(path).__name__}")
        self._pipe(path, **kwargs)

    def _pipe(
        self, values: "Mapping[str, Buffer]", mode: str = "overwrite", acl: str | None = None, **kwargs: Any
    ) -> None:
        create = _creates(mode)
        if self._intrans:
            for path, value in values.items():
                with self.open(path, "xb" if create else "wb", acl=acl, **kwargs) as file:
                    file.write(value)
            return
        headers = write_headers(kwargs, self._headers, acl=acl)
        try:
            put_all(self.client, ((self._place(path), value) for path, value in values.items()), headers, create=create)
        finally:
            for path in values:
                self.invalidate_cache(path)

    # -- Between S3 and the local disk ------------------------------------------------------------------------------

    def get_file(
        self,
        rpath: str,
        lpath: Any,
        callback: Any = DEFAULT_CALLBACK,
        outfile: Any = None,
        version_id: str | None = None,
        **_: Any,
    ) -> None:
        """Fetches an object to a file, which is there whole or not at all; `lpath` may be a file open for writing."""
        target = outfile if outfile is not None else lpath if isfilelike(lpath) else os.fspath(lpath)
        if self._operation.gathered is not None:
            self._operation.gathered.append((self._name(rpath), target, version_id))
        else:
            self._get([(self._name(rpath), target, version_id)], [callback])

    def get(
        self,
        rpath: Any,
        lpath: Any,
        recursive: bool = False,
        callback: Any = DEFAULT_CALLBACK,
        maxdepth: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Fetches objects to files, many at once: see fsspec for which."""
        with self._gathering() as gathered:
            super().get(rpath, lpath, recursive=recursive, maxdepth=maxdepth, **kwargs)
            self._operation.gathered = None
            self._get(gathered, _children(callback, [(remote, local) for remote, local, _ in gathered]))

    def _get(self, wanted: list[tuple[Any, ...]], callbacks: list[Any]) -> None:
        known = self._operation.known or {}
        items = []
        for (name, target, version_id), callback in zip(wanted, callbacks, strict=True):
            if known.get(name, {}).get("type") == "directory":
                Path(target).mkdir(parents=True, exist_ok=True)
            else:
                items.append(Download(self._place(name), target, callback, version_id))
        download(self.client, items)

    def put_file(
        self,
        lpath: Any,
        rpath: str,
        callback: Any = DEFAULT_CALLBACK,
        mode: str = "overwrite",
        acl: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Sends a file, with the media type that its name tells; "create" only where there is no object."""
        item = os.fspath(lpath), self._name(rpath), _creates(mode), acl, kwargs
        if self._operation.gathered is not None:
            self._operation.gathered.append(item)
        else:
            self._put([item], [callback])

    def put(
        self,
        lpath: Any,
        rpath: Any,
        recursive: bool = False,
        callback: Any = DEFAULT_CALLBACK,
        maxdepth: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Sends files, many at once: see fsspec for which."""
        with self._gathering() as gathered:
            super().put(lpath, rpath, recursive=recursive, maxdepth=maxdepth, **kwargs)
        self._put(gathered, _children(callback, [(item[0], item[1]) for item in gathered]))

    def _put(self, wanted: list[tuple[Any, ...]], callbacks: list[Any]) -> None:
        items = []
        for (path, name, create, acl, options), callback in zip(wanted, callbacks, strict=True):
            if Path(path).is_dir():
                continue
            media_type = mimetypes.guess_type(path)[0]
            said = options if media_type is None else {"ContentType": media_type} | options
            headers = write_headers(said, self._headers, acl=acl)
            items.append(Upload(path, self._place(name), headers, create, callback))
        if self._intrans:
            for item in items:
                with self.open("/".join(item.place), "xb" if item.create else "wb") as file:
                    file.write(Path(item.path).read_bytes())
            return
        try:
            upload(self.client, items)
        finally:
            for item in items:
                self.invalidate_cache("/".join(item.place))

    # -- Within S3 --------------------------------------------------------------------------------------------------

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """Copies an object of any size within S3, with its metadata."""
        if self._operation.gathered is not None:
            self._operation.gathered.append((self._name(path1), self._name(path2)))
        else:
            self._copy([(self._name(path1), self._name(path2))], skip_missing=False)

    def copy(
        self,
        path1: Any,
        path2: Any,
        recursive: bool = False,
        maxdepth: int | None = None,
        on_error: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Copies objects within S3, many at once: see fsspec for which.

        Args:
            path1: Sources.
            path2: Destination, or one for each source.
            recursive: What is below directories too.
            maxdepth: How many levels.
            on_error: "ignore" what is missing, or "raise"; default: "ignore" if recursive.
            **kwargs: Accepted.
        """
        with self._gathering() as gathered:
            super().copy(path1, path2, recursive=recursive, maxdepth=maxdepth, on_error=on_error, **kwargs)
            self._copy(gathered, skip_missing=(on_error or ("ignore" if recursive else "raise")) == "ignore")

    def _copy(self, wanted: list[tuple[Any, ...]], *, skip_missing: bool) -> None:
        known = self._operation.known or {}
        pairs = [pair for pair in wanted if known.get(pair[0], {}).get("type") != "directory"]
        try:
            copy_all(self.client, [(self._place(a), self._place(b)) for a, b in pairs], skip_missing=skip_missing)
        finally:
            for _, name in pairs:
                self.invalidate_cache(name)

    def rm_file(self, path: str) -> None:
        """Removes an object; one that is not there counts as removed."""
        self.client.delete_object(*self._place(path))
        self.invalidate_cache(path)

    def _rm(self, path: str) -> None:
        self.rm_file(path)

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Removes objects, 1,000 a request. Of a bucket, all that is in it; the bucket stays.

        Args:
            path: Path, pattern, or several. An object that is not there counts as removed.
            recursive: What is below directories too.
            maxdepth: How many levels.

        Raises:
            FileNotFoundError: There is nothing at all, and `recursive` is True or it is a pattern.
            S3Exception: Not everything was removed.
        """
        keys: dict[str, list[str]] = {}
        with self._one_operation() as known:
            names = self.expand_path(path, recursive=recursive, maxdepth=maxdepth)
            for name in names:
                bucket, key = self.split_path(name)
                if not key and not recursive:
                    self._refuse_bucket(bucket)
                if key:
                    chosen = keys.setdefault(bucket, [])
                    chosen.append(key)
                    if known.get(name, {}).get("type") == "directory":
                        chosen.append(f"{key}/")  # the object that may stand for it
        try:
            for bucket, chosen in keys.items():
                if len(chosen) == 1:
                    self.client.delete_object(bucket, chosen[0])
                    continue
                refused = self.client.delete_objects(bucket, chosen)
                if refused:
                    error: S3Exception = refused[0][1]
                    error.add_note(f"{len(refused):,} of {len(chosen):,} objects were not removed")
                    raise error
        finally:
            for name in names:
                self.invalidate_cache(name)


def _creates(mode: str) -> bool:
    if mode not in ("overwrite", "create"):
        raise ValueError(f'mode must be "overwrite" or "create", not {mode!r}')
    return mode == "create"


class _Child:
    """The callback of one of many files: told of its bytes, it tells its parent when they are all there."""

    def __init__(self, parent: Any, names: tuple[Any, Any]) -> None:
        self._parent = parent
        self._names = names
        self._child: Any = None
        self._left: int | None = None

    def set_size(self, size: int) -> None:
        self._child = self._parent.branched(*self._names)
        self._child.set_size(size)
        self._left = size
        self.relative_update(0)

    def relative_update(self, nbytes: int) -> None:
        if self._left is None:
            return
        self._child.relative_update(nbytes)
        self._left -= nbytes
        if self._left <= 0:
            self._left = None
            self._child.close()
            self._parent.relative_update(1)


def _children(callback: Any, names: list[tuple[Any, Any]]) -> list[Any]:
    callback.set_size(len(names))
    return [_Child(callback, pair) for pair in names]
