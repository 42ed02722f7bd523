"""What three ranks do with a CheckpointManager: `python checkpoint_programs.py all OUT`; see rank_programs.py.

All of it in one start of the processes, which takes longer than all the rest.
"""

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import s3dataset
from s3dataset import CheckpointManager
from s3dataset.errors import S3Exception

LOADS_IN_GROUPS = COMPARES_SHAPES = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 5)
"""torch 2.4's dcp.load asks all ranks for their keys, whichever group it is given, and fills what fits."""


def state(value: float, count: int = 1000) -> dict[str, Any]:
    return {"weights": torch.full((count,), value)}


def raised(work: Callable[[], Any]) -> str:
    try:
        work()
    except Exception as error:  # noqa: BLE001 - it is the answer
        return f"{type(error).__name__}: {error}"
    return ""


def save_and_restore(rank: int, uri: str) -> Any:
    """Rank 0's state and dataset state are what all ranks get; ranks count one another."""
    with CheckpointManager(uri, keep_last=2) as manager:
        for step in (1, 2, 3):
            manager.save(step, state(step + rank / 10), dataset_state={"rank": rank}, metadata=f"m{rank}")
        restored = manager.restore()
        assert restored is not None
        return {
            "step": restored.step,
            "value": restored.state["weights"].mean().item(),
            "dataset_state": restored.dataset_state,
            "metadata": restored.metadata,
            "latest": manager.latest(),
            "steps": [info.step for info in manager.list()],
            "world_size": manager.list()[0].world_size,
        }


def train_meanwhile(rank: int, uri: str) -> Any:
    """Collectives of a training go on while a checkpoint is committed in the background, one rank being late."""
    manager = CheckpointManager(uri)
    total = 0.0
    futures = []
    for step in range(1, 6):
        if rank == 1:
            time.sleep(0.05)
        futures.append(manager.save_async(step, state(float(step))))
        for _ in range(20):
            value = torch.tensor([float(rank + 1)])
            dist.all_reduce(value)
            total += value.item()
    manager.close()
    again = CheckpointManager(uri)
    steps = [future.result().step for future in futures]
    answer = {"total": total, "steps": steps, "latest": again.latest()}
    again.close()
    return answer


def fail_on(rank: int, uri: str, which: int) -> Any:
    """One rank fails to write: no rank has saved, and all of them know which failed."""
    manager = CheckpointManager(uri)
    manager.save(1, state(1.0))
    files = manager._files
    write = files.save

    def fail(*arguments: Any) -> None:
        if rank == which:
            raise S3Exception("the disk of this rank is full")
        write(*arguments)

    files.save = fail  # type: ignore[method-assign]
    sync = raised(lambda: manager.save(2, state(2.0)))
    files.save = write  # type: ignore[method-assign]
    files.save_async = lambda *_: lambda: fail(*_, None)  # type: ignore[method-assign]
    future = manager.save_async(3, state(3.0))
    unseen = raised(manager.latest)  # the first call after it tells
    answer = {"sync": sync, "async": raised(future.result), "unseen": unseen, "latest": manager.latest()}
    manager.close()
    return answer


def ask_on_one_rank(rank: int, uri: str) -> Any:
    """A failure that one rank has asked about, and the other has not, leaves them in step with one another."""
    manager = CheckpointManager(uri)
    manager.save(1, state(1.0))
    files = manager._files
    files.save_async = lambda *_: _fail  # type: ignore[method-assign]
    future = manager.save_async(2, state(2.0))
    if rank == 0:
        raised(future.result)
    told = raised(lambda: manager.save(3, state(3.0)))
    manager.save(4, state(4.0))
    answer = {"told": told, "latest": manager.latest()}
    manager.close()
    return answer


def _fail() -> None:
    raise S3Exception("no more room")


def wrong_arguments(rank: int, uri: str) -> Any:
    """What one rank asks for cannot be: all of them say so, and go on together."""
    with CheckpointManager(uri) as manager:
        answer = {
            "json": raised(lambda: manager.save(1, state(1.0), metadata=torch.ones(1) if rank == 1 else None)),
            "steps": raised(lambda: manager.save(1 + rank, state(1.0))),
        }
        manager.save(5, state(5.0))
        answer["again"] = raised(lambda: manager.save(5, state(5.0)))
        answer["older"] = raised(lambda: manager.save(4, state(5.0)))
        answer["latest"] = manager.latest()
        return answer


