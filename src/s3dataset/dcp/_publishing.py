"""How a save becomes the checkpoint: in one request, and what was there before goes away only then."""

import logging
import pickle
import re
import secrets
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final

from s3dataset._io import S3Client
from s3dataset._uri import S3Uri
from s3dataset.errors import ConflictError, ObjectNotFoundError, PreconditionFailedError, S3Exception

__all__ = ["Leftovers", "conditions_are_unknown", "names_in", "new_suffix", "publish"]

_LOGGER = logging.getLogger("s3dataset")

_NOT_IMPLEMENTED: Final = 501
_SUFFIX: Final = ".distcp"
_OF_A_SAVE: Final = r"(?:-[0-9a-f]{12})?"
_DATA_OBJECT: Final = re.compile(rf"(.*?)\d+{_OF_A_SAVE}\.distcp", re.DOTALL)
_STANDARD: Final = re.compile(rf"__\d+_\d+{_OF_A_SAVE}\.distcp")
_OF_A_RANK: Final = re.compile(r"__\d+\.metadata")
_FEW_FOLDERS: Final = 16
_SHORT_TEXT, _TEXT = 0x8C, 0x58  # opcodes of a pickle, with lengths of one and four bytes


def new_suffix() -> str:
    """What tells the objects of one save from those of others."""
    return f"-{secrets.token_hex(6)}"


def conditions_are_unknown(error: S3Exception) -> bool:
    """Whether the store refused a request because it knows no conditions."""
    return error.status == _NOT_IMPLEMENTED


def publish(client: S3Client, uri: S3Uri, metadata: Any, *, replaces: str | None) -> None:
    """Writes the object that makes data objects a checkpoint.

    Args:
        client: Whose connections are used.
        uri: The object.
        metadata: Its content.
        replaces: ETag of what is there; None: nothing is.

    Raises:
        PreconditionFailedError: Something else is there.
        S3Exception: It was not written.
    """
    try:
        _write(client, uri, metadata, if_none_match=replaces is None, if_match=replaces or None)
    except (PreconditionFailedError, ConflictError) as error:
        if replaces is None or _etag_now(client, uri) != replaces:
            error.add_note(
                f"{uri} was written by somebody else since this save began. That checkpoint stays; this one was not "
                "published. Let only one save at a time go to one place."
            )
            raise
        # What it says did not hold does hold: Ceph 16 refuses every PutObject with If-Match.
        _write_anyway(client, uri, metadata)
    except S3Exception as error:
        if not conditions_are_unknown(error):
            raise
        _write_anyway(client, uri, metadata)


def _etag_now(client: S3Client, uri: S3Uri) -> str | None:
    try:
        return client.head_object(uri.bucket, uri.key).etag
    except ObjectNotFoundError:
        return None


def _write_anyway(client: S3Client, uri: S3Uri, metadata: Any) -> None:
    _LOGGER.warning("the store of %s knows no conditional writes, so that two saves at once are not told apart", uri)
    _write(client, uri, metadata)


def _write(client: S3Client, uri: S3Uri, metadata: Any, **conditions: Any) -> None:
    with client.put_object(uri.bucket, uri.key, **conditions) as writer:
        pickle.dump(metadata, writer)


def names_in(metadata: memoryview) -> set[str]:
    """Names of data objects in pickled metadata, found without running the pickle, which might take gigabytes."""
    data = metadata.tobytes()
    names = set()
    for found in re.finditer(re.escape(_SUFFIX.encode()), data):
        end = found.end()
        for length in range(len(_SUFFIX) + 1, min(end, 1024)):
            start = end - length
            short = data[start - 2] == _SHORT_TEXT and data[start - 1] == length
            long = (
                start >= 5 and data[start - 5] == _TEXT and int.from_bytes(data[start - 4 : start], "little") == length
            )
            if short or long:
                names.add(data[start:end].decode("utf-8", "replace"))
                break
    return names


class Leftovers:
    """Objects of earlier saves, found before this one writes anything, and deleted when it is published.

    What is found beforehand cannot belong to a save that begins when this one is done; and one that is under way at the
    same time cannot be published after this one any more.

    Args:
        client: Whose connections are used.
        root: What the keys of the checkpoint begin with.
        prefixes: What the names of data objects begin with in this save.
        alone: Whether a rank saves by itself, and nothing of the others is to be touched.
    """

    def __init__(self, client: S3Client, root: S3Uri, prefixes: Iterable[str], *, alone: bool) -> None:
        self._client = client
        self._root = root
        self._prefixes = set(prefixes)
        self._alone = alone
        self._keys: set[str] = set()

    def find(self) -> None:
        """Looks for data objects. What cannot be found out is logged, and left to the next save."""
        try:
            self._keys |= set(self._listed())
        except S3Exception as error:
            self._warn(error)

    def find_replaced(self, metadata: S3Uri, etag: str) -> None:
        """Looks what the checkpoint consists of that will be replaced."""
        try:
            body = self._client.fetch(metadata.bucket, metadata.key, etag=etag)
            self._keys |= {self._root.key + name for name in names_in(memoryview(body))}
        except S3Exception as error:
            self._warn(error)

    def _warn(self, error: S3Exception) -> None:
        _LOGGER.warning("objects of earlier saves below %s were not found, and may remain: %s", self._root, error)

    def _listed(self) -> Iterator[str]:
        root, bucket = self._root.key, self._root.bucket
        if self._alone:
            beginnings = sorted(self._prefixes)
            folders = set(map(_folder_of, self._prefixes))
        else:
            # Below one's own folders alone: other checkpoints may lie below this one.
            folders = {_folder_of(prefix) for prefix in self._prefixes} | {""}
            begin = "__" if all(prefix.startswith("__", len(_folder_of(prefix))) for prefix in self._prefixes) else ""
            beginnings = [folder + begin for folder in sorted(folders)]
        if len(beginnings) > _FEW_FOLDERS:
            pages = self._client.list_objects(bucket, root)
        else:
            pages = chain.from_iterable(self._client.list_objects(bucket, root + some, "/") for some in beginnings)
        for page in pages:
            for info in page.object_info:
                name = info.key[len(root) :]
                if _folder_of(name) in folders and self._is_ours(name):
                    yield info.key

    def _is_ours(self, name: str) -> bool:
        found = _DATA_OBJECT.fullmatch(name)
        if found is not None and found[1] in self._prefixes:
            return True
        standard = found is not None and _STANDARD.fullmatch(name, len(_folder_of(name))) is not None
        return not self._alone and (standard or _OF_A_RANK.fullmatch(name) is not None)

    def delete(self, keep: Iterable[str]) -> None:
        """Deletes them. What cannot be deleted is logged, and left to the next save.

        Args:
            keep: Names that belong to the checkpoint.
        """
        keys = sorted(self._keys - {self._root.key + name for name in keep})
        if not keys:
            return
        try:
            refused = self._client.delete_objects(self._root.bucket, keys)
        except S3Exception as error:
            refused = [(keys[0], error)]
        if refused:
            _LOGGER.warning(
                "the checkpoint %s was saved, but objects of earlier saves remain (the next save tries again): %s",
                self._root,
                refused[0][1],
            )


def _folder_of(name: str) -> str:
    return name[: name.rfind("/") + 1]
