"""Rank and world size: where they are looked for, and in which order."""

from typing import Any

import pytest
import torch.distributed

from s3dataset import Split
from s3dataset._datasets._rank import Rank, find_rank


class Mesh:
    """A device mesh of named dimensions, with this process somewhere in it."""

    def __init__(self, sizes: dict[str, int], place: dict[str, int]) -> None:
        self.mesh_dim_names = tuple(sizes)
        self.ndim = len(sizes)
        self._sizes = sizes
        self._place = place

    def size(self, dim: int | None = None) -> int:
        sizes = list(self._sizes.values())
        return torch.tensor(sizes).prod().item() if dim is None else sizes[dim]  # type: ignore[return-value]

    def get_local_rank(self, dim: str | None = None) -> int:
        return self._place[dim or self.mesh_dim_names[0]]


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 5)


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")


def pair(split: Split, parent: Rank | None = None) -> tuple[int, int]:
    found = find_rank(split, parent)
    return found.rank, found.world_size


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)


def test_alone() -> None:
    assert find_rank(Split(), None) == Rank(0, 1, "alone")


def test_what_is_nearer_goes_first(launcher: None, request: pytest.FixtureRequest) -> None:
    parent = Rank(1, 6, "group")
    assert pair(Split()) == (3, 4)
    assert pair(Split(), parent) == (1, 6)
    request.getfixturevalue("group")
    assert pair(Split(), parent) == (2, 5)
    assert pair(Split(mesh=Mesh({"dp": 7}, {"dp": 6})), parent) == (6, 7)
    assert pair(Split(rank=0, world_size=8), parent) == (0, 8)
    assert pair(Split(ranks=False), parent) == (0, 1)


def test_peers_in_other_dimensions_of_a_mesh_read_the_same() -> None:
    sizes = {"pp": 2, "dp_replicate": 3, "dp_shard": 4, "tp": 2}
    for tp in range(2):
        mesh = Mesh(sizes, {"pp": 1, "dp_replicate": 2, "dp_shard": 1, "tp": tp})
        assert pair(Split(mesh=mesh, dp_dims=("dp_replicate", "dp_shard"))) == (2 * 4 + 1, 12)
    with pytest.raises(ValueError, match=r"dp_dims=\('pp',\)"):
        pair(Split(mesh=mesh))
    with pytest.raises(ValueError, match="names 'dp', and the mesh has"):
        pair(Split(mesh=mesh, dp_dims="dp"))


@pytest.mark.parametrize(("rank", "world_size"), [("x", "2"), ("2", "2"), ("0", "")])
def test_nonsense_in_the_environment_is_refused(monkeypatch: Any, rank: str, world_size: str) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world_size)
    with pytest.raises(ValueError, match="which make no rank"):
        find_rank(Split(), None)