def fall_back(rank: int, uri: str) -> Any:
    """The newest checkpoint has a byte that changes on its way to one rank: all restore the one before."""
    with CheckpointManager(uri, s3client_config=s3dataset.S3ClientConfig(part_size=5 << 20)) as manager:
        for step in (1, 2, 3):
            manager.save(step, state(float(step), 8 << 20))
        restored = manager.restore()
        assert restored is not None
        manager.save(3, state(3.5))  # the damaged one is replaced without being asked
        again = manager.latest()
        return {
            "step": restored.step,
            "value": restored.state["weights"].mean().item(),
            "skipped": [list(skipped) for skipped in restored.skipped],
            "latest": again,
        }


def fall_back_together(rank: int, uri: str, which: int) -> Any:
    """One rank alone finds the newest checkpoint damaged, after the others have loaded it."""
    with CheckpointManager(uri) as manager:
        for step in (1, 2, 3):
            manager.save(step, state(float(step)))
        files = manager._files
        load = files.load

        def fail(own: Any, prefix: str, *rest: Any) -> Any:
            loaded = load(own, prefix, *rest)
            if rank == which and "/3." in prefix:
                raise s3dataset.ObjectNotFoundError("it is gone")
            return loaded

        files.load = fail  # type: ignore[method-assign]
        restored = manager.restore()
        assert restored is not None
        return {
            "step": restored.step,
            "value": restored.state["weights"].mean().item(),
            "skipped": [list(skipped) for skipped in restored.skipped],
        }


def cannot_load(rank: int, uri: str, which: int) -> Any:
    """A rank fails for a reason of its own: no older checkpoint is taken, and all of them raise."""
    with CheckpointManager(uri) as manager:
        manager.save(1, state(1.0))
        manager.save(2, state(2.0))
        files = manager._files
        load = files.load

        def fail(*arguments: Any) -> Any:
            load(*arguments)
            raise MemoryError("4 TiB")

        if rank == which:
            files.load = fail  # type: ignore[method-assign]
        return {"error": raised(manager.restore), "latest": manager.latest()}


def be_killed(rank: int, uri: str, which: int) -> Any:
    """A rank dies in the middle of a save: the other one is told soon, and nothing was committed."""
    manager = CheckpointManager(uri)
    manager.save(1, state(1.0))
    if rank == which:
        manager._files.save = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
    began = time.monotonic()
    error = raised(lambda: manager.save(2, state(2.0)))
    took = time.monotonic() - began
    answer = {"error": error, "steps": [info.step for info in manager.list()]}
    manager.close()
    return {**answer, "took": took, "closing": time.monotonic() - began - took}


def parts_of_the_ranks(rank: int, uri: str) -> Any:
    """Ranks 1 and 2 of three save together; the third has no part in it, and its next group is made as ever."""
    group = dist.new_group([1, 2], backend="gloo")
    if rank == 0:
        return {"error": raised(CheckpointManager(uri, process_group=group).latest)}
    with CheckpointManager(uri, process_group=group) as manager:
        manager.save_async(1, state(float(rank))).result()
        restored = manager.restore()
        assert restored is not None
        return {"value": restored.state["weights"].mean().item(), "world_size": manager.list()[0].world_size}


def _spread(value: float) -> tuple[Any, torch.Tensor]:
    """A tensor of which each rank has three elements, and those of this rank."""
    from torch.distributed.device_mesh import init_device_mesh

    try:
        from torch.distributed.tensor import DTensor, Shard
    except ImportError:  # torch 2.4
        from torch.distributed._tensor import DTensor, Shard

    mesh = init_device_mesh("cpu", (3,))
    local = torch.arange(3.0) + 3 * dist.get_rank() + value
    return DTensor.from_local(local, mesh, [Shard(0)], run_check=False), local


def spread_states(rank: int, uri: str) -> Any:
    """A tensor of which each rank has a part is not saved as if rank 0's were all of it."""
    with CheckpointManager(uri) as manager:
        return {"error": raised(lambda: manager.save(1, {"model": [_spread(0.0)[0]]}))}


