"""A training program that keeps model and data's state together at each step, for a test that kills it."""

import warnings
from typing import Any

import torch
from tests.process.shard_world import number

import s3dataset
from s3dataset import BatchSampler, DataLoader, Manifest, S3IterableDataset, S3MapDataset, Shuffle


def loader_of(kind: str, manifest: Manifest, workers: int) -> Any:
    """The loader of a kind of data."""
    if kind == "map":
        return DataLoader(
            S3MapDataset.from_manifest(manifest, transform=number), batch_size=8, shuffle=True, seed=2,
            num_workers=workers,
        )  # fmt: skip
    if kind == "stateful":
        from torchdata.stateful_dataloader import StatefulDataLoader

        dataset = S3MapDataset.from_manifest(manifest, transform=number)
        sampler = BatchSampler(dataset, 8, seed=2, num_workers=workers)
        return StatefulDataLoader(dataset, batch_sampler=sampler, num_workers=workers)
    stream = S3IterableDataset.from_manifest(
        manifest, format="tar", transform=number, shuffle=Shuffle(seed=8, streams=6)
    )
    return DataLoader(stream, batch_size=8, num_workers=workers)


def train(kind: str, uri: str, run: str, workers: int, epochs: int, steps: Any) -> None:
    """Trains until so many epochs are done, from where the run stands; says each step that is saved."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    manifest = Manifest.load(f"{uri}index.manifest")
    loader = loader_of(kind, manifest, workers)
    log: list[Any] = []
    with s3dataset.CheckpointManager(run, keep_last=2) as manager:
        restored = manager.restore()
        if restored is not None:
            model.load_state_dict(restored.state["model"])
            optimizer.load_state_dict(restored.state["optimizer"])
            loader.load_state_dict(restored.dataset_state)
            log = restored.metadata["log"]
        epoch = restored.metadata["epoch"] if restored is not None else 0
        while epoch < epochs:
            for batch in loader:
                values = batch.float().unsqueeze(1)
                loss = ((model(values / 100) - values / 50) ** 2).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                log.append([epoch, loss.item(), batch.tolist()])
                state = loader.state_dict()
                # Ours says behind the last batch that the next epoch comes; torchdata's goes on to the end of this one.
                after = state.get("epoch", epoch)
                manager.save(
                    len(log),
                    {"model": model.state_dict(), "optimizer": optimizer.state_dict()},
                    dataset_state=state,
                    metadata={"log": log, "epoch": after},
                )
                steps.send(len(log))
            epoch += 1
