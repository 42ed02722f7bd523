"""save_file: tensors to one file, from where they lie."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from s3dataset._checkpoint._parts import Cutter
from s3dataset._client import Client, ClientRef, ObjectInfo
from s3dataset._config import S3ClientConfig
from s3dataset._io import S3Writer
from s3dataset._progress import Progress, showing
from s3dataset._uri import S3Uri
from s3dataset.safetensors._dtypes import code_of, shape_in_file
from s3dataset.safetensors._format import build_header
from s3dataset.safetensors._memory import bytes_of

__all__ = ["check_metadata", "check_tensors", "save_file", "shared_names", "write_file"]


def save_file(
    tensors: Mapping[str, torch.Tensor],
    uri: str,
    metadata: Mapping[str, str] | None = None,
    *,
    if_none_match: bool = False,
    if_match: str | None = None,
    progress: Progress | bool | None = None,
    region: str | None = None,
    endpoint: str | None = None,
    s3client_config: S3ClientConfig | None = None,
) -> ObjectInfo:
    """Saves tensors as the file that safetensors would write, byte for byte, straight from their memory.

    Nothing may change them before this returns. Tensors of a GPU are copied to this machine's memory one by one. The
    object appears whole or not at all, and carries a checksum of all of it.

    Args:
        tensors: By name. Contiguous, dense, no two in the same memory.
        uri: "s3://bucket/key".
        metadata: Texts by name. Several are written in the order of their names (the library's order is any).
        if_none_match: Save only if there is no such object.
        if_match: Save only if the object there has this ETag.
        progress: As of `load_file`.
        region: As of `load_file`.
        endpoint: As of `load_file`.
        s3client_config: As of `load_file`.

    Returns:
        What was saved, with its ETag.

    Raises:
        InvalidUriError: `uri` is something else.
        ValueError: A tensor is sparse, not contiguous, without memory, or of a type that safetensors does not have.
        RuntimeError: Tensors share memory: `save_model` keeps one of each.
        TypeError: A name, or something in the metadata, is no text.
        PreconditionFailedError: A condition does not hold.
        S3Exception: It was not saved; the object there is as it was.
    """
    target = S3Uri.parse(uri, need_key=True)
    client = ClientRef(region, endpoint, s3client_config).get()
    check_tensors(tensors)
    with showing(progress, f"saving {uri}") as tell:
        return write_file(
            client,
            target,
            tensors,
            check_metadata(metadata),
            tell,
            if_none_match=if_none_match,
            if_match=if_match,
        )


def write_file(
    client: Client,
    uri: S3Uri,
    tensors: Mapping[str, torch.Tensor],
    metadata: dict[str, str] | None,
    progress: Progress | None = None,
    **conditions: Any,
) -> ObjectInfo:
    """Sends a file of tensors that were checked."""
    specs = []
    total = 0
    for name, tensor in tensors.items():
        code = code_of(name, tensor.dtype)
        nbytes = tensor.numel() * tensor.element_size()
        specs.append((name, code, shape_in_file(name, code, tuple(tensor.shape)), nbytes))
        total += nbytes
    header, order = build_header(specs, metadata)
    total += len(header)

    def pieces() -> Iterator[tuple[memoryview, object]]:
        yield memoryview(header), None
        for name in order:
            tensor = tensors[name].detach()
            if not tensor.numel():
                continue
            held = tensor.resolve_conj().resolve_neg().to("cpu")
            yield bytes_of(held), held

    writer = S3Writer(client, uri.bucket, uri.key, size=total, **conditions)
    tell = None if progress is None else lambda done: progress(done, total)
    return writer.save_held(total, Cutter(pieces()), tell)


# -- What can be saved -----------------------------------------------------------------------------------------------


def check_metadata(metadata: Mapping[str, str] | None) -> dict[str, str] | None:
    """As a dict of texts.

    Raises:
        TypeError: Something in it is no text.
    """
    if metadata is None:
        return None
    for item in metadata.items():
        for text in item:
            if not isinstance(text, str):
                raise TypeError(f"metadata are texts by name, and {text!r} is of type {type(text).__name__}: use str()")
    return dict(metadata)


def check_tensors(tensors: Mapping[str, torch.Tensor]) -> None:
    """Raises what `save_file` says."""
    if not isinstance(tensors, Mapping):
        raise ValueError(f"what is saved are tensors by name, not {type(tensors).__name__}")
    for name, tensor in tensors.items():
        if not isinstance(name, str):
            raise TypeError(f"the name {name!r} of a tensor is of type {type(name).__name__}: use str()")
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(f"{name!r} is no tensor but {type(tensor).__name__}: safetensors hold nothing else")
        if tensor.layout != torch.strided:
            raise ValueError(f"tensor {name!r} is sparse, which safetensors cannot hold: save its .to_dense()")
        code_of(name, tensor.dtype)
        if not tensor.is_contiguous():
            raise ValueError(
                f"tensor {name!r} is not contiguous, which safetensors cannot hold: save its .contiguous(), or the "
                "tensor that it is a part of"
            )
        if tensor.is_meta or (tensor.numel() and not _pointer(tensor)):
            raise ValueError(
                f"tensor {name!r} ({type(tensor).__name__} on {tensor.device}) has no memory of its own: save a tensor "
                "that does, such as a DTensor's full_tensor() or to_local()"
            )
    shared = [names for names in shared_names(tensors) if len(names) > 1]
    if shared:
        raise RuntimeError(
            f"tensors share memory, which safetensors would hold once for each of them: {shared}. Save one of each, "
            "or let save_model do so"
        )


def _pointer(tensor: torch.Tensor) -> int:
    try:
        return tensor.data_ptr()
    except RuntimeError:
        return 0


def shared_names(tensors: Mapping[str, torch.Tensor]) -> list[list[str]]:
    """Groups of tensors whose memory overlaps, each in the order of memory; a tensor alone is a group too."""
    by_storage: dict[tuple[torch.device, int], list[tuple[int, int, str]]] = defaultdict(list)
    for name, tensor in tensors.items():
        nbytes = tensor.numel() * tensor.element_size()
        if nbytes and not tensor.is_meta:
            start = tensor.data_ptr()
            by_storage[tensor.device, tensor.untyped_storage().data_ptr()].append((start, start + nbytes, name))
    groups: list[list[str]] = []
    for areas in by_storage.values():
        reached = -1
        for start, end, name in sorted(areas):
            if start < reached:
                groups[-1].append(name)
            else:
                groups.append([name])
            reached = max(reached, end)
    return groups
