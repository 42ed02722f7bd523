"""Files of safetensors on S3: opening, several at once, and reading whole ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import torch

from s3dataset._checkpoint._parts import Target, fetch
from s3dataset._client import CHECKSUM_MODE, Client, StoredChecksum, stored_checksum, take_head
from s3dataset._progress import Progress
from s3dataset._uri import S3Uri
from s3dataset.errors import ObjectChangedError, S3Exception
from s3dataset.safetensors._format import LENGTH_BYTES, Entry, Header, header_bytes, parse_header
from s3dataset.safetensors._memory import HostMemory, StagedMemory, Staging, bytes_of, empty_tensor, raw_of

if TYPE_CHECKING:
    from s3dataset._client import Body, RequestQueue

__all__ = ["StoredFile", "device_of", "open_files", "read_files", "read_tensors"]

FIRST_BYTES: Final = 256 << 10
"""Read before the header's length is known: most headers fit, and it takes no longer than a shorter read."""
_ATTEMPTS: Final = 3
_DIRECT: Final = ("cpu", "meta")
"""Devices that no bytes are copied to."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One version of a file, and its header."""

    uri: S3Uri
    etag: str | None
    size: int
    header: Header
    checksum: StoredChecksum | None


def device_of(device: torch.device | str | int) -> torch.device:
    """As torch reads it; a number is an accelerator's.

    Raises:
        RuntimeError, TypeError: It is none.
    """
    return torch.device(device)


# -- Opening ---------------------------------------------------------------------------------------------------------


def open_files(queue: "RequestQueue", uris: Sequence[S3Uri], *, checksums: bool) -> list[StoredFile]:
    """Reads the headers of all files at once, and with `checksums` what is stored of the whole files.

    Raises:
        DecodeError: One is no safetensors file.
        ObjectNotFoundError: One is not there.
        S3Exception: One could not be read.
    """
    opened: dict[int, StoredFile] = {}
    for _ in range(_ATTEMPTS):
        missing = [number for number in range(len(uris)) if number not in opened]
        if not missing:
            break
        heads = [queue.head(uris[n].bucket, uris[n].key, [CHECKSUM_MODE]) for n in missing] if checksums else []
        asked = queue.get([(uris[n].bucket, uris[n].key, 0, FIRST_BYTES, None, None) for n in missing])
        beginnings = [cast("Body", _raised(result)) for result in queue.take_many(asked)]
        told = [take_head(queue, head) for head in heads] if checksums else [None] * len(missing)
        whole = _headers(queue, [uris[n] for n in missing], beginnings)
        for at, number in enumerate(missing):
            reply = told[at]
            if reply is not None and reply.etag != beginnings[at].etag:
                continue  # replaced in between
            stored = None if reply is None else stored_checksum(dict(reply.headers()))
            size, etag = beginnings[at].object_size, beginnings[at].etag or None
            header = parse_header(whole[at], size, str(uris[number]))
            opened[number] = StoredFile(uris[number], etag, size, header, stored)
    for number, uri in enumerate(uris):
        if number not in opened:
            raise ObjectChangedError(
                f"{uri} was replaced while it was opened, several times: try again when its writer is done",
                operation="GetObject",
                uri=str(uri),
            )
    return [opened[number] for number in range(len(uris))]


def _headers(queue: "RequestQueue", uris: Sequence[S3Uri], beginnings: "Sequence[Body]") -> list[bytes]:
    """The headers, of which the longer ones are fetched now: their lengths were checked against the files' before."""
    found: dict[int, bytes] = {}
    longer: dict[int, range] = {}
    for at, (uri, body) in enumerate(zip(uris, beginnings, strict=True)):
        view = memoryview(body)
        end = header_bytes(view, body.object_size, str(uri))
        if end <= len(view):
            found[at] = bytes(view[LENGTH_BYTES:end])
        else:
            request = (uri.bucket, uri.key, LENGTH_BYTES, end, body.object_size, body.etag or None)
            longer[at] = queue.get([request])
    for at, asked in longer.items():
        found[at] = bytes(memoryview(cast("Body", queue.take(asked.start))))
    return [found[at] for at in range(len(uris))]


def _raised(result: Any) -> Any:
    if isinstance(result, S3Exception):
        raise result
    return result


# -- Reading ---------------------------------------------------------------------------------------------------------


def read_files(
    client: Client,
    files: Sequence[StoredFile],
    device: torch.device,
    progress: Progress | None = None,
    wanted: Callable[[StoredFile, str], bool] = lambda _file, _name: True,
) -> list[dict[str, torch.Tensor]]:
    """Every tensor of all files, at once -> for each file, its tensors in the order of their data.

    Whole files are read, and compared with the checksums stored of them. Tensors that are not `wanted` are dropped.
    """
    staging = None if device.type in _DIRECT else Staging(device, client.part_size)
    found = []
    targets = []
    for file in files:
        entries = [entry for name, entry in file.header.entries.items() if wanted(file, name)]
        tensors, target = _target(file, 0, file.size, entries, device, staging)
        found.append(tensors)
        targets.append(target)
    _fill(client, targets, device, staging, progress)
    return found


def read_tensors(
    client: Client, wanted: Sequence[tuple[StoredFile, Entry]], device: torch.device
) -> list[torch.Tensor]:
    """These tensors alone, at once."""
    staging = None if device.type in _DIRECT else Staging(device, client.part_size)
    found = []
    targets = []
    for file, entry in wanted:
        tensors, target = _target(file, entry.start, entry.end, [entry], device, staging, compare=False)
        found.append(tensors[entry.name])
        targets.append(target)
    _fill(client, targets, device, staging)
    return found


def _fill(
    client: Client,
    targets: Sequence[Target],
    device: torch.device,
    staging: Staging | None,
    progress: Progress | None = None,
) -> None:
    if device.type == "meta":
        return
    with client.queue() as queue:
        fetch(client, queue, targets, progress)
    if staging is not None:
        staging.finish()


def _target(
    file: StoredFile,
    start: int,
    end: int,
    entries: Sequence[Entry],
    device: torch.device,
    staging: Staging | None,
    *,
    compare: bool = True,
) -> tuple[dict[str, torch.Tensor], Target]:
    """Tensors for entries in bytes [start, end) of a file, and what fills them."""
    tensors = {entry.name: empty_tensor(entry, str(file.uri), device) for entry in entries}
    stored = file.checksum if compare else None
    if staging is not None:
        staged = StagedMemory(staging)
        for entry in entries:
            staged.place(entry.start, raw_of(tensors[entry.name]))
        return tensors, Target(file.uri, file.etag, start, end, staged.pieces, staged.landed, stored)
    host = HostMemory(start, end)
    if device.type == "cpu":
        for entry in entries:
            host.place(entry.start, bytes_of(tensors[entry.name]))
    return tensors, Target(file.uri, file.etag, start, end, host.pieces, None, stored)
