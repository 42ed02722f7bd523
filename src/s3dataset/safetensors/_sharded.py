"""save_sharded: a model in files of bounded size, and the index that names them."""

import contextlib
import json
import re
import secrets
from collections.abc import Mapping
from typing import Final

import torch

from s3dataset._client import Client, ClientRef
from s3dataset._config import S3ClientConfig
from s3dataset._io import S3Writer
from s3dataset._progress import Progress, showing
from s3dataset._uri import S3Uri
from s3dataset.errors import AccessDeniedError, ObjectNotFoundError, S3Exception
from s3dataset.safetensors._save import check_metadata, check_tensors, write_file
from s3dataset.safetensors._weights import INDEX_NAME, SINGLE_NAME, parse_index, within

__all__ = ["byte_count", "delete_objects", "index_bytes", "old_shards", "save_sharded", "split_by_size", "write_small"]

_UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 1 << 10, "MI": 1 << 20, "GI": 1 << 30}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?) *([KMGT]I?|)B", re.IGNORECASE)


def save_sharded(
    tensors: Mapping[str, torch.Tensor],
    uri: str,
    metadata: Mapping[str, str] | None = None,
    *,
    max_shard_size: int | str = "5GB",
    progress: Progress | bool | None = None,
    region: str | None = None,
    endpoint: str | None = None,
    s3client_config: S3ClientConfig | None = None,
) -> dict[str, str]:
    """Saves tensors in files as transformers names and reads them: shards and their index, or one file where it does.

    Readers find the old model or the new one, whole, at every moment: the index (or the one file) is written last, and
    shards of a model that is there already are not overwritten: the new ones get other names, and the old ones are
    deleted in the end. A save that fails before the index deletes what it has written. Two saves to one folder at the
    same time are not kept apart.

    Args:
        tensors: As of `save_file`.
        uri: The folder, "s3://bucket/model/".
        metadata: Of each file; default {"format": "pt"}, without which transformers refuses a file.
        max_shard_size: Bytes of tensors in a file, as a number or as "5GB"; a larger tensor has a file for itself.
        progress: As of `load_file`.
        region: As of `load_file`.
        endpoint: As of `load_file`.
        s3client_config: As of `load_file`.

    Returns:
        The file of each tensor, relative to the folder: the index's weight_map.

    Raises:
        ValueError, TypeError, S3Exception: As `save_file`.
    """
    folder = S3Uri.parse_prefix(uri)
    limit = byte_count(max_shard_size)
    check_tensors(tensors)
    notes = check_metadata({"format": "pt"} if metadata is None else metadata)
    client = ClientRef(region, endpoint, s3client_config).get()
    shards = split_by_size(tensors, limit)
    old = old_shards(client, folder)
    names = _names(len(shards), old)
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    weight_map = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
    done = 0
    with showing(progress, f"saving {uri}") as tell:
        try:
            for file, shard in zip(names, shards, strict=True):
                before = done

                def advance(of_shard: int, _: int, before: int = before) -> None:
                    if tell is not None:
                        tell(min(before + of_shard, total), total)

                chosen = {name: tensors[name] for name in shard}
                write_file(client, within(folder, file), chosen, notes, advance)
                done += sum(tensor.numel() * tensor.element_size() for tensor in chosen.values())
        except BaseException:
            if len(names) > 1:  # a single file appears whole or not at all
                delete_objects(client, folder, set(names))
            raise
        if len(names) > 1:
            write_small(client, within(folder, INDEX_NAME), index_bytes(weight_map, total))
    unused = {SINGLE_NAME if len(names) > 1 else INDEX_NAME, *(old or ())}
    delete_objects(client, folder, unused - set(names))
    return weight_map


def byte_count(size: int | str) -> int:
    """Bytes of "5GB", "512MiB" and the like.

    Raises:
        ValueError: It is something else, or nothing.
    """
    if isinstance(size, int):
        nbytes = size
    else:
        found = _SIZE.fullmatch(size.strip())
        if found is None or found[2].upper() not in _UNITS:
            raise ValueError(f"max_shard_size is a number of bytes, or text such as '5GB' or '512MiB', not {size!r}")
        nbytes = int(float(found[1]) * _UNITS[found[2].upper()])
    if nbytes < 1:
        raise ValueError(f"max_shard_size must be at least a byte, not {size!r}")
    return nbytes


def split_by_size(tensors: Mapping[str, torch.Tensor], limit: int) -> list[list[str]]:
    """Names in their order, file by file."""
    shards: list[list[str]] = [[]]
    held = 0
    for name, tensor in tensors.items():
        nbytes = tensor.numel() * tensor.element_size()
        if shards[-1] and held + nbytes > limit:
            shards.append([])
            held = 0
        shards[-1].append(name)
        held += nbytes
    return shards


def index_bytes(weight_map: Mapping[str, str], total_size: int) -> bytes:
    """An index as transformers writes it."""
    content = {"metadata": {"total_size": total_size}, "weight_map": dict(sorted(weight_map.items()))}
    return json.dumps(content, indent=2).encode() + b"\n"


def write_small(client: Client, uri: S3Uri, data: bytes) -> None:
    """Writes an object."""
    with S3Writer(client, uri.bucket, uri.key, size=len(data)) as writer:
        writer.write(data)


def old_shards(client: Client, folder: S3Uri) -> set[str] | None:
    """The files that an index names which is there; None where nobody may know whether one is."""
    uri = within(folder, INDEX_NAME)
    try:
        body = client.fetch(uri.bucket, uri.key)
    except ObjectNotFoundError:
        return set()
    except AccessDeniedError:
        return None
    try:
        return set(parse_index(uri, body).values())
    except ValueError:
        return set()  # of nobody's that a reader could find


def _names(count: int, taken: set[str] | None) -> list[str]:
    if count == 1:
        return [SINGLE_NAME]
    names = [f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]
    if taken is not None and taken.isdisjoint(names):
        return names
    unique = secrets.token_hex(4)
    return [name.replace("model-", f"model-{unique}-", 1) for name in names]


def delete_objects(client: Client, folder: S3Uri, names: set[str]) -> None:
    """What no index names any more. It is no failure of a save when some of it stays."""
    with client.queue() as queue:
        asked = [queue.delete(uri.bucket, uri.key) for uri in (within(folder, name) for name in sorted(names))]
        for index in asked:
            with contextlib.suppress(S3Exception):
                queue.take(index)
