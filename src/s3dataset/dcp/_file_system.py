"""S3FileSystem: S3 as torch.distributed.checkpoint's file system."""

import io
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import PurePath

import torch
from torch.distributed.checkpoint.filesystem import FileSystemBase

from s3dataset._client import UserAgent
from s3dataset._config import S3ClientConfig
from s3dataset._io import S3Client, S3ReaderConstructor, S3ReaderConstructorProtocol, check_constructor
from s3dataset._uri import S3Uri
from s3dataset.errors import ObjectNotFoundError

__all__ = ["S3FileSystem", "uri_of"]

_SCHEME = "s3://"
_SCHEME_OF_A_PATH = "s3:/"


def uri_of(path: str | os.PathLike[str], *, need_key: bool = True) -> S3Uri:
    """Takes apart what torch passes about as a path.

    Raises:
        InvalidUriError: It names nothing in S3.
    """
    text = os.fspath(path)
    if isinstance(path, PurePath) and text.startswith(_SCHEME_OF_A_PATH) and not text.startswith(_SCHEME):
        text = _SCHEME + text[len(_SCHEME_OF_A_PATH) :]  # a Path keeps one slash of two
    return S3Uri.parse(text, need_key=need_key)


class S3FileSystem(FileSystemBase):
    """torch.distributed.checkpoint's FileSystemBase over S3. Picklable; safe between threads and over forks.

    Args:
        region: Where the bucket is; None: from the environment, the profile, else the bucket itself tells.
        s3_client: A client to use in place of one made of the other arguments.
        s3client_config: Everything else.
        reader_constructor: Read-ahead of the streams to read.
        endpoint: URL of a service of one's own; default: from the environment, else Amazon's.

    Raises:
        InvalidConfigError: The endpoint is no URL.
        TypeError: `s3client_config` is none.
    """

    def __init__(
        self,
        region: str | None = None,
        s3_client: S3Client | None = None,
        s3client_config: S3ClientConfig | None = None,
        reader_constructor: S3ReaderConstructorProtocol | None = None,
        *,
        endpoint: str | None = None,
    ) -> None:
        check_constructor(reader_constructor)
        self._path: str | os.PathLike[str] = ""
        self._reader_constructor = reader_constructor or S3ReaderConstructor.default()
        if s3_client is None:
            kind = S3ReaderConstructor.get_reader_type_string(self._reader_constructor)
            agent = UserAgent(["dcp", torch.__version__, f"md/reader_type#{kind}"])
            s3_client = S3Client(region, endpoint=endpoint, user_agent=agent, s3client_config=s3client_config)
        self._client = s3_client

    @property
    def client(self) -> S3Client:
        """What does the work."""
        return self._client

    @contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Generator[io.IOBase, None, None]:
        """Opens an object as a file for a `with` block.

        An object that is written appears, whole, when the block ends without an exception.

        Args:
            path: "s3://bucket/key".
            mode: "rb" or "wb".

        Raises:
            ValueError: It is another mode.
            InvalidUriError: `path` is something else.
        """
        uri = uri_of(path)
        if mode == "wb":
            with self._client.put_object(uri.bucket, uri.key) as writer:
                yield writer
        elif mode == "rb":
            with self._client.get_object(uri.bucket, uri.key, reader_constructor=self._reader_constructor) as reader:
                yield reader
        else:
            raise ValueError(
                f"Invalid {mode=} mode argument: create_stream only supports rb (read mode) & wb (write mode)"
            )

    def concat_path(self, path: str | os.PathLike[str], suffix: str) -> str:
        """-> the path with the suffix behind a slash."""
        text = os.fspath(path)
        if isinstance(path, PurePath) and text.startswith("s3:"):
            text = str(uri_of(path, need_key=False))  # a Path has lost a slash of "s3://"
        return f"{text}{suffix}" if text.endswith("/") else f"{text}/{suffix}"

    def init_path(self, path: str | os.PathLike[str]) -> str | os.PathLike[str]:
        """Notes the path of the checkpoint -> the same."""
        self._path = path
        return path

    def rename(self, old_path: str | os.PathLike[str], new_path: str | os.PathLike[str]) -> None:
        """Copies an object within the service, then deletes the old one.

        Raises:
            ValueError: The paths are in two buckets.
            ObjectNotFoundError: There is nothing at the old path.
            S3Exception: It failed. The object is at its old path still.
        """
        old, new = uri_of(old_path), uri_of(new_path)
        if old.bucket != new.bucket:
            error = ValueError(
                "Source and destination buckets cannot be different (rename does not support cross-buckets operations)"
            )
            error.add_note(f"From {old} to {new}.")
            raise error
        if old == new:
            return  # a copy onto itself, and then nothing
        self._client.copy_object(old.bucket, old.key, new.bucket, new.key)
        self._client.delete_object(old.bucket, old.key)

    def mkdir(self, path: str | os.PathLike[str]) -> None:
        """Does nothing: S3 has no directories."""

    def exists(self, path: str | os.PathLike[str]) -> bool:
        """-> whether there is an object of this name."""
        return self.find(path) is not None

    def find(self, path: str | os.PathLike[str]) -> str | None:
        """-> the ETag of the object of this name, None where there is none."""
        uri = uri_of(path)
        try:
            return self._client.head_object(uri.bucket, uri.key).etag
        except ObjectNotFoundError:
            return None

    def rm_file(self, path: str | os.PathLike[str]) -> None:
        """Deletes an object; one that is not there counts as deleted."""
        uri = uri_of(path)
        self._client.delete_object(uri.bucket, uri.key)

    def ls(self, path: str | os.PathLike[str]) -> list[str]:
        """-> URIs of the objects right below the path."""
        uri = uri_of(self.concat_path(path, ""), need_key=False)
        pages = self._client.list_objects(uri.bucket, uri.key, "/")
        return [str(S3Uri(uri.bucket, info.key)) for page in pages for info in page.object_info]

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """-> whether this can name a checkpoint in S3."""
        if isinstance(checkpoint_id, PurePath):
            return True
        try:
            uri_of(checkpoint_id, need_key=False)
        except (ValueError, TypeError):
            return False
        return True
