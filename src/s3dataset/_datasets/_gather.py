"""gather_state: one state of what all ranks know."""

from typing import Any, Protocol

import torch.distributed

from s3dataset._order import merge_states

__all__ = ["gather_state"]


class _Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...


def gather_state(source: _Stateful, group: Any = None) -> dict[str, Any]:
    """Puts together the states of all ranks; every rank must call it, and gets the same.

    Of samples with numbers every rank knows all that there is, and their states are compared; of shards without an
    index each knows of its own. Any number of ranks and workers can go on from the state.

    Args:
        source: An `s3dataset.DataLoader`, a `BatchSampler`, or a dataset that this process iterates over.
        group: A process group; default: that of all ranks. Without one this rank is alone.

    Raises:
        ValueError: On every rank: one has no state, or the states do not belong together, as those of different steps.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return merge_states([source.state_dict()])
    state: dict[str, Any] | str
    failure = None
    try:
        state = source.state_dict()
    except Exception as error:  # noqa: BLE001 - the other ranks wait for this one
        state, failure = f"{type(error).__name__}: {error}", error
    states: list[Any] = [None] * torch.distributed.get_world_size(group)
    torch.distributed.all_gather_object(states, state, group=group)
    if failure is not None:
        raise failure
    for rank, other in enumerate(states):
        if isinstance(other, str):
            raise ValueError(f"rank {rank} of the group has no state: {other}")
    return merge_states(states)
