"""Trains from a map dataset, validates through an iterable one, saves a checkpoint an epoch."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, TypeVar, cast

import torch
from torch import nn
from tqdm import tqdm

import s3dataset
from s3dataset._demo.data import leave_interrupts_to_parent, to_sample, validation_batches
from s3dataset._demo.model import DigitNet, EpochResult, Validation, validate
from s3dataset._demo.place import Place

T = TypeVar("T")
HIGHEST_LEARNING_RATE = 1e-2


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

    epochs: list[EpochResult]
    validation: Validation
    checkpoint_uri: str
    parameters: int


class Training:
    """One run. The datasets stay at hand for their statistics."""

    def __init__(
        self, place: Place, manifests: dict[str, s3dataset.Manifest], settings: Settings, clock: Clock
    ) -> None:
        self.place, self.settings, self.clock = place, settings, clock
        self.dataset = s3dataset.S3MapDataset.from_manifest(
            manifests["train"], transform=to_sample(), **place.connection
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
        epochs = []
        validation, uri = Validation(), ""
        for epoch in range(1, self.settings.epochs + 1):
            self.loader.set_epoch(epoch - 1)
            loss, accuracy = self.train_epoch(f"epoch {epoch}/{self.settings.epochs}")
            with self.clock.phase("validation"):
                validation = validate(self.model, self.validation_loader)
            uri = self.place.checkpoint(epoch)
            with self.clock.phase("checkpoints"):
                self.save(uri, epoch)
            epochs.append(EpochResult(epoch, loss, accuracy, validation.loss, validation.accuracy))
            tell(
                f"  epoch {epoch:2}/{self.settings.epochs}   loss {loss:6.4f}   "
                f"validation {validation.accuracy:7.2%}   saved {uri}"
            )
        return Trained(epochs, validation, uri, sum(p.numel() for p in self.model.parameters()))

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
        checkpoint = s3dataset.S3Checkpoint(**self.place.connection)
        with checkpoint.writer(uri) as writer:
            torch.save({"epoch": epoch, "model": self.model.state_dict()}, cast("IO[bytes]", writer))
