"""Which rank this process is, and of how many."""

import multiprocessing.context as mp_context
import os
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch.distributed

from s3dataset._order import Split

__all__ = ["Rank", "find_rank", "is_spawning", "rank_of_group"]

RankSource = Literal["split", "mesh", "group", "parent", "environment", "alone"]


@dataclass(frozen=True, slots=True)
class Rank:
    """A rank among `world_size`, and who said so."""

    rank: int
    world_size: int
    source: RankSource


ALONE: Final = Rank(0, 1, "alone")


def find_rank(split: Split, parent: Rank | None) -> Rank:
    """Finds rank and world size, at the time of the call.

    Args:
        split: The user's word, which goes before all else.
        parent: What was caught while the parent, which had a process group, spawned this process.

    Raises:
        ValueError: The mesh has several dimensions and none were named, or RANK and WORLD_SIZE make no sense.
    """
    if not split.ranks:
        return ALONE
    if split.rank is not None and split.world_size is not None:
        return Rank(split.rank, split.world_size, "split")
    if split.mesh is not None:
        return _rank_in_mesh(split.mesh, split.dp_dims)
    return rank_of_group() or parent or _rank_of_environment() or ALONE


def rank_of_group() -> Rank | None:
    """The rank in the default process group of torch.distributed, if this process has one."""
    # Attributes are looked up at each call, as programs and tests replace them.
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return Rank(torch.distributed.get_rank(), torch.distributed.get_world_size(), "group")
    return None


def is_spawning() -> bool:
    """Whether pickling goes on, in this thread, to start a process of multiprocessing."""
    return mp_context.get_spawning_popen() is not None


def _rank_in_mesh(mesh: Any, dp_dims: Any) -> Rank:
    names = tuple(mesh.mesh_dim_names or ())
    if dp_dims is None:
        if mesh.ndim > 1:
            raise ValueError(
                f"Split(mesh=) has the dimensions {names or mesh.ndim}: name those over which data is split, "
                f"as dp_dims=({names[0] if names else 'dp'!r},)"
            )
        return Rank(mesh.get_local_rank(), mesh.size(), "mesh")
    rank, world_size = 0, 1
    for name in dp_dims:
        if name not in names:
            raise ValueError(f"dp_dims names {name!r}, and the mesh has the dimensions {names}")
        size = mesh.size(names.index(name))
        rank = rank * size + mesh.get_local_rank(name)
        world_size *= size
    return Rank(rank, world_size, "mesh")


def _rank_of_environment() -> Rank | None:
    rank, world_size = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is None or world_size is None:
        return None
    try:
        found = Rank(int(rank), int(world_size), "environment")
    except ValueError:
        found = None
    if found is None or not 0 <= found.rank < found.world_size:
        raise ValueError(
            f"the environment has RANK={rank} and WORLD_SIZE={world_size}, which make no rank: unset them, or give "
            "Split(rank=, world_size=)"
        )
    return found
