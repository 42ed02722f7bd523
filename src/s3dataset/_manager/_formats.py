"""Formats: how a state becomes files below a prefix, and files a state again."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, Protocol

import torch

from s3dataset._checkpoint import S3Checkpoint
from s3dataset._config import S3ClientConfig
from s3dataset._manager._ranks import Ranks
from s3dataset._progress import Progress
from s3dataset.errors import S3Exception

__all__ = ["FORMATS", "Format", "LoadOptions", "Place", "make_format"]


class Place(NamedTuple):
    """How a service is reached."""

    region: str | None
    endpoint: str | None
    config: S3ClientConfig | None

    def named(self) -> dict[str, Any]:
        """As functions take it."""
        return {"region": self.region, "endpoint": self.endpoint, "s3client_config": self.config}


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


class SafetensorsFormat:
    """One file of safetensors, `model.safetensors`, written by rank 0 and read by all."""

    NAME: Final = "model.safetensors"

    def __init__(self, place: Place) -> None:
        self._place = place

    def check(self, state: Any, ranks: Ranks) -> None:
        if ranks.rank == 0 and not (
            isinstance(state, Mapping) and all(isinstance(value, torch.Tensor) for value in state.values())
        ):
            raise TypeError(
                'format="safetensors" saves a flat dict of tensors, such as model.state_dict(): use format="torch" for '
                "an optimizer's state, numbers and nested dicts, or put numbers into metadata"
            )
        if ranks.world_size > 1 and (where := sharded(state, "state")):
            raise TypeError(
                f'{where} is spread over the ranks, and format="safetensors" saves what rank 0 has: use format="dcp"'
            )

    def save(self, state: Any, prefix: str, ranks: Ranks, progress: Progress | bool | None) -> None:
        if ranks.rank == 0:
            self._save(state, prefix, progress)

    def save_async(self, state: Any, prefix: str, ranks: Ranks) -> Callable[[], None]:
        if ranks.rank != 0:
            return lambda: None
        copy = {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}
        return lambda: self._save(copy, prefix, progress=False)

    def _save(self, state: Any, prefix: str, progress: Progress | bool | None) -> None:
        from s3dataset.safetensors import save_file  # noqa: PLC0415 - when it is asked for

        save_file(state, prefix + self.NAME, progress=progress, **self._place.named())

    def check_restore(self, state: Any) -> None:
        if state is not None:
            raise TypeError(
                'format="safetensors" makes the tensors anew: call restore() without a state, and load what it returns'
            )

    def load(self, state: Any, prefix: str, ranks: Ranks, options: LoadOptions) -> Any:  # noqa: ARG002 - the protocol's
        from s3dataset.safetensors import load_file  # noqa: PLC0415

        device = "cpu" if options.map_location is None else options.map_location
        return load_file(prefix + self.NAME, device, progress=options.progress, **self._place.named())


class DcpFormat:
    """torch.distributed.checkpoint: every rank writes what it has, and reads what it needs."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def check(self, state: Any, ranks: Ranks) -> None:  # noqa: ARG002 - the protocol's
        if not isinstance(state, dict):
            raise TypeError(f'format="dcp" saves a state dict, not {type(state).__name__}')

    def save(self, state: Any, prefix: str, ranks: Ranks, progress: Progress | bool | None) -> None:  # noqa: ARG002
        parts = _on_each(ranks, lambda: _parts_of(state), prefix)
        with _told_apart(prefix):
            _torch_dcp().save(parts, storage_writer=self._writer(prefix), process_group=ranks.group)

    def save_async(self, state: Any, prefix: str, ranks: Ranks) -> Callable[[], None]:
        writer = self._writer(prefix)
        copy: Any = None
        error: Exception | None = None
        try:
            copy = writer.stage(_parts_of(state))
        except Exception as failed:  # noqa: BLE001 - the other ranks hear of it in the background
            error = failed

        def staged() -> Any:
            if error is not None:
                raise error
            return copy

        def wait() -> None:
            parts = _on_each(ranks, staged, prefix)
            with _told_apart(prefix):
                _torch_dcp().save(parts, storage_writer=writer, process_group=ranks.group)

        return wait

    def _writer(self, prefix: str) -> Any:
        from s3dataset.dcp import S3StorageWriter  # noqa: PLC0415

        region, endpoint, config = self._place
        return S3StorageWriter(region, prefix, config, endpoint=endpoint)

    def check_restore(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise TypeError(
                'format="dcp" fills a state dict in place: call restore(state) with one of the shapes that are wanted'
            )

    def load(self, state: Any, prefix: str, ranks: Ranks, options: LoadOptions) -> Any:  # noqa: ARG002
        from s3dataset.dcp import S3StorageReader  # noqa: PLC0415

        region, endpoint, config = self._place
        reader = S3StorageReader(region, prefix, config, endpoint=endpoint)
        parts = _on_each(ranks, lambda: _parts_of(state), prefix)
        with _told_apart(prefix):
            _torch_dcp().load(parts, storage_reader=reader, process_group=ranks.group)
        for name, part in state.items():
            if _is_stateful(part):
                part.load_state_dict(parts[name])
            else:
                state[name] = parts[name]
        return state


def _on_each(ranks: Ranks, own: Callable[[], Any], prefix: str) -> Any:
    """Does what may fail on one rank before the collectives of torch, in which the others would wait for it."""
    results: list[Any] = []
    ranks.together(lambda: results.append(own()), lambda _: None, prefix)
    return results[0]


def _parts_of(state: dict[str, Any]) -> dict[str, Any]:
    """With the state dicts of what has one."""
    return {name: part.state_dict() if _is_stateful(part) else part for name, part in state.items()}


def _is_stateful(part: Any) -> bool:
    return isinstance(part, _torch_dcp().stateful.Stateful)


def _torch_dcp() -> Any:
    import torch.distributed.checkpoint  # noqa: PLC0415 - takes a second

    return torch.distributed.checkpoint


@contextmanager
def _told_apart(prefix: str) -> Iterator[None]:
    """Torch's CheckpointException is no Exception, and names what failed on each rank; here it is one, with a cause."""
    try:
        yield
    except _torch_dcp().api.CheckpointException as error:
        failures = {rank: failure[0] for rank, failure in sorted(error.failures.items())}
        told = "; ".join(f"rank {rank}: {type(failure).__name__}: {failure}" for rank, failure in failures.items())
        cause = min(failures.values(), key=lambda failure: not isinstance(failure, S3Exception), default=None)
        raise S3Exception(f"{prefix}: {told or error}", uri=prefix) from cause


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
    "dcp": DcpFormat,
    "safetensors": SafetensorsFormat,
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
