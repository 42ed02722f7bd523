"""The file system over moto's server: fsspec's suite and a life of one's own, on an S3 by other people."""

import posixpath
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.tests import abstract

from s3dataset.fsspec import S3FileSystem

moto_server = pytest.importorskip("moto.server")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    import boto3

    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "any", "aws_secret_access_key": "any"}
    s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)
    s3.create_bucket(Bucket="bucket")
    s3.close()
    yield endpoint
    server.stop()


class _Later:
    """For tests that the installed fsspec does not have yet."""


class Fixtures(abstract.AbstractFixtures):
    @pytest.fixture
    def fs(self, endpoint: str) -> S3FileSystem:
        return S3FileSystem(endpoint_url=endpoint, key="any", secret="any", region="us-east-1")

    @pytest.fixture
    def fs_path(self) -> str:
        return f"bucket/{uuid.uuid4().hex[:12]}"

    @pytest.fixture
    def fs_join(self) -> Any:
        return posixpath.join

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False


class TestOpen(getattr(abstract, "AbstractOpenTests", _Later), Fixtures):
    pass


class TestPipe(getattr(abstract, "AbstractPipeTests", _Later), Fixtures):
    pass


class TestLife(Fixtures):
    def test_a_tree_comes_and_goes(self, fs: S3FileSystem, fs_path: str, tmp_path: Path) -> None:
        data = {f"{fs_path}/{i % 3}/{i}": str(i).encode() for i in range(30)}
        fs.pipe(data)
        assert fs.cat(fs_path, recursive=True) == data
        assert fs.ls(fs_path) == [f"{fs_path}/{i}" for i in range(3)]
        assert fs.find(fs_path, maxdepth=2) == sorted(data)
        assert fs.glob(f"{fs_path}/*/1*") == sorted(f"{fs_path}/{i % 3}/{i}" for i in (1, *range(10, 20)))
        assert fs.info(f"{fs_path}/0/3")["size"] == 1
        assert fs.isdir(f"{fs_path}/0")
        fs.get(fs_path, str(tmp_path / "local"), recursive=True)
        fs.put(str(tmp_path / "local"), f"{fs_path}-copy", recursive=True)
        fs.mv(f"{fs_path}-copy", f"{fs_path}-moved", recursive=True)
        assert len(fs.find(f"{fs_path}-moved")) == 30
        with fs.open(f"{fs_path}/0/3", "ab") as file:
            file.write(b"!")
        assert fs.cat_file(f"{fs_path}/0/3", -1) == b"!"
        assert fs.cat_ranges([f"{fs_path}/0/3"] * 2, [0, 1], [1, None]) == [b"3", b"!"]
        fs.rm([fs_path, f"{fs_path}-moved"], recursive=True)
        assert fs.find(fs_path) == []
        assert not fs.exists(fs_path)
