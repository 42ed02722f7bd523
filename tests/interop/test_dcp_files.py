"""Distributed checkpoints as other readers and writers of them have it."""

import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save, torch_save_to_dcp

from s3dataset import S3ClientConfig
from s3dataset.dcp import HexPrefixStrategy, S3StorageReader, S3StorageWriter
from s3dataset.testing import LocalS3

BUCKET = "models"
URI = f"s3://{BUCKET}/run"
OPTIONS: list[dict[str, Any]] = [{}, {"thread_count": 3}, {"single_file_per_rank": False}]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture
def s3() -> Iterator[Any]:
    with LocalS3(BUCKET) as server:
        yield boto3.client(
            "s3",
            endpoint_url=server.endpoint,
            region_name=server.region,
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
        )


def state(seed: int = 0) -> dict[str, Any]:
    random = torch.Generator().manual_seed(seed)
    return {
        "model": {"large": torch.randn(1000, 2000, generator=random), "small": torch.randn(7, generator=random)},
        "half": torch.randn(600, 300, generator=random).bfloat16(),
        "transposed": torch.randn(300, 400, generator=random).t(),
        "of another": torch.randn(100, 100, generator=random)[5:50],
        "empty": torch.empty(0),
        "a number": torch.tensor(7),
        "step": seed,
    }


def emptied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: emptied(item) for key, item in value.items()}
    return torch.zeros_like(value) if isinstance(value, torch.Tensor) else -1


def assert_same(loaded: Any, saved: Any) -> None:
    if isinstance(saved, dict):
        assert loaded.keys() == saved.keys()
        for key in saved:
            assert_same(loaded[key], saved[key])
    elif isinstance(saved, torch.Tensor):
        assert loaded.dtype == saved.dtype
        assert torch.equal(loaded, saved)
    else:
        assert loaded == saved


def download(s3: Any, folder: Path) -> None:
    for entry in s3.list_objects_v2(Bucket=BUCKET, Prefix="run/")["Contents"]:
        target = folder / entry["Key"].removeprefix("run/")
        target.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file(BUCKET, entry["Key"], str(target))


def upload(s3: Any, folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            s3.upload_file(str(path), BUCKET, f"run/{path.relative_to(folder).as_posix()}")


@pytest.mark.parametrize("options", [*OPTIONS, {"prefix_strategy": HexPrefixStrategy(epoch_num=1)}], ids=" ".join)
def test_torch_reads_ours_from_a_disk(s3: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    for seed in range(2):  # the second one over the first
        dcp.save(state(seed), storage_writer=S3StorageWriter("us-east-1", URI, **options))
    download(s3, tmp_path)
    into = emptied(state(1))
    dcp.load(into, storage_reader=dcp.FileSystemReader(tmp_path))
    assert_same(into, state(1))
    dcp_to_torch_save(tmp_path, tmp_path / "model.pt")
    assert_same(torch.load(tmp_path / "model.pt", weights_only=False), state(1))


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_we_read_torchs_from_a_disk(s3: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    dcp.save(state(), storage_writer=dcp.FileSystemWriter(tmp_path, **options))
    upload(s3, tmp_path)
    into = emptied(state())
    dcp.load(into, storage_reader=S3StorageReader("us-east-1", URI))
    assert_same(into, state())


def test_we_read_what_torch_made_of_one_file(s3: Any, tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "model.pt")
    torch_save_to_dcp(tmp_path / "model.pt", tmp_path / "dcp")
    upload(s3, tmp_path / "dcp")
    into = emptied(state())
    dcp.load(into, storage_reader=S3StorageReader("us-east-1", URI))
    assert_same(into, state())


def test_the_metadata_need_nothing_of_ours(s3: Any) -> None:
    dcp.save(state(), storage_writer=S3StorageWriter("us-east-1", URI))
    data = s3.get_object(Bucket=BUCKET, Key="run/.metadata")["Body"].read()
    assert b"s3dataset" not in data
    assert pickle.loads(data).storage_meta.checkpoint_id == URI


# -- s3torchconnector --------------------------------------------------------------------------------------------------


@pytest.fixture
def peer(s3: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("s3torchconnector.dcp")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.meta.endpoint_url)
    return module


def their_config() -> Any:
    from s3torchconnector import S3ClientConfig as TheirConfig

    return TheirConfig(force_path_style=True)


@pytest.mark.parametrize("thread_count", [1, 3])
def test_s3torchconnector_reads_ours(s3: Any, peer: Any, thread_count: int) -> None:
    for seed in range(2):
        dcp.save(state(seed), storage_writer=S3StorageWriter("us-east-1", URI, thread_count=thread_count))
    into = emptied(state(1))
    dcp.load(into, storage_reader=peer.S3StorageReader("us-east-1", URI, their_config()))
    assert_same(into, state(1))


@pytest.mark.parametrize("thread_count", [1, 3])
def test_we_read_s3torchconnectors(s3: Any, peer: Any, thread_count: int) -> None:
    writer = peer.S3StorageWriter("us-east-1", URI, their_config(), thread_count=thread_count)
    dcp.save(state(), storage_writer=writer)
    into = emptied(state())
    dcp.load(into, storage_reader=S3StorageReader("us-east-1", URI, S3ClientConfig()))
    assert_same(into, state())


def test_both_overwrite_each_other(s3: Any, peer: Any) -> None:
    for seed in range(4):
        if seed % 2:
            writer: Any = S3StorageWriter("us-east-1", URI)
        else:
            writer = peer.S3StorageWriter("us-east-1", URI, their_config())
        dcp.save(state(seed), storage_writer=writer)
        into = emptied(state(seed))
        dcp.load(into, storage_reader=S3StorageReader("us-east-1", URI))
        assert_same(into, state(seed))


@pytest.mark.parametrize("strategy", ["BinaryPrefixStrategy", "HexPrefixStrategy"])
@pytest.mark.parametrize("arguments", [{}, {"epoch_num": 3}, {"min_prefix_length": 2, "prefix_count": 37}], ids=str)
def test_prefixes_are_the_same(peer: Any, strategy: str, arguments: dict[str, int]) -> None:
    from s3dataset import dcp as ours

    mine, theirs = getattr(ours, strategy)(**arguments), getattr(peer, strategy)(**arguments)
    assert [mine(rank) for rank in range(100)] == [theirs(rank) for rank in range(100)]
