"""What a URI stands for: one file, or the shards that an index names."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from s3dataset._client import Client
from s3dataset._uri import S3Uri
from s3dataset.errors import AccessDeniedError, DecodeError, ObjectNotFoundError, S3Exception
from s3dataset.safetensors._files import StoredFile, open_files
from s3dataset.safetensors._format import MAX_HEADER_BYTES

if TYPE_CHECKING:
    from s3dataset._client import Body, RequestQueue

__all__ = ["INDEX_NAME", "INDEX_SUFFIX", "SINGLE_NAME", "SUFFIX", "Weights", "open_weights", "parse_index", "within"]

SUFFIX: Final = ".safetensors"
INDEX_SUFFIX: Final = ".safetensors.index.json"
SINGLE_NAME: Final = "model.safetensors"
INDEX_NAME: Final = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class Weights:
    """Tensors by name, each with the file that holds it.

    Attributes:
        uri: As it was given.
        files: All of them.
        home: The file of each tensor.
        metadata: Of the file; of shards, those of the first, which all of them usually share.
    """

    uri: str
    files: list[StoredFile]
    home: dict[str, StoredFile]
    metadata: dict[str, str] | None


def within(directory: S3Uri, name: str) -> S3Uri:
    """An object beside or below others."""
    key = directory.key
    return S3Uri(directory.bucket, f"{key}{'' if not key or key.endswith('/') else '/'}{name}")


def open_weights(client: Client, text: str, *, checksums: bool) -> Weights:
    """Finds the files and reads their headers.

    Raises:
        InvalidUriError: `text` is none.
        DecodeError: A file or an index is none, or they contradict each other.
        ObjectNotFoundError: There is none.
        S3Exception: One could not be read.
    """
    uri = S3Uri.parse_prefix(text)
    with client.queue() as queue:
        index = None
        if uri.key.endswith(INDEX_SUFFIX):
            index = uri, _fetched(queue, uri)
        elif not uri.key.endswith(SUFFIX):
            uri, body = _found(queue, uri)
            index = None if body is None else (uri, body)
        if index is None:
            files = open_files(queue, [uri], checksums=checksums)
            return Weights(text, files, dict.fromkeys(files[0].header.entries, files[0]), files[0].header.metadata)
        named = parse_index(*index)
        folder = S3Uri(uri.bucket, uri.key.rpartition("/")[0] + "/" if "/" in uri.key else "")
        shards = {name: within(folder, name) for name in dict.fromkeys(named.values())}
        files = open_files(queue, list(shards.values()), checksums=checksums)
    by_name = dict(zip(shards, files, strict=True))
    home: dict[str, StoredFile] = {}
    for file in files:
        for name in file.header.entries:
            home.setdefault(name, file)
    for name, shard in named.items():
        file = by_name[shard]
        if name not in file.header.entries:
            raise DecodeError(f"{uri} says that tensor {name!r} is in {file.uri}, and it is not there", uri=str(uri))
        home[name] = file
    return Weights(text, files, home, files[0].header.metadata if files else None)


def _fetched(queue: "RequestQueue", uri: S3Uri) -> "Body":
    asked = queue.get([(uri.bucket, uri.key, None, None, None, None)], limit=MAX_HEADER_BYTES)
    return cast("Body", queue.take(asked.start))


def _found(queue: "RequestQueue", uri: S3Uri) -> "tuple[S3Uri, Body | None]":
    """What a name that tells nothing stands for: a file, a folder with one, a folder with an index and shards."""
    single, index = within(uri, SINGLE_NAME), within(uri, INDEX_NAME)
    names = [single] if not uri.key or uri.key.endswith("/") else [uri, single]
    heads = [queue.head(name.bucket, name.key) for name in names]
    asked = queue.get([(index.bucket, index.key, None, None, None, None)], limit=MAX_HEADER_BYTES)
    errors: list[S3Exception] = []
    for name, head in zip(names, heads, strict=True):
        try:
            queue.take(head)
        except (ObjectNotFoundError, AccessDeniedError) as error:  # of a missing key, where nobody may list
            errors.append(error)
        else:
            return name, None
    try:
        return index, cast("Body", queue.take(asked.start))
    except (ObjectNotFoundError, AccessDeniedError) as error:
        denied = next((one for one in (*errors, error) if isinstance(one, AccessDeniedError)), None)
        if denied is not None:
            raise denied from None
        tried = ", ".join(map(str, (*names, index)))
        raise ObjectNotFoundError(
            f"Service error: The key does not exist: none of {tried}. Give the file, its index, or the folder that "
            "they are in",
            operation="GetObject",
            uri=str(uri),
            status=404,
        ) from None


def parse_index(uri: S3Uri, data: "Body | memoryview | bytes") -> dict[str, str]:
    """-> the shard of each tensor.

    Raises:
        DecodeError: It is no index.
    """
    view = memoryview(data)

    def refuse(reason: str) -> NoReturn:
        raise DecodeError(f"{uri} is no index of safetensors files: {reason}", uri=str(uri))

    if len(view) >= MAX_HEADER_BYTES:
        refuse(f"it has {MAX_HEADER_BYTES:,} bytes and more")
    try:
        content: Any = json.loads(bytes(view))
    except (ValueError, RecursionError) as error:
        refuse(str(error))
    found = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        refuse("it has no weight_map that names a file for each tensor")
    for name in set(found.values()):
        if not name.endswith(SUFFIX) or name.startswith("/") or ".." in name.split("/"):
            refuse(f"{name[:100]!r} is no file beside it")
    return cast("dict[str, str]", found)
