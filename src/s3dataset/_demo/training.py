"""Uploads the pictures, trains from a map dataset, validates through an iterable one, saves a checkpoint an epoch."""

import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, TypeAlias, TypeVar, cast

import torch
from torch import nn
from tqdm import tqdm

import s3dataset
from s3dataset._demo import images
from s3dataset._demo.figures import Curve
from s3dataset._demo.model import Batch, DigitNet, Validation, validate
from s3dataset._demo.place import Place
from s3dataset._uri import S3Uri
from s3dataset.transforms import Image, LabelFromKey, Pair

T = TypeVar("T")
Sample: TypeAlias = tuple[torch.Tensor, int | str]
HIGHEST_LEARNING_RATE = 1e-2
SPLIT = {"train": 0.8, "val": 0.2}


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train. Eight epochs bring about 99 % and take some ten seconds on two cores."""

    epochs: int = 8
    batch_size: int = 32
    workers: int = 2
    seed: int = 1


@dataclass(slots=True)
class Clock:
    """Wall time by phase, in the order of the phases' first use."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin

    def waiting(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Passes the items on and counts the time spent on waiting for them as a phase."""
        iterator = iter(items)
        while True:
            with self.phase(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item


@dataclass(slots=True)
class Trained:
    """What the training came to."""

    curves: list[Curve]
    validation: Validation
    checkpoint_uri: str
    parameters: int


def upload(place: Place) -> tuple[int, int]:
    """Puts every picture below the place; -> number of objects, and of bytes."""
    client, target = place.client(), S3Uri.parse_prefix(place.uri)
    pictures = [*images.digits(), *images.photographs()]
    requests = ((target.bucket, target.key + picture.key, picture.data) for picture in pictures)
    client.put_many(tqdm(requests, "upload", len(pictures), unit=" objects", leave=False, disable=None))
    return len(pictures), sum(len(picture.data) for picture in pictures)


def split_images(place: Place) -> dict[str, s3dataset.Manifest]:
    """Lists the digits once, and says which to train on and which to keep for validation; the same in every process."""
    listing = s3dataset.Manifest.from_prefix(
        place.images, pattern="*/*.png", region=place.region, endpoint=place.endpoint
    )
    return listing.split(SPLIT, seed=0)


def to_sample() -> Pair[torch.Tensor, int | str]:
    """What makes a sample of an object: a uint8 tensor of (1, 8, 8), and the label that stands in the key."""
    return Pair(Image(mode="L", output="tensor"), LabelFromKey(level=-2, classes=images.CLASSES))


def validation_batches(
    place: Place, manifest: s3dataset.Manifest, workers: int
) -> tuple[s3dataset.S3IterableDataset[Sample], Iterable[Batch]]:
    dataset = s3dataset.S3IterableDataset.from_manifest(
        manifest, transform=to_sample(), region=place.region, endpoint=place.endpoint
    )
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


class Training:
    """One run. The datasets stay at hand for their statistics."""

    def __init__(
        self, place: Place, manifests: dict[str, s3dataset.Manifest], settings: Settings, clock: Clock
    ) -> None:
        self.place, self.settings, self.clock = place, settings, clock
        self.dataset = s3dataset.S3MapDataset.from_manifest(
            manifests["train"], transform=to_sample(), region=place.region, endpoint=place.endpoint
        )
        self.loader = s3dataset.DataLoader(
            self.dataset,
            batch_size=settings.batch_size,
            shuffle=True,
            num_workers=settings.workers,
            persistent_workers=settings.workers > 0,
            worker_init_fn=leave_interrupts_to_parent,
        )
        self.validation_dataset, self.validation_loader = validation_batches(place, manifests["val"], settings.workers)
        self.model = DigitNet()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=HIGHEST_LEARNING_RATE)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, HIGHEST_LEARNING_RATE, total_steps=settings.epochs * len(self.loader)
        )

    def run(self, tell: Callable[[str], None]) -> Trained:
        curves = []
        validation, uri = Validation(), ""
        for epoch in range(1, self.settings.epochs + 1):
            self.loader.set_epoch(epoch - 1)
            loss, accuracy = self.train_epoch(f"epoch {epoch}/{self.settings.epochs}")
            with self.clock.phase("validation"):
                validation = validate(self.model, self.validation_loader)
            uri = self.place.checkpoint(epoch)
            with self.clock.phase("checkpoints"):
                self.save(uri, epoch)
            curves.append(Curve(epoch, loss, accuracy, validation.loss, validation.accuracy))
            tell(
                f"  epoch {epoch:2}/{self.settings.epochs}   loss {loss:6.4f}   "
                f"validation {validation.accuracy:7.2%}   saved {uri}"
            )
        return Trained(curves, validation, uri, sum(p.numel() for p in self.model.parameters()))

    def train_epoch(self, title: str) -> tuple[float, float]:
        """One pass over the training images; -> mean loss, accuracy."""
        self.model.train()
        loss_sum, correct, seen = 0.0, 0, 0
        with tqdm(total=len(self.dataset), desc=title, unit=" images", leave=False, disable=None) as bar:
            for inputs, labels in self.clock.waiting("training: waiting for data", self.loader):
                with self.clock.phase("training: computing"):
                    logits = self.model(inputs)
                    loss = nn.functional.cross_entropy(logits, labels)
                    self.optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    self.optimizer.step()
                    self.schedule.step()
                    loss_sum += loss.item() * len(labels)
                    correct += int((logits.argmax(dim=1) == labels).sum())
                    seen += len(labels)
                bar.update(len(labels))
                bar.set_postfix(loss=f"{loss_sum / seen:.3f}", refresh=False)
        return loss_sum / max(seen, 1), correct / max(seen, 1)

    def save(self, uri: str, epoch: int) -> None:
        checkpoint = s3dataset.S3Checkpoint(region=self.place.region, endpoint=self.place.endpoint)
        with checkpoint.writer(uri) as writer:
            torch.save({"epoch": epoch, "model": self.model.state_dict()}, cast("IO[bytes]", writer))
