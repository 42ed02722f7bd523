"""The conformance suite over Ceph's gateway, where it is installed (`apt install radosgw ceph-mon ceph-osd`)."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any, ClassVar

import pytest

from s3dataset import S3Client, S3ClientConfig
from s3dataset.testing.conformance import ClientConformance

from . import ceph

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not ceph.is_installed(), reason="Ceph's gateway is not installed"),
]

KEYS = (ceph.ACCESS_KEY, ceph.SECRET_KEY)


class TestCeph(ClientConformance):
    # As of Ceph 16. Later ones know conditions.
    lacks = frozenset({"conditional_writes", "conditional_completion", "etags_of_uploads", "storage_classes"})
    endpoint: ClassVar[str]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        with ceph.running(tmp_path_factory.mktemp("ceph")) as cls.endpoint:
            yield

    @pytest.fixture(scope="class")
    @classmethod
    def client(cls, server: None) -> Iterator[S3Client]:
        with closing(cls.client_with()) as client:
            yield client

    @pytest.fixture(scope="class")
    @classmethod
    def bucket(cls, server: None) -> str:
        import boto3

        keys = dict(zip(("aws_access_key_id", "aws_secret_access_key"), KEYS, strict=True))
        s3 = boto3.client("s3", endpoint_url=cls.endpoint, region_name="us-east-1", **keys)
        s3.create_bucket(Bucket="bucket")
        s3.close()
        return "bucket"

    @classmethod
    def client_with(cls, **config: Any) -> S3Client:
        settings = S3ClientConfig(**({"credentials": KEYS} | config))
        return S3Client("us-east-1", endpoint=cls.endpoint, s3client_config=settings)

    def test_checkpoints(self, bucket: str) -> None:
        import torch

        from s3dataset import S3Checkpoint

        state = {"weight": torch.arange(3_000_000, dtype=torch.float32), "step": 7}
        checkpoint = S3Checkpoint("us-east-1", endpoint=self.endpoint, s3client_config=S3ClientConfig(credentials=KEYS))
        uri = f"s3://{bucket}/checkpoints/one.pt"
        checkpoint.save(state, uri)
        checkpoint.save_async(state, f"{uri}.async").result()
        for place in (uri, f"{uri}.async"):
            loaded = checkpoint.load(place)
            assert torch.equal(loaded["weight"], state["weight"])
        assert checkpoint.load(uri, keys=["step"]) == {"step": 7}
        with checkpoint.reader(uri) as reader:
            assert torch.equal(torch.load(reader)["weight"], state["weight"])

    @pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
    def test_distributed_checkpoints(self, bucket: str) -> None:
        import torch
        import torch.distributed.checkpoint as dcp

        from s3dataset.dcp import S3StorageReader, S3StorageWriter

        config = S3ClientConfig(credentials=KEYS)
        uri = f"s3://{bucket}/dcp/step-1/"
        state = {"model": {"weight": torch.randn(1000, 1000), "bias": torch.randn(1000)}}
        where: Any = {"region": "us-east-1", "path": uri, "endpoint": self.endpoint, "s3client_config": config}
        for _ in range(2):  # the second over the first
            dcp.save(state, storage_writer=S3StorageWriter(**where), no_dist=True)
        target = {"model": {"weight": torch.zeros(1000, 1000), "bias": torch.zeros(1000)}}
        dcp.load(target, storage_reader=S3StorageReader(**where), no_dist=True)
        assert torch.equal(target["model"]["weight"], state["model"]["weight"])

    def test_safetensors(self, bucket: str) -> None:
        import torch

        from s3dataset.safetensors import load_file, save_file

        where: Any = {
            "region": "us-east-1",
            "endpoint": self.endpoint,
            "s3client_config": S3ClientConfig(credentials=KEYS),
        }
        tensors = {"a": torch.randn(500, 500), "b": torch.arange(10)}
        save_file(tensors, f"s3://{bucket}/weights/model.safetensors", **where)
        loaded = load_file(f"s3://{bucket}/weights/model.safetensors", **where)
        assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())

    def test_the_manager(self, bucket: str) -> None:
        import torch

        from s3dataset import CheckpointManager

        config = S3ClientConfig(credentials=KEYS)
        with CheckpointManager(
            f"s3://{bucket}/run", keep_last=2, region="us-east-1", endpoint=self.endpoint, s3client_config=config
        ) as manager:
            for step in (1, 2, 3):
                manager.save(step, {"weight": torch.full((10,), float(step))})
            assert [info.step for info in manager.list()] == [3, 2]
            restored = manager.restore()
        assert restored.step == 3
        assert restored.state["weight"][0] == 3

    def test_shards(self, bucket: str) -> None:
        import io

        import s3dataset
        from s3dataset.formats import Tar

        where: Any = {
            "region": "us-east-1",
            "endpoint": self.endpoint,
            "s3client_config": S3ClientConfig(credentials=KEYS),
        }
        puts = []
        for shard in range(3):
            file = io.BytesIO()
            with Tar().writer(file) as writer:
                for number in range(shard * 50, shard * 50 + 50):
                    writer.write({"__key__": f"{number:03}", "bin": bytes(5000)})
                writer.finish()
            puts.append((bucket, f"shards/{shard}.tar", file.getvalue()))
        self.client_with().put_many(puts)
        everything = [f"{number:03}" for number in range(150)]
        uri = f"s3://{bucket}/shards/"
        streamed = s3dataset.S3IterableDataset.from_prefix(uri, format="tar", **where)
        assert [sample["__key__"] for sample in streamed] == everything
        manifest = s3dataset.Manifest.from_prefix(uri, **where).index("tar")
        shuffled = s3dataset.S3IterableDataset.from_manifest(manifest, shuffle=True, **where)
        assert sorted(sample["__key__"] for sample in shuffled) == everything
        assert s3dataset.S3MapDataset.from_manifest(manifest, **where)[77]["__key__"] == "077"
