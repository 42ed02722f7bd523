"""Batches of readers, for loaders whose user gave no collate function."""

from typing import Any

from torch.utils.data._utils.collate import default_collate_fn_map

from s3dataset._io import S3Reader

__all__ = ["register"]


def _collate_readers(batch: list[S3Reader], *, collate_fn_map: Any = None) -> list[S3Reader]:  # noqa: ARG001 - torch's form
    return list(batch)


def register() -> None:
    """Has torch's default_collate make a list of readers of a batch of them. The map is the way torch documents."""
    default_collate_fn_map[S3Reader] = _collate_readers
