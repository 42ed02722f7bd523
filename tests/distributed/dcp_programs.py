"""What ranks do with distributed checkpoints in the tests: `dcp_programs.py PROGRAM ANSWER ARGUMENTS...`."""

import inspect
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.device_mesh import init_device_mesh

try:
    from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
except ImportError:  # before 2.5
    from torch.distributed._tensor import DTensor, Replicate, Shard, distribute_tensor

from s3dataset import S3ClientConfig
from s3dataset.dcp import BinaryPrefixStrategy, S3StorageReader, S3StorageWriter

SMALL = S3ClientConfig(part_size=5 << 20)


def full(seed: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {
        "rows": torch.randn(1003, 300, generator=random),
        "columns": torch.randn(500, 304, generator=random),
        "one each": torch.randn(3, 5, generator=random),
        "everywhere": torch.randn(400, 300, generator=random),
        "plain": torch.randn(300, 300, generator=random),
    }


def sharded(tensors: dict[str, torch.Tensor], placements: dict[str, Any]) -> dict[str, Any]:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    return {
        name: tensor if name not in placements else distribute_tensor(tensor, mesh, [placements[name]])
        for name, tensor in tensors.items()
    }


PLACEMENTS = {"rows": Shard(0), "columns": Shard(1), "one each": Shard(0), "everywhere": Replicate()}
OTHERS = {"rows": Shard(1), "columns": Shard(0), "one each": Replicate(), "everywhere": Shard(0), "plain": Shard(0)}


def difference(state: dict[str, Any], seed: int) -> list[str]:
    """Names of what is not as it was saved."""
    found = []
    for name, tensor in full(seed).items():
        loaded = state[name].full_tensor() if isinstance(state[name], DTensor) else state[name]
        if not torch.equal(loaded, tensor):
            found.append(name)
    return found


def save(uri: str, seed: str = "0", threads: str = "1", prefixes: str = "") -> dict[str, Any]:
    strategy = BinaryPrefixStrategy() if prefixes else None
    writer = S3StorageWriter("us-east-1", uri, SMALL, prefix_strategy=strategy, thread_count=int(threads))
    state = {**sharded(full(int(seed)), PLACEMENTS), "step": int(seed)}
    dcp.save(state, storage_writer=writer)
    return {}


def load(uri: str, seed: str = "0", which: str = "same") -> dict[str, Any]:
    zeros = {name: torch.zeros_like(tensor) for name, tensor in full(0).items()}
    state = {**sharded(zeros, {"same": PLACEMENTS, "others": OTHERS, "none": {}}[which]), "step": -1}
    dcp.load(state, storage_reader=S3StorageReader("us-east-1", uri, SMALL))
    return {"wrong": difference(state, int(seed)), "step": state["step"]}


def fsdp(uri: str, what: str) -> dict[str, Any]:
    """A model sharded by FSDP2 and its optimizer: saved after some steps, or loaded, and one step more."""
    from torch.distributed._composable.fsdp import fully_shard
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(300, 401), torch.nn.ReLU(), torch.nn.Linear(401, 7))
    fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizer = torch.optim.AdamW(model.parameters())

    def step() -> None:
        model(torch.ones(2, 300)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    if what == "save":
        for _ in range(3):
            step()
    weights, moments = get_state_dict(model, optimizer)
    state = {"model": weights, "optimizer": moments}
    if what == "save":
        dcp.save(state, storage_writer=S3StorageWriter("us-east-1", uri, SMALL))
    else:
        dcp.load(state, storage_reader=S3StorageReader("us-east-1", uri, SMALL))
        set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    step()
    return {"sums": [float(parameter.full_tensor().double().sum()) for parameter in model.parameters()]}


def failing(uri: str) -> dict[str, Any]:
    """A save in which one rank cannot write: the test's server sees to that."""
    writer = S3StorageWriter("us-east-1", uri, S3ClientConfig(max_attempts=1))
    began = time.monotonic()
    try:
        dcp.save(sharded(full(1), PLACEMENTS), storage_writer=writer)
    except CheckpointException as error:
        return {"failed": sorted(error.failures), "text": str(error), "elapsed": time.monotonic() - began}
    return {"failed": []}


def alone(uri: str) -> dict[str, Any]:
    """Each rank saves by itself, twice, and loads what it saved."""
    rank = dist.get_rank()
    if "use_collectives" not in inspect.signature(dcp.save).parameters:
        return {"skipped": True}
    answer: dict[str, Any] = {}
    for seed in range(2):
        saved = {"a": torch.full((1000, 300), float(10 * seed + rank)), "rank": rank}
        dcp.save(saved, storage_writer=S3StorageWriter("us-east-1", uri, SMALL), use_collectives=False)
        into = {"a": torch.zeros(1000, 300), "rank": -1}
        dcp.load(into, storage_reader=S3StorageReader("us-east-1", uri, SMALL))
        answer[f"loaded {seed}"] = [float(into["a"].min()), float(into["a"].max()), into["rank"]]
    return answer


def alone_over_together(uri: str) -> dict[str, Any]:
    if "use_collectives" not in inspect.signature(dcp.save).parameters:
        return {"skipped": True}
    state = {"a": torch.zeros(3)}
    dcp.save(state, storage_writer=S3StorageWriter("us-east-1", uri, SMALL))
    dist.barrier()
    try:
        dcp.save(state, storage_writer=S3StorageWriter("us-east-1", uri, SMALL), use_collectives=False)
    except RuntimeError as error:
        return {"error": str(error)}
    return {}


def background(uri: str, kind: str) -> dict[str, Any]:
    """async_save in a thread or a process, twice to one place, while the tensors change."""
    arguments: dict[str, Any] = {}
    if kind == "process":
        try:
            from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType
        except ImportError:
            return {"skipped": True}
        arguments["async_checkpointer_type"] = AsyncCheckpointerType.PROCESS
    for seed in range(2):
        state = {**sharded(full(seed), PLACEMENTS), "step": seed}
        future = dcp.async_save(state, storage_writer=S3StorageWriter("us-east-1", uri, SMALL), **arguments)
        future = getattr(future, "upload_completion", future)
        for value in state.values():
            if isinstance(value, DTensor):
                value.to_local().zero_()
            elif isinstance(value, torch.Tensor):
                value.zero_()
        future.result()
    return load(uri, "1")


PROGRAMS = {
    program.__name__: program for program in (save, load, fsdp, failing, alone, alone_over_together, background)
}


def main() -> None:
    warnings.simplefilter("ignore")
    program, answer, *arguments = sys.argv[1:]
    dist.init_process_group("gloo")
    try:
        result = PROGRAMS[program](*arguments)
        Path(answer).write_text(json.dumps(result))
        dist.barrier()
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
