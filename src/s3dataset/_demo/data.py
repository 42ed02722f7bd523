"""The datasets of the demo. The fresh process needs this and the network, and nothing else."""

import signal
from collections.abc import Iterable
from typing import TypeAlias

import torch

import s3dataset
from s3dataset._demo.model import CLASSES, Batch
from s3dataset._demo.place import Place
from s3dataset.transforms import Image, LabelFromKey, Pair

Sample: TypeAlias = tuple[torch.Tensor, int | str]
SPLIT = {"train": 0.8, "val": 0.2}


def split_images(place: Place) -> dict[str, s3dataset.Manifest]:
    """Lists the digits once, and says which to train on and which to keep for validation; the same in every process."""
    listing = s3dataset.Manifest.from_prefix(place.images, pattern="*/*.png", **place.connection)
    return listing.split(SPLIT, seed=0)


def to_sample() -> Pair[torch.Tensor, int | str]:
    """What makes a sample of an object: a uint8 tensor of (1, 8, 8), and the label that stands in the key."""
    return Pair(Image(mode="L", output="tensor"), LabelFromKey(level=-2, classes=CLASSES))


def validation_batches(
    place: Place, manifest: s3dataset.Manifest, workers: int
) -> tuple[s3dataset.S3IterableDataset[Sample], Iterable[Batch]]:
    dataset = s3dataset.S3IterableDataset.from_manifest(manifest, transform=to_sample(), **place.connection)
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=64,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=leave_interrupts_to_parent,
    )
    return dataset, loader


def leave_interrupts_to_parent(_worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the main one ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
