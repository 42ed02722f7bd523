"""Parts of what was saved: by their keys, and which storages they need."""

import difflib
import pickle
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import torch

__all__ = ["Keys", "parse_keys", "select", "storages_of"]

Keys = str | Iterable[Any]
"""Keys of a dict; a tuple is a path into dicts in it."""


def parse_keys(keys: Keys) -> list[Any]:
    """One string is one key, and not its letters.

    Raises:
        TypeError: They are no keys.
        ValueError: There are none.
    """
    if isinstance(keys, str):
        return [keys]
    if not isinstance(keys, Iterable):
        raise TypeError(f"keys must be keys of the saved dict, such as ['model'], not {type(keys).__name__}")
    found = list(keys)
    if not found:
        raise ValueError("keys is empty: name what to load, or leave it out to load everything")
    return found


def select(obj: Any, keys: list[Any], uri: str) -> dict[Any, Any]:
    """-> a dict with these keys only, and with dicts in it where they are paths.

    Raises:
        TypeError: What was saved is no dict.
        KeyError: It has no such key.
    """
    selection: dict[Any, Any] = {}
    for key in keys:
        path = key if isinstance(key, tuple) and not (isinstance(obj, Mapping) and key in obj) else (key,)
        value = obj
        target = selection
        for depth, name in enumerate(path):
            if not isinstance(value, Mapping):
                where = "".join(f"[{step!r}]" for step in path[:depth]) or "the object"
                raise TypeError(f"{uri}: {where} is of type {type(value).__name__}, which has no keys")
            if name not in value:
                raise KeyError(_no_key(value, path[: depth + 1], uri))
            value = cast("Any", value[name])
            if depth < len(path) - 1:
                target = target.setdefault(name, {})
        target[path[-1]] = value
    return selection


def _no_key(value: Mapping[Any, Any], path: tuple[Any, ...], uri: str) -> str:
    names = [str(name) for name in value]
    near = difflib.get_close_matches(str(path[-1]), names, 5) or names[:10]
    wanted = "".join(f"[{step!r}]" for step in path)
    return f"{uri} has no {wanted}; it has {', '.join(near)}{', ...' if len(names) > len(near) else ''}"


def storages_of(obj: Any) -> Iterator[torch.UntypedStorage]:
    """All storages that an object refers to, some of them several times.

    Raises:
        Exception: Not all of them can be told.
    """
    rest = [obj]
    while rest:
        finder = _Finder()
        finder.dump(rest.pop())
        yield from finder.storages
        rest += finder.inner


class _Finder(pickle.Pickler):
    """Goes through an object as pickle does, which sees everything that was loaded by it."""

    def __init__(self) -> None:
        super().__init__(_Nowhere())
        self.storages: list[torch.UntypedStorage] = []
        self.inner: list[Any] = []

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, torch.Tensor):
            if hasattr(obj, "__tensor_flatten__"):
                self.inner += [getattr(obj, name) for name in cast("Any", obj).__tensor_flatten__()[0]]
            else:
                self.storages.append(obj.untyped_storage())
            if obj.__dict__:
                self.inner.append(dict(obj.__dict__))
            return "tensor"
        if isinstance(obj, torch.UntypedStorage):
            self.storages.append(obj)
            return "storage"
        if isinstance(obj, torch.storage.TypedStorage):
            self.storages.append(cast("Any", obj)._untyped_storage)  # noqa: SLF001 - without torch's warning
            return "storage"
        return None


class _Nowhere:
    def write(self, data: Any) -> int:
        return len(data)