def distributed_format(rank: int, uri: str) -> Any:
    """Spread tensors are saved in both ways, and restored into others; damage to the newest one is skipped by all."""
    answer: dict[str, Any] = {}
    with CheckpointManager(uri, format="dcp") as manager:
        tensor, local = _spread(10.0)
        manager.save(1, {"w": tensor, "n": 1}, dataset_state={"at": 1})
        future = manager.save_async(2, {"w": _spread(20.0)[0], "n": 2}, dataset_state={"at": 2})
        answer["saved"] = future.result().num_files
        tensor, local = _spread(30.0)
        future = manager.save_async(3, {"w": tensor, "n": 3}, dataset_state={"at": 3})
        local.zero_()  # the copy is made
        future.result()
        into, mine = _spread(-100.0)
        restored = manager.restore({"w": into, "n": 0})
        assert restored is not None
        answer["restored"] = [restored.step, mine.tolist(), restored.state["n"], restored.dataset_state]
        damage = manager.list()[0].uri.removeprefix("s3://bucket/")
        dist.barrier()
        if rank == 0:
            client = s3dataset.S3Client()
            keys = [info.key for page in client.list_objects("bucket", damage) for info in page.object_info]
            client.delete_object("bucket", next(key for key in keys if "__1_" in key))
        dist.barrier()
        restored = manager.restore({"w": into, "n": 0})
        assert restored is not None
        answer["older"] = [restored.step, mine.tolist(), restored.state["n"], [step for step, _ in restored.skipped]]
        verified = manager.restore({"w": into, "n": 0}, verify=True)
        assert verified is not None
        answer["verified"] = [verified.step, mine.tolist()]
        if COMPARES_SHAPES:
            answer["other shape"] = raised(lambda: manager.restore({"w": torch.zeros(7), "n": 0}))
    with CheckpointManager(uri, format="torch") as manager:  # the record tells the format
        answer["no state"] = raised(lambda: manager.restore(step=2))
    return answer


class OneFails:
    """Has a state dict, which one rank cannot make."""

    def __init__(self, rank: int) -> None:
        self.fails = False
        self._rank = rank
        self.value = torch.full((3,), 1.0)

    def state_dict(self) -> dict[str, Any]:
        if self.fails and self._rank == 1:
            raise MemoryError("no room for the state of this rank")
        return {"value": self.value}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.value = state_dict["value"] + 1


def states_of_their_own(rank: int, uri: str) -> Any:
    """A rank that fails before torch's collectives leaves nobody waiting in them."""
    part = OneFails(rank)
    with CheckpointManager(uri, format="dcp") as manager:
        manager.save(1, {"part": part, "n": 1})
        into: dict[str, Any] = {"part": part, "n": 0}
        manager.restore(into)
        restored = [part.value.tolist(), into["n"], into["part"] is part]
        part.fails = True
        errors = [
            raised(lambda: manager.save(2, {"part": part})),
            raised(lambda: manager.save_async(2, {"part": part}).result()),
            raised(lambda: manager.restore({"part": part})),
        ]
        return {"restored": restored, "errors": errors, "latest": manager.latest()}


def restored_by_fewer(rank: int, uri: str) -> Any:
    """What three ranks saved is read by two."""
    with CheckpointManager(uri, format="dcp") as manager:
        manager.save(1, {"w": _spread(10.0)[0]})
    dist.barrier()
    group = dist.new_group([0, 1], backend="gloo")
    if rank == 2 or not LOADS_IN_GROUPS:
        return {}
    with CheckpointManager(uri, format="dcp", process_group=group) as manager:
        into = {"w": torch.zeros(9)}
        manager.restore(into)
        return {"w": into["w"].tolist(), "ranks": manager.list()[0].world_size}


PLAN: list[tuple[Callable[..., Any], tuple[int, ...]]] = [
    (save_and_restore, ()),
    (train_meanwhile, ()),
    (fail_on, (0,)),
    (fail_on, (1,)),
    (ask_on_one_rank, ()),
    (wrong_arguments, ()),
    (fall_back, ()),
    (fall_back_together, (0,)),
    (fall_back_together, (1,)),
    (cannot_load, (0,)),
    (cannot_load, (1,)),
    (parts_of_the_ranks, ()),
    (spread_states, ()),
    (distributed_format, ()),
    (states_of_their_own, ()),
    (restored_by_fewer, ()),
    (be_killed, (1,)),  # the last one
]

if __name__ == "__main__":
    logging.disable(logging.ERROR)
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    answers = {}
    for program, arguments in PLAN:
        key = "-".join([program.__name__, *map(str, arguments)])
        answers[key] = program(dist.get_rank(), f"s3://bucket/{key}", *arguments)
        Path(sys.argv[2]).write_text(json.dumps(answers))
