"""A small convolutional network for digits of 8 x 8 pixels; about 99 % right after eight epochs."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import nn

Batch: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""uint8 images (N, 1, 8, 8) and labels (N,)."""


CLASSES = [str(digit) for digit in range(10)]


class DigitNet(nn.Module):
    """Two convolutions and two linear layers; 152,000 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(0.25),
        )
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(64 * 4 * 4, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 10)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.features(images.float() / 255))
        return logits


@dataclass(slots=True)
class Validation:
    """What the model made of the validation images."""

    loss: float = 0.0
    correct: int = 0
    images: list[torch.Tensor] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    predictions: list[int] = field(default_factory=list)

    @property
    def samples(self) -> int:
        return len(self.labels)

    @property
    def accuracy(self) -> float:
        return self.correct / self.samples if self.samples else 0.0


@dataclass(frozen=True, slots=True)
class EpochResult:
    """What one epoch came to."""

    epoch: int
    train_loss: float
    train_accuracy: float
    valid_loss: float
    valid_accuracy: float


def use_one_thread() -> None:
    """The network is so small that several threads spend more time on meeting than on computing."""
    torch.set_num_threads(1)


@torch.no_grad()
def validate(model: nn.Module, batches: Iterable[Batch]) -> Validation:
    """Runs the model over all batches, without learning from them."""
    model.eval()
    result = Validation()
    total = 0.0
    for images, labels in batches:
        logits = model(images)
        predictions = logits.argmax(dim=1)
        total += float(nn.functional.cross_entropy(logits, labels, reduction="sum"))
        result.correct += int((predictions == labels).sum())
        result.images.extend(images)
        result.labels.extend(labels.tolist())
        result.predictions.extend(predictions.tolist())
    result.loss = total / max(result.samples, 1)
    return result
