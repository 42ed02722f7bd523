"""What metrics are read from."""

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeAlias

from s3dataset._stats import Histogram, Stats

__all__ = ["Readings", "Source", "Sources", "needed"]


class Source(Protocol):
    """Whatever keeps statistics: a dataset, an `s3dataset.DataLoader`, an `S3Client`."""

    def stats(self) -> "Stats | Mapping[str, Any]":
        """The totals."""


Sources: TypeAlias = Source | Mapping[str, Source]
"""One source, or several by name: {"train": loader, "validation": other}."""


class Readings:
    """Reads the totals of sources, by name.

    Raises:
        TypeError: One of them keeps no statistics.
    """

    def __init__(self, sources: Sources) -> None:
        named = dict(sources) if isinstance(sources, Mapping) else {"": sources}
        for name, source in named.items():
            if not callable(getattr(source, "stats", None)):
                said = f"{name}={source!r}" if name else repr(source)
                raise TypeError(f"metrics come from datasets, loaders and clients, which have stats(), and not {said}")
            source.stats()  # a loader over somebody else's dataset says so here
        self._sources = named

    def __iter__(self) -> Iterator[tuple[str, Stats]]:
        for name, source in self._sources.items():
            yield name, _stats_of(source.stats())


def _stats_of(read: "Stats | Mapping[str, Any]") -> Stats:
    """A dataset's as they are; a client's, which knows nothing of samples, under the same names."""
    if isinstance(read, Stats):
        return read
    counts = {name: int(read.get(name, 0)) for name in ("requests", "retries", "throttles", "hedges")}
    histogram: Histogram = tuple((float(bound), int(count)) for bound, count in read.get("ttfb_s", ()))
    waited_s = float(read.get("network_wait_s", 0.0))
    return Stats(bytes=int(read.get("bytes_in", 0)), **counts, network_wait_s=waited_s, ttfb_histogram=histogram)


def needed(module: str, who: str, extra: str) -> Any:
    """Imports an optional dependency.

    Raises:
        ModuleNotFoundError: It is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{who} needs {module.split('.', maxsplit=1)[0]}, which is not installed: pip install 's3dataset[{extra}]'",
            name=error.name,
        ) from error
