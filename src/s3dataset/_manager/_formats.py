"""Formats: how a state becomes files below a prefix, and files a state again."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from s3dataset._checkpoint import S3Checkpoint
from s3dataset._config import S3ClientConfig
from s3dataset._manager._ranks import Ranks
from s3dataset._progress import Progress

__all__ = ["FORMATS", "Format", "LoadOptions", "Place", "make_format"]


class Place(NamedTuple):
    """How a service is reached."""

    region: str | None
    endpoint: str | None
    config: S3ClientConfig | None


class LoadOptions(NamedTuple):
    """What `restore` passes on."""

    map_location: Any = None
    weights_only: bool = True
    progress: Progress | bool | None = None


class Format(Protocol):
    """Saving and loading, called on all ranks. Prefixes end in a slash; nothing is below them before a save."""

    def check(self, state: Any, ranks: Ranks) -> None:
        """Raises TypeError for a state that it cannot save."""

    def save(self, state: Any, prefix: str, ranks: Ranks, progress: Progress | bool | None) -> None:
        """Saves; returns when this rank's files are there."""

    def save_async(self, state: Any, prefix: str, ranks: Ranks) -> Callable[[], None]:
        """Returns when `state` may change -> what waits, in another thread, until this rank's files are there."""

    def check_restore(self, state: Any) -> None:
        """Raises TypeError for a state that it cannot load into."""

    def load(self, state: Any, prefix: str, ranks: Ranks, options: LoadOptions) -> Any:
        """-> the state."""


class TorchFormat:
    """One file of torch.save, `checkpoint.pt`, written by rank 0 and read by all."""

    NAME: Final = "checkpoint.pt"

    def __init__(self, place: Place) -> None:
        self._checkpoint = S3Checkpoint(place.region, place.endpoint, place.config)

    def check(self, state: Any, ranks: Ranks) -> None:
        if ranks.world_size > 1 and (where := sharded(state, "state")):
            raise TypeError(
                f'{where} is spread over the ranks, and format="torch" saves what rank 0 has: use format="dcp", or '
                "gather it (torch.distributed.checkpoint.state_dict.get_state_dict with full_state_dict=True)"
            )

    def save(self, state: Any, prefix: str, ranks: Ranks, progress: Progress | bool | None) -> None:
        if ranks.rank == 0:
            self._checkpoint.save(state, prefix + self.NAME, progress=progress)

    def save_async(self, state: Any, prefix: str, ranks: Ranks) -> Callable[[], None]:
        if ranks.rank != 0:
            return lambda: None
        future = self._checkpoint.save_async(state, prefix + self.NAME)

        def wait() -> None:
            future.result()

        return wait

    def check_restore(self, state: Any) -> None:
        if state is not None:
            raise TypeError('format="torch" makes the state anew: call restore() without one, and load what it returns')

    def load(self, state: Any, prefix: str, ranks: Ranks, options: LoadOptions) -> Any:  # noqa: ARG002 - the protocol's
        # Each rank fetches its share, and they exchange what came.
        return self._checkpoint.load(prefix + self.NAME, group=ranks.group, **options._asdict())


def sharded(value: Any, name: str) -> str:
    """Where a state holds a tensor of which this rank has only a part; "" where nothing is."""
    if any(cls.__name__ in ("DTensor", "ShardedTensor") for cls in type(value).__mro__):
        return name
    if isinstance(value, Mapping):
        return next((found for key, item in value.items() if (found := sharded(item, f"{name}[{key!r}]"))), "")
    if isinstance(value, list | tuple):
        items: Sequence[Any] = value
        return next((found for place, item in enumerate(items) if (found := sharded(item, f"{name}[{place}]"))), "")
    return ""


FORMATS: Final[Mapping[str, Callable[[Place], Format]]] = {
    "torch": TorchFormat,
}


def make_format(name: str, place: Place) -> Format:
    """Makes a format by its name.

    Raises:
        ValueError: There is none.
    """
    make = FORMATS.get(name)
    if make is None:
        raise ValueError(f"format must be one of {', '.join(map(repr, FORMATS))}, not {name!r}")
    return make(place)
