"""What distributed checkpoints in safetensors files look like: names, and what a file says of its shards."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Final, NoReturn

from s3dataset._client import Client
from s3dataset._uri import S3Uri
from s3dataset.errors import DecodeError, ObjectNotFoundError
from s3dataset.safetensors._dtypes import shape_of
from s3dataset.safetensors._files import StoredFile, open_files
from s3dataset.safetensors._format import Entry
from s3dataset.safetensors._weights import INDEX_NAME, SUFFIX, parse_index, within

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Chunk", "Stored", "file_metadata", "file_name", "folder_of", "stored_tensors"]

_SHARDING: Final = "DCP_SHARDING_INFO"
_OFFSETS: Final = "saved_offsets"
_SAVE: Final = "S3DATASET_SAVE"

Offsets = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a tensor, as a tensor of a file.

    Attributes:
        offsets: Where it begins in the tensor.
        shape: Its own.
    """

    file: StoredFile
    entry: Entry
    offsets: Offsets
    shape: Offsets


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in chunks.

    Attributes:
        dtype: As the format has it.
        shape: Of the whole.
    """

    name: str
    dtype: str
    shape: Offsets
    chunks: list[Chunk]


def folder_of(path: str) -> S3Uri:
    """A folder, with the slash behind it."""
    uri = S3Uri.parse_prefix(path)
    return S3Uri(uri.bucket, uri.key if not uri.key or uri.key.endswith("/") else f"{uri.key}/")


def file_name(index: int, count: int, *, shard: int | None = None, token: str = "", number: int = 0) -> str:
    """As PyTorch names files, so that its own reader and transformers know them.

    Args:
        index: Of the file, from 1 on.
        count: How many files there are.
        shard: Of files that hold parts of tensors: whose they are, from 1 on.
        token: Tells files of one save from those of another.
        number: Of further files for the same.
    """
    name = f"model{token and f'-{token}'}-{index:05}-of-{count:05}"
    if shard is not None:
        name = f"shard-{shard:05}-{name}"
    return f"{name}{f'.{number}' if number else ''}{SUFFIX}"


def file_metadata(offsets: dict[str, Sequence[int]], save: tuple[str, int] | None = None) -> dict[str, str]:
    """What a file says: PyTorch's words, and for parts of tensors of which save it is, in how many files."""
    found = {
        _SHARDING: json.dumps({name: {_OFFSETS: list(of_chunk)} for name, of_chunk in offsets.items()}),
        "DCP_VERSION": "1.0",
        "format": "pt",
    }
    if save is not None:
        found[_SAVE] = json.dumps(save)
    return found


def stored_tensors(client: Client, folder: S3Uri) -> dict[str, Stored]:
    """What a checkpoint holds: in the files that its index names, else in all that are there.

    Raises:
        DecodeError: A file is no safetensors file, files of several saves are there, or parts are missing.
        ObjectNotFoundError: There are no files.
        S3Exception: One could not be read.
    """
    names = _names(client, folder)
    with client.queue() as queue:
        files = open_files(queue, [within(folder, name) for name in names], checksums=False)
    _check_saves(folder, files)
    chunks: dict[str, dict[Offsets, Chunk]] = {}
    for file in files:
        for chunk in _chunks_of(file):
            chunks.setdefault(chunk.entry.name, {}).setdefault(chunk.offsets, chunk)
    return {name: _stored(folder, name, list(of_name.values())) for name, of_name in chunks.items()}


def _names(client: Client, folder: S3Uri) -> list[str]:
    uri = within(folder, INDEX_NAME)
    try:
        return sorted(set(parse_index(uri, client.fetch(uri.bucket, uri.key)).values()))
    except ObjectNotFoundError:
        pass
    names = [
        info.key.removeprefix(folder.key)
        for page in client.list_objects(folder.bucket, folder.key, "/")
        for info in page.object_info
        if info.key.endswith(SUFFIX)
    ]
    if not names:
        raise ObjectNotFoundError(
            f"Service error: The key does not exist: no {INDEX_NAME} and no *{SUFFIX} directly below {folder}",
            operation="ListObjectsV2",
            uri=str(folder),
        )
    return sorted(names)


def _check_saves(folder: S3Uri, files: Iterable[StoredFile]) -> None:
    saves: dict[str, list[StoredFile]] = {}
    for file in files:
        saves.setdefault((file.header.metadata or {}).get(_SAVE, ""), []).append(file)
    if len(saves) > 1:
        examples = " and ".join(str(of_save[0].uri) for of_save in list(saves.values())[:2])
        _refuse(folder, f"{examples} are not of the same save: one is going on, or was interrupted. Save anew")
    for save, of_save in saves.items():
        count = _json(of_save[0], save)[1] if save else len(of_save)
        if count != len(of_save):
            _refuse(folder, f"{len(of_save)} of its {count} files are there: its save goes on, or was interrupted")


def _json(file: StoredFile, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"{file.uri}: its metadata are no JSON: {error}", uri=str(file.uri)) from None


def _chunks_of(file: StoredFile) -> "Iterator[Chunk]":
    text = (file.header.metadata or {}).get(_SHARDING)
    sharding = None if text is None else _json(file, text)
    for name, entry in file.header.entries.items():
        shape = shape_of(entry)
        if sharding is None:
            yield Chunk(file, entry, (0,) * len(shape), shape)
            continue
        try:
            offsets = tuple(sharding[name][_OFFSETS])
        except (KeyError, TypeError):
            offsets = ()
        if len(offsets) != len(shape) or not all(type(offset) is int and offset >= 0 for offset in offsets):
            _refuse(file.uri, f"it does not say where its part of tensor {name!r} belongs")
        yield Chunk(file, entry, offsets, shape)


def _stored(folder: S3Uri, name: str, chunks: list[Chunk]) -> Stored:
    dtypes = {chunk.entry.dtype for chunk in chunks}
    dimensions = {len(chunk.shape) for chunk in chunks}
    if len(dtypes) > 1 or len(dimensions) > 1:
        _refuse(folder, f"parts of tensor {name!r} differ in type or dimensions: {', '.join(sorted(dtypes))}")
    ends = zip(*([o + n for o, n in zip(c.offsets, c.shape, strict=True)] for c in chunks), strict=True)
    shape = tuple(map(max, ends))
    held = sum(prod(chunk.shape) for chunk in chunks)
    if held != prod(shape):
        _refuse(
            folder,
            f"the parts of tensor {name!r} of {list(shape)} hold {held:,} numbers rather than {prod(shape):,}: "
            "some are missing, or there twice",
        )
    return Stored(name, dtypes.pop(), shape, sorted(chunks, key=lambda chunk: chunk.offsets))


def _refuse(uri: S3Uri, reason: str) -> NoReturn:
    raise DecodeError(f"{uri} is no checkpoint that can be read: {reason}", uri=str(uri))
