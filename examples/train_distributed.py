r"""Trains a language model on JSONL shards with many processes, and goes on with any other number of them.

On one machine with eight GPUs:
    torchrun --standalone --nproc-per-node 8 examples/train_distributed.py s3://bucket/jsonl/ s3://bucket/run-2 --fsdp

On four of them, with Slurm (in a file for sbatch, --requeue lets it begin again after a preemption):
    #SBATCH --nodes 4 --ntasks-per-node 1 --gpus-per-node 8 --cpus-per-task 64 --requeue
    srun torchrun --nnodes 4 --nproc-per-node 8 --rdzv-backend c10d --rdzv-id $SLURM_JOB_ID \
        --rdzv-endpoint $(scontrol show hostnames $SLURM_JOB_NODELIST | head -1):29500 \
        examples/train_distributed.py s3://bucket/jsonl/ s3://bucket/run-2 --fsdp

Started again, with more ranks or fewer, it goes on from the newest checkpoint: model and optimizer are spread anew, and
the ranks share what is left of the epoch, so that no document is seen twice and none is missed. Without GPUs it runs
on the CPU (gloo).
"""

import argparse
import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard  # torch 2.6 and later
from torch.nn.parallel import DistributedDataParallel

import s3dataset

END = 256  # the token behind a document; the others are bytes


class Tokens:
    """A transform: the name of a document, and so many tokens of it. Put your tokenizer here."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self, sample: Mapping[str, Any]) -> tuple[str, torch.Tensor]:
        tokens = [*sample["text"].encode(), END][: self.length]
        return f"{sample['__url__']}#{sample['__key__']}", torch.tensor(tokens + [END] * (self.length - len(tokens)))


def language_model(width: int, layers: int) -> nn.Sequential:
    """A next-token model of a few blocks; any module does."""
    block = [nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU()) for _ in range(layers)]
    return nn.Sequential(nn.Embedding(END + 1, width), *block, nn.Linear(width, END + 1))


def distributed(model: nn.Sequential, device: torch.device, *, fsdp: bool) -> nn.Module:
    if not fsdp:
        return DistributedDataParallel(model.to(device))
    mesh = dist.device_mesh.init_device_mesh(device.type, (dist.get_world_size(),))
    for block in model:
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", help="where the JSONL shards lie, with an index (s3dataset index)")
    parser.add_argument("run", help="where checkpoints go")
    parser.add_argument("--region")
    parser.add_argument("--fsdp", action="store_true", help="shard parameters (FSDP2); default: a copy a rank (DDP)")
    parser.add_argument("--length", type=int, default=256, help="tokens of a document (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="of each rank (%(default)s)")
    parser.add_argument("--steps", type=int, default=200, help="(%(default)s)")
    parser.add_argument("--save-every", type=int, default=50, metavar="STEPS", help="(%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="of each rank (%(default)s)")
    parser.add_argument("--names", type=Path, help="folder for the names of the documents that each rank took")
    arguments = parser.parse_args()

    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # gloo beside nccl: CheckpointManager's ranks agree over it, in the background of the training.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")

    # Split() is the default: over all ranks, then over the workers of each. "pad" fills the last step with documents
    # that were seen already, as all ranks have to take as many steps.
    dataset = s3dataset.S3IterableDataset.from_prefix(
        arguments.shards,
        pattern="*.jsonl*",
        format="jsonl",
        transform=Tokens(arguments.length + 1),
        shuffle=s3dataset.Shuffle(seed=0),
        enable_sharding=s3dataset.Split(tail="pad"),
        region=arguments.region,
    )
    loader = s3dataset.DataLoader(dataset, arguments.batch_size, num_workers=arguments.workers)

    torch.manual_seed(0)
    model = distributed(language_model(128, 2), device, fsdp=arguments.fsdp)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def training_state() -> dict[str, Any]:
        weights, moments = get_state_dict(model, optimizer)
        return {"model": weights, "optimizer": moments}

    step = 0
    with contextlib.ExitStack() as stack:
        stack.callback(dist.destroy_process_group)
        manager = stack.enter_context(s3dataset.CheckpointManager(arguments.run, format="dcp", region=arguments.region))
        state = training_state()
        restored = manager.restore(state)  # fills the tensors, for this number of ranks
        if restored is not None:
            set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
            loader.load_state_dict(restored.dataset_state)
            step = restored.step
            if rank == 0:
                print(f"goes on behind step {step}")
        names: Any = None
        if arguments.names is not None:
            path = arguments.names / f"{step}-{rank}.txt"
            names = stack.enter_context(path.open("w", buffering=1))  # what a killed rank took is told too
        while step < arguments.steps:
            begun = step
            for keys, tokens in loader:
                on_device = tokens.to(device, non_blocking=True)
                logits = model(on_device[:, :-1])
                loss = nn.functional.cross_entropy(logits.flatten(0, 1), on_device[:, 1:].flatten())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                if names is not None:
                    names.writelines(f"{step} {key}\n" for key in keys)
                if step % arguments.save_every == 0 or step == arguments.steps:
                    # Of shards without an index each rank knows its own place only: this puts them together.
                    place = s3dataset.gather_state(loader)
                    manager.save_async(step, training_state(), dataset_state=place)
                    if rank == 0:
                        print(f"step {step}: loss {loss.item():.3f}")
                if step == arguments.steps:
                    break
            if step == begun:
                raise SystemExit(f"{arguments.shards} holds no documents.")


if __name__ == "__main__":
    main()
