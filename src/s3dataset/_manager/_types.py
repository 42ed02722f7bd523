"""What the manager returns."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from s3dataset._commits import CommitRecord

__all__ = ["CheckpointInfo", "Restored", "Skipped", "info_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointInfo:
    """A committed checkpoint. Immutable and picklable.

    Attributes:
        step: Of the training.
        uri: Where its files are: "s3://bucket/run/data/<step>.<attempt>/".
        time: Epoch seconds at which it was committed, by the clock of rank 0.
        nbytes: Of all its files.
        num_files: How many they are.
        world_size: Ranks that saved it.
        format: "torch", "dcp" or "safetensors".
        pinned: Whether it was pinned when it was listed.
        dataset_state: As it was saved.
        metadata: As it was saved.
        libraries: Versions of what wrote it, by name.
    """

    step: int
    uri: str
    time: float
    nbytes: int
    num_files: int
    world_size: int
    format: str
    pinned: bool
    dataset_state: Any
    metadata: Any
    libraries: dict[str, str]


class Skipped(NamedTuple):
    """A newer checkpoint that could not be restored.

    Attributes:
        step: Which.
        reason: What is wrong with it.
    """

    step: int
    reason: str


class Restored(NamedTuple):
    """What `restore` found.

    Attributes:
        step: Of the training.
        state: What was saved; with format "dcp" what was given, filled.
        dataset_state: As it was saved.
        metadata: As it was saved.
        skipped: Newer checkpoints that are damaged, newest first; [] almost always.
    """

    step: int
    state: Any
    dataset_state: Any
    metadata: Any
    skipped: list[Skipped]


def info_of(record: CommitRecord, uri: str, *, pinned: bool) -> CheckpointInfo:
    """A commit record as users see it."""
    return CheckpointInfo(
        step=record.step,
        uri=uri,
        time=record.time,
        nbytes=record.nbytes,
        num_files=len(record.objects),
        world_size=record.world_size,
        format=record.format,
        pinned=pinned,
        dataset_state=record.dataset_state,
        metadata=record.metadata,
        libraries=dict(record.libraries),
    )
