"""What ranks do with distributed checkpoints in the tests: `dcp_programs.py steps ANSWER STEPS`.

A step is (name, first so many ranks, arguments). Starting ranks takes seconds, so all steps are of the same ranks.
"""

import inspect
import json
import os
import sys
import time
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.device_mesh import DeviceMesh

try:
    from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
except ImportError:  # before 2.5
    from torch.distributed._tensor import DTensor, Replicate, Shard, distribute_tensor

from s3dataset import S3Client, S3ClientConfig
from s3dataset.dcp import BinaryPrefixStrategy, S3StorageReader, S3StorageWriter

SMALL = S3ClientConfig(part_size=5 << 20)
PLACEMENTS = {"rows": Shard(0), "columns": Shard(1), "one each": Shard(0), "everywhere": Replicate()}
OTHERS = {"rows": Shard(1), "columns": Shard(0), "one each": Replicate(), "everywhere": Shard(0), "plain": Shard(0)}


def full(seed: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {
        "rows": torch.randn(1003, 300, generator=random),
        "columns": torch.randn(500, 304, generator=random),
        "one each": torch.randn(3, 5, generator=random),
        "everywhere": torch.randn(400, 300, generator=random),
        "plain": torch.randn(300, 300, generator=random),
    }


class Ranks:
    """The first so many."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.mesh = DeviceMesh("cpu", list(range(count)))
        self.group = self.mesh.get_group() if dist.get_rank() < count else None

    def sharded(self, tensors: dict[str, torch.Tensor], placements: dict[str, Any]) -> dict[str, Any]:
        return {
            name: tensor if name not in placements else distribute_tensor(tensor, self.mesh, [placements[name]])
            for name, tensor in tensors.items()
        }

    # -- Steps -------------------------------------------------------------------------------------------------------

    def save(self, uri: str, seed: int, threads: int = 1, prefixes: bool = False) -> list[str]:
        strategy = BinaryPrefixStrategy(prefix_count=2) if prefixes else None
        writer = S3StorageWriter("us-east-1", uri, SMALL, prefix_strategy=strategy, thread_count=threads)
        state = {**self.sharded(full(seed), PLACEMENTS), "step": seed}
        dcp.save(state, storage_writer=writer, process_group=self.group)
        return names(uri)

    def load(self, uri: str, seed: int, which: str = "same") -> dict[str, Any]:
        zeros = {name: torch.zeros_like(tensor) for name, tensor in full(0).items()}
        placements = {"same": PLACEMENTS, "others": OTHERS, "none": {}}[which]
        state = {**self.sharded(zeros, placements), "step": -1}
        dcp.load(state, storage_reader=S3StorageReader("us-east-1", uri, SMALL), process_group=self.group)
        wrong = []
        for name, tensor in full(seed).items():
            loaded = state[name].full_tensor() if isinstance(state[name], DTensor) else state[name]
            if not torch.equal(loaded, tensor):
                wrong.append(name)
        return {"wrong": wrong, "step": state["step"]}

    def fsdp(self, uri: str, what: str) -> list[float]:
        """A model sharded by FSDP2 and its optimizer: saved after some steps, or loaded; and one step more."""
        from torch.distributed._composable.fsdp import fully_shard
        from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(300, 401), torch.nn.ReLU(), torch.nn.Linear(401, 7))
        fully_shard(model, mesh=self.mesh)
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
            writer = S3StorageWriter("us-east-1", uri, SMALL)
            dcp.save(state, storage_writer=writer, process_group=self.group)
        else:
            dcp.load(state, storage_reader=S3StorageReader("us-east-1", uri, SMALL), process_group=self.group)
            set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        step()
        return [float(parameter.full_tensor().double().sum()) for parameter in model.parameters()]

    def failing(self, uri: str) -> dict[str, Any]:
        """A save in which one rank cannot write: the test's server sees to that."""
        writer = S3StorageWriter("us-east-1", uri, SMALL)
        began = time.monotonic()
        try:
            dcp.save(self.sharded(full(1), PLACEMENTS), storage_writer=writer, process_group=self.group)
        except CheckpointException as error:
            elapsed = time.monotonic() - began
            return {"failed": sorted(error.failures), "text": str(error), "elapsed": elapsed, "names": names(uri)}
        return {"failed": []}

    def alone(self, uri: str) -> dict[str, Any] | None:
        """Each rank saves by itself, twice, and loads what it saved."""
        if "use_collectives" not in inspect.signature(dcp.save).parameters:
            return None
        rank = dist.get_rank()
        answer: dict[str, Any] = {}
        for seed in range(2):
            saved = {"a": torch.full((1000, 300), float(10 * seed + rank)), "rank": rank}
            writer = S3StorageWriter("us-east-1", uri, SMALL)
            dcp.save(saved, storage_writer=writer, process_group=self.group, use_collectives=False)
            into = {"a": torch.zeros(1000, 300), "rank": -1}
            dcp.load(into, storage_reader=S3StorageReader("us-east-1", uri, SMALL), process_group=self.group)
            answer[f"loaded {seed}"] = [float(into["a"].min()), float(into["a"].max()), into["rank"]]
        return {**answer, "names": names(uri)}

    def alone_over_together(self, uri: str) -> str | None:
        if "use_collectives" not in inspect.signature(dcp.save).parameters:
            return None
        state = {"a": torch.zeros(3)}
        dcp.save(state, storage_writer=S3StorageWriter("us-east-1", uri, SMALL), process_group=self.group)
        writer = S3StorageWriter("us-east-1", uri, SMALL)
        try:
            dcp.save(state, storage_writer=writer, process_group=self.group, use_collectives=False)
        except RuntimeError as error:
            return str(error)
        return ""

    def background(self, uri: str, kind: str) -> dict[str, Any] | None:
        """async_save in a thread or a process, twice to one place, while the tensors change."""
        arguments: dict[str, Any] = {}
        if kind == "process":
            try:
                from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType
            except ImportError:
                return None
            arguments["async_checkpointer_type"] = AsyncCheckpointerType.PROCESS
        for seed in range(2):
            state = {**self.sharded(full(seed), PLACEMENTS), "step": seed}
            writer = S3StorageWriter("us-east-1", uri, SMALL)
            future = dcp.async_save(state, storage_writer=writer, process_group=self.group, **arguments)
            future = getattr(future, "upload_completion", future)
            for value in state.values():
                if isinstance(value, torch.Tensor):
                    (value.to_local() if isinstance(value, DTensor) else value).zero_()
            future.result()
        dist.barrier(self.group)
        return {**self.load(uri, 1), "names": names(uri)}


def names(uri: str) -> list[str]:
    """Of the objects of a checkpoint."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    pages = S3Client("us-east-1").list_objects(bucket, f"{prefix}/")
    return [info.key.removeprefix(f"{prefix}/") for page in pages for info in page.object_info]


def steps(text: str) -> list[Any]:
    todo = json.loads(text)
    dist.init_process_group("gloo", timeout=timedelta(seconds=100))
    groups = {count: Ranks(count) for count in sorted({count for _, count, *_ in todo})}  # on all ranks
    answers = []
    for name, count, *arguments in todo:
        step = getattr(groups[count], name)
        answers.append(step(*arguments) if dist.get_rank() < count else None)
        dist.barrier()
    return answers


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    Path(sys.argv[2]).write_text(json.dumps({"steps": steps}[sys.argv[1]](*sys.argv[3:])))
    sys.stdout.flush()
    os._exit(0)  # the threads of torch 2.4's gloo do not always end
