"""What each rank of test_dcp_hugging_face.py does: `python hf_programs.py`, with a launcher's variables."""

import os

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.device_mesh import init_device_mesh

try:
    from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
except ImportError:  # torch 2.4
    from torch.distributed._tensor import DTensor, Replicate, Shard, distribute_tensor

from s3dataset import S3ClientConfig
from s3dataset.dcp import (
    S3HuggingFaceStorageReader,
    S3HuggingFaceStorageWriter,
    consolidate_safetensors_files_on_every_rank,
)

MIB = 1 << 20
CONFIG = S3ClientConfig(part_size=5 * MIB)
MAPPING = {"rows": 1, "columns": 2, "all": 3, "uneven": 3, "last": 3}
PLACEMENTS = {"rows": Shard(0), "columns": Shard(1), "all": Replicate(), "uneven": Shard(0), "last": Shard(2)}


def whole():
    generator = torch.Generator().manual_seed(7)

    def make(*shape, dtype=torch.float32):
        return torch.randn(shape, generator=generator).to(dtype)

    return {
        "rows": make(1000, 3000),
        "columns": make(700, 3001),
        "all": make(50, 7, dtype=torch.bfloat16),
        "uneven": make(3, 5),
        "last": make(4, 300, 20, dtype=torch.float64),
    }


def sharded(mesh, placements, values=None):
    values = values or {name: torch.zeros_like(tensor) for name, tensor in whole().items()}
    return {name: distribute_tensor(tensor, mesh, [placements[name]]) for name, tensor in values.items()}


def compare(state):
    for name, expected in whole().items():
        found = state[name].full_tensor() if isinstance(state[name], DTensor) else state[name]
        assert torch.equal(found, expected), name


MAPPING = {"rows": 1, "columns": 2, "all": 3, "uneven": 3, "last": 3}


def save(mesh, path, **options):
    writer = S3HuggingFaceStorageWriter(path, MAPPING, 2, save_distributed=True, s3client_config=CONFIG, **options)
    dcp.save(sharded(mesh, PLACEMENTS, whole()), storage_writer=writer)


OTHERS = {"rows": Shard(1), "columns": Shard(0), "all": Shard(0), "uneven": Replicate(), "last": Shard(1)}


def load(mesh, path, placements):
    state = sharded(mesh, placements)
    dcp.load(state, storage_reader=S3HuggingFaceStorageReader(path, s3client_config=CONFIG))
    compare(state)


def resharding(mesh):
    save(mesh, "s3://models/run")
    load(mesh, "s3://models/run/", PLACEMENTS)
    load(mesh, "s3://models/run", OTHERS)
    plain = {name: torch.zeros_like(tensor) for name, tensor in whole().items()}
    dcp.load(plain, storage_reader=S3HuggingFaceStorageReader("s3://models/run", s3client_config=CONFIG))
    compare(plain)


def every_rank(mesh):
    for _ in range(2):  # the second over the first
        consolidate_safetensors_files_on_every_rank(
            "s3://models/run", "s3://models/out", MAPPING, s3client_config=CONFIG
        )
        load(mesh, "s3://models/out", OTHERS)


def writer_consolidates(mesh):
    save(mesh, "s3://models/both", enable_consolidation=True)
    load(mesh, "s3://models/both/sharded", OTHERS)
    load(mesh, "s3://models/both", PLACEMENTS)


def failure(mesh):
    mapping = MAPPING if dist.get_rank() == 0 else {"rows": 1}
    kind, reason = (
        (RuntimeError, "rank 1 failed: ValueError") if dist.get_rank() == 0 else (ValueError, "has no file in fqn")
    )
    with pytest.raises(kind, match=reason):
        consolidate_safetensors_files_on_every_rank(
            "s3://models/run", "s3://models/failed", mapping, s3client_config=CONFIG
        )


def not_distributed(mesh):
    writer = S3HuggingFaceStorageWriter("s3://models/single", s3client_config=CONFIG)
    with pytest.raises(CheckpointException, match="save_distributed=True"):
        dcp.save(sharded(mesh, PLACEMENTS, whole()), storage_writer=writer)


def main():
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (int(os.environ["WORLD_SIZE"]),))
    for program in (resharding, every_rank, writer_consolidates, failure, not_distributed):
        program(mesh)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
