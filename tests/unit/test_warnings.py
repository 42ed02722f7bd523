"""Warnings name the line of the program that they are about."""

import ast
import gc
import inspect
import io
import warnings
from pathlib import Path

import pytest
import torch.utils.data

import s3dataset
from s3dataset import S3Checkpoint, S3ClientConfig, S3IterableDataset, S3MapDataset
from s3dataset._warnings import warn_caller
from s3dataset.errors import EmptyPrefixWarning, WeakConditionsWarning
from s3dataset.formats import Tar
from s3dataset.testing import LocalS3

PACKAGE = Path(s3dataset.__file__).parent


@pytest.fixture(scope="module")
def server():
    with LocalS3("bucket") as running:
        running.put("bucket", "images/a.jpg", b"a")
        running.put("bucket", "texts/a.txt", b"a")
        running.put("bucket", "texts/.hidden", b"of no use")
        yield running


def line_here():
    return inspect.currentframe().f_back.f_lineno


def only(caught):
    """Where the one warning points to."""
    assert len(caught) == 1, [str(warning.message) for warning in caught]
    return caught[0].filename, caught[0].lineno


def test_nothing_in_the_package_warns_by_itself():
    others = []
    for path in PACKAGE.rglob("*.py"):
        calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        if path.name != "_warnings.py" and any(
            ast.unparse(call.func) in ("warnings.warn", "warnings.warn_explicit") for call in calls
        ):
            others.append(path.relative_to(PACKAGE).as_posix())
    assert others == []


def test_a_line_that_warns_again_is_shown_once():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            warn_caller("the same")
        warn_caller("the same")  # on another line
    assert len(caught) == 2


@pytest.mark.usefixtures("server")
class TestTheLineIsTheCallers:
    def test_of_a_manifest(self):
        with pytest.warns(EmptyPrefixWarning) as caught:
            s3dataset.Manifest.from_prefix("s3://bucket/pictures/")
        assert only(caught) == (__file__, line_here() - 1)

    def test_of_a_dataset_at_its_first_use(self):
        dataset = S3MapDataset.from_prefix("s3://bucket/pictures/")
        with pytest.warns(EmptyPrefixWarning) as caught:
            len(dataset)
        assert only(caught) == (__file__, line_here() - 1)

    @pytest.mark.parametrize("loader_class", [torch.utils.data.DataLoader, s3dataset.DataLoader])
    def test_though_pytorch_is_in_between(self, loader_class):
        loader = loader_class(S3IterableDataset.from_prefix("s3://bucket/pictures/"))
        with pytest.warns(EmptyPrefixWarning) as caught:
            list(loader)
        assert only(caught) == (__file__, line_here() - 1)

    def test_of_an_index_that_is_not_used(self, server):
        put_shard(server, "a")
        s3dataset.Manifest.from_prefix("s3://bucket/shards/").index("tar").save(
            "s3://bucket/shards/.s3dataset/tar-index.manifest"
        )
        put_shard(server, "another")
        dataset = S3IterableDataset.from_prefix("s3://bucket/shards/", format="tar")
        with pytest.warns(UserWarning, match="is not used") as caught:
            list(dataset)
        assert only(caught) == (__file__, line_here() - 1)

    def test_of_parts_that_are_too_small(self):
        writer = S3Checkpoint(s3client_config=S3ClientConfig(part_size=1 << 20)).writer("s3://bucket/large")
        with pytest.warns(UserWarning, match="part_size") as caught, writer:
            writer.write(bytes(11 << 20))
        assert only(caught) == (__file__, line_here() - 1)

    def test_of_a_writer_that_is_dropped(self):
        writer = S3Checkpoint().writer("s3://bucket/dropped")
        writer.write(b"lost")
        with pytest.warns(ResourceWarning, match="NOT saved") as caught:
            del writer
            gc.collect()
        assert caught[0].filename == __file__

    def test_of_objects_that_make_no_sample(self):
        with pytest.warns(UserWarning, match="left out") as caught:
            s3dataset.pack("s3://bucket/texts/", "s3://bucket/packed/", workers=0)
        assert only(caught) == (__file__, line_here() - 1)

    def test_of_a_store_that_ignores_conditions(self, server):
        with LocalS3(
            "weak", activate=False, variant="gcs", access_key=server.access_key, secret_key=server.secret_key
        ) as weak:
            manager = s3dataset.CheckpointManager("s3://weak/run/", endpoint=weak.endpoint)
            with pytest.warns(WeakConditionsWarning) as caught:
                manager.save(1, {"a": 1})
            assert only(caught) == (__file__, line_here() - 1)
            manager.close()


def put_shard(server, text):
    file = io.BytesIO()
    with Tar().writer(file) as writer:
        writer.write({"__key__": "0", "txt": text})
        writer.finish()
    server.put("bucket", "shards/0.tar", file.getvalue())
