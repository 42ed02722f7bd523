"""Checkpoints through each library: in its own way, or by torch.save and torch.load with its files."""

import io
from typing import Any

from benchmarks.clients import Boto3, Client, Obstore, Target
from benchmarks.data import BUCKET, CHECKPOINT_KEY

SINK = "sink"


class Checkpoint:
    package: str
    is_direct = False
    """By the library's own way, if it has one."""

    def __init__(self, target: Target) -> None:
        self.target = target

    def load(self) -> Any:
        raise NotImplementedError


class Files(Checkpoint):
    """torch.save and torch.load, with the library's files."""

    def store(self) -> Any:
        raise NotImplementedError

    def save(self, state: Any) -> None:
        import torch

        with self.store().writer(f"s3://{SINK}/{CHECKPOINT_KEY}") as writer:
            torch.save(state, writer)

    def load(self) -> Any:
        import torch

        with self.store().reader(f"s3://{BUCKET}/{CHECKPOINT_KEY}") as reader:
            return torch.load(reader, weights_only=True)


class Ours(Files):
    package = "s3dataset"

    def store(self) -> Any:
        import s3dataset

        return s3dataset.S3Checkpoint(region=self.target.region, endpoint=self.target.endpoint)

    def save(self, state: Any) -> None:
        if self.is_direct:
            self.store().save(state, f"s3://{SINK}/{CHECKPOINT_KEY}")
        else:
            super().save(state)

    def load(self) -> Any:
        if self.is_direct:
            return self.store().load(f"s3://{BUCKET}/{CHECKPOINT_KEY}")
        return super().load()


class S3torchconnector(Files):
    package = "s3torchconnector"

    def store(self) -> Any:
        from s3torchconnector import S3Checkpoint, S3ClientConfig

        config = S3ClientConfig(force_path_style=True, throughput_target_gbps=100.0)
        return S3Checkpoint(self.target.region, endpoint=self.target.endpoint, s3client_config=config)


class ThroughMemory(Checkpoint):
    """A client without file-likes of its own: the whole file is held in memory."""

    kind: type[Client]

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.client: Any = self.kind(target)

    def save(self, state: Any) -> None:
        import torch

        file = io.BytesIO()
        torch.save(state, file)
        self.client.put_large(SINK, CHECKPOINT_KEY, file.getbuffer())

    def load(self) -> Any:
        import torch

        return torch.load(self.fetch(), weights_only=True)

    def fetch(self) -> io.BytesIO:
        raise NotImplementedError


class ObstoreCheckpoint(ThroughMemory):
    package, kind = "obstore", Obstore

    def fetch(self) -> io.BytesIO:
        file = io.BytesIO(bytes(self.client.store(BUCKET).head(CHECKPOINT_KEY)["size"]))
        with file.getbuffer() as view:
            self.client.get_into(CHECKPOINT_KEY, view)
        return file


class Boto3Checkpoint(ThroughMemory):
    package, kind = "boto3", Boto3

    def fetch(self) -> io.BytesIO:
        file = io.BytesIO()
        self.client.client.download_fileobj(BUCKET, CHECKPOINT_KEY, file, Config=self.client.transfer)
        file.seek(0)
        return file


CHECKPOINTS: dict[str, type[Checkpoint]] = {
    "s3dataset": Ours,
    "s3torchconnector": S3torchconnector,
    "obstore": ObstoreCheckpoint,
    "boto3": Boto3Checkpoint,
}
