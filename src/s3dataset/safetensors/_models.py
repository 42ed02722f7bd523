"""save_model and load_model: modules whose parameters share memory."""

from collections.abc import Collection, Mapping
from typing import Any

import torch

from s3dataset._client import ObjectInfo
from s3dataset.safetensors._load import load_file
from s3dataset.safetensors._save import save_file, shared_names

__all__ = ["load_model", "save_model"]


def save_model(
    model: torch.nn.Module,
    uri: str,
    metadata: Mapping[str, str] | None = None,
    force_contiguous: bool = True,
    **options: Any,
) -> ObjectInfo:
    """Saves a module's state, of tensors that share memory one, as `safetensors.torch.save_model` does.

    Args:
        model: The module.
        uri: "s3://bucket/key".
        metadata: Texts by name; for each tensor left out, the name of the one that stands for it is added.
        force_contiguous: Save contiguous copies of tensors that are not, rather than refusing them.
        options: Those of `save_file`.

    Raises:
        RuntimeError: Tensors share memory, and none of them has all of it.
        ValueError, TypeError, S3Exception: As `save_file`.
    """
    state = model.state_dict()
    notes = dict(metadata or {})
    for kept, dropped in _duplicates(state).items():
        for name in dropped:
            notes.setdefault(name, kept)
            del state[name]
    if force_contiguous:
        state = {name: tensor.contiguous() for name, tensor in state.items()}
    return save_file(state, uri, notes if notes or metadata is not None else None, **options)


def load_model(
    model: torch.nn.Module,
    uri: str,
    strict: bool = True,
    device: torch.device | str | int = "cpu",
    **options: Any,
) -> tuple[set[str], list[str]]:
    """Loads a module's state, as `safetensors.torch.load_model` does.

    Args:
        model: The module; it is as it was when the file cannot be read.
        uri: As of `load_file`; shards too.
        strict: Whether missing and unexpected names are an error.
        device: Where the tensors are loaded to before they are copied into the module.
        options: Those of `load_file`.

    Returns:
        (names of the module that were not loaded, names of the file that were not used).

    Raises:
        RuntimeError: Names are missing or unexpected, and `strict` is True.
        DecodeError, ObjectNotFoundError, S3Exception: As `load_file`.
    """
    found = load_file(uri, device, **options)
    dropped = [name for names in _duplicates(model.state_dict(), found).values() for name in names]
    result = model.load_state_dict(found, strict=False)
    missing, unexpected = set(result.missing_keys), list(result.unexpected_keys)
    for name in dropped:
        if name in missing:
            missing.remove(name)
        else:
            unexpected.append(name)
    if strict and (missing or unexpected):
        reasons = [
            f"{what} {', '.join(map(repr, sorted(names)))}"
            for what, names in (("without", missing), ("with the unknown", unexpected))
            if names
        ]
        raise RuntimeError(f"{uri} is not the state of this {type(model).__name__}: it is {' and '.join(reasons)}")
    return missing, unexpected


def _duplicates(state: Mapping[str, torch.Tensor], preferred: Collection[str] = ()) -> dict[str, list[str]]:
    """Of tensors that share memory: the one to keep, and the others.

    Raises:
        RuntimeError: None of them covers what they share.
    """
    found = {}
    for names in shared_names(state):
        whole = sorted(name for name in names if _is_whole(state[name]))
        if len(names) > 1 and not whole:
            raise RuntimeError(
                f"tensors share memory, and none of them has all of it: {names}. Saving one would lose what others have"
            )
        if len(names) > 1:
            kept = next((name for name in whole if name in preferred), whole[0])
            found[kept] = sorted(name for name in names if name != kept)
    return found


def _is_whole(tensor: torch.Tensor) -> bool:
    storage = tensor.untyped_storage()
    return tensor.data_ptr() == storage.data_ptr() and tensor.numel() * tensor.element_size() == storage.nbytes()
