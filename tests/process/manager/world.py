"""What tests of the manager have in common."""

from typing import Any

import torch

from s3dataset import CheckpointManager
from s3dataset._client import ClientRef
from s3dataset._commits import Catalog, Layout
from s3dataset.testing import LocalS3

BUCKET = "bucket"
URI = "s3://bucket/run"
MIB = 1 << 20


def state(value: float, count: int = 1000) -> dict[str, Any]:
    return {"weights": torch.full((count,), value)}


def steps(manager: CheckpointManager) -> list[int]:
    return [info.step for info in manager.list()]


def catalog() -> Catalog:
    return Catalog(Layout.at(URI), ClientRef())


def file_of(server: LocalS3, step: int) -> str:
    (key,) = server.keys(BUCKET, f"run/data/{step}.")
    return key
