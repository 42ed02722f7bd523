"""S3LightningCheckpoint as Lightning's interface for checkpoints: what a trainer, and a user, may call."""

import io
import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from s3dataset import InvalidUriError, ObjectNotFoundError, S3ClientConfig
from s3dataset.testing import Fault, LocalS3

pytestmark = [
    pytest.mark.skipif(find_spec("lightning") is None, reason="Lightning is not installed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

URI = "s3://bucket/run/epoch=1-step=10.ckpt"
STATE = {"state_dict": {"weight": torch.arange(12.0).reshape(3, 4), "bias": torch.ones(3)}, "global_step": 10}


@pytest.fixture(scope="module")
def server():
    with LocalS3("bucket") as server:
        yield server


@pytest.fixture
def s3(server):
    server.clear_faults()
    server.reset_stats()
    for key in server.keys("bucket"):
        server.delete("bucket", key)
    return server


@pytest.fixture(scope="module")
def module():
    import s3dataset.lightning

    return s3dataset.lightning


@pytest.fixture
def checkpoint_io(s3, module):
    return module.S3LightningCheckpoint("us-east-1", endpoint=s3.endpoint)


@pytest.mark.parametrize("name", ["lightning.fabric", "lightning.pytorch", "lightning_fabric", "pytorch_lightning"])
def test_every_package_of_lightning_takes_it(checkpoint_io, name):
    plugins = __import__(f"{name}.plugins", fromlist=["CheckpointIO"])
    assert isinstance(checkpoint_io, plugins.CheckpointIO)

    class Derived(type(checkpoint_io)):
        pass

    assert issubclass(Derived, plugins.CheckpointIO)


def test_it_saves_torchs_file_and_loads_it(s3, checkpoint_io):
    checkpoint_io.save_checkpoint(STATE, URI, storage_options={"of": "no meaning"})
    file = io.BytesIO()
    torch.save(STATE, file)
    if torch.__version__ >= "2.6":
        assert s3.get("bucket", "run/epoch=1-step=10.ckpt") == file.getvalue()
    loaded = checkpoint_io.load_checkpoint(URI)
    assert loaded["global_step"] == 10
    assert torch.equal(loaded["state_dict"]["weight"], STATE["state_dict"]["weight"])
    checkpoint_io.teardown()


def test_a_pickled_one_goes_on(s3, checkpoint_io):
    other = pickle.loads(pickle.dumps(checkpoint_io))
    other.save_checkpoint(STATE, URI)
    assert other.region == "us-east-1"
    assert checkpoint_io.load_checkpoint(URI)["global_step"] == 10


class Custom:
    pass


@pytest.mark.parametrize(
    ("version", "given", "seen"),
    [((2, 5), None, False), ((2, 6), None, None), ((2, 5), True, True), ((2, 6), False, False), ((3, 0), None, None)],
)
def test_what_weights_only_means(checkpoint_io, module, monkeypatch, version, given, seen):
    monkeypatch.setattr(module, "_version", lambda: version)
    checkpoint_io.save_checkpoint({"custom": Custom()}, URI)
    asked = []
    load = torch.load

    def noted(*arguments, **options):
        asked.append(options["weights_only"])
        return load(*arguments, **options | {"weights_only": False})

    monkeypatch.setattr(torch, "load", noted)
    assert isinstance(checkpoint_io.load_checkpoint(URI, weights_only=given)["custom"], Custom)
    assert asked == [seen]


def test_code_is_refused_when_only_weights_are_wanted(checkpoint_io):
    checkpoint_io.save_checkpoint({"custom": Custom()}, URI)
    with pytest.raises(pickle.UnpicklingError):
        checkpoint_io.load_checkpoint(URI, weights_only=True)


def test_left_out_map_location_is_this_machines_memory(checkpoint_io, monkeypatch):
    checkpoint_io.save_checkpoint({"tensor": torch.ones(3)}, URI)
    assert checkpoint_io.load_checkpoint(URI, map_location="meta")["tensor"].is_meta
    assert checkpoint_io.load_checkpoint(URI)["tensor"].device.type == "cpu"


@pytest.mark.parametrize("method", ["save_checkpoint", "load_checkpoint", "remove_checkpoint"])
def test_paths_of_other_kinds_are_refused(checkpoint_io, method):
    arguments = [STATE] if method == "save_checkpoint" else []
    with pytest.raises(TypeError) as error:
        getattr(checkpoint_io, method)(*arguments, Path("run/last.ckpt"))
    assert str(error.value) == (
        "'PosixPath' is not a supported type for 'path'. Must be a string formatted as an S3 uri."
    )
    with pytest.raises(InvalidUriError, match="Only s3:// URIs are supported"):
        getattr(checkpoint_io, method)(*arguments, "/run/last.ckpt")
    with pytest.raises(InvalidUriError, match="key must be non-empty"):
        getattr(checkpoint_io, method)(*arguments, "s3://bucket/")


def test_a_missing_checkpoint_is_said_to_be(checkpoint_io):
    with pytest.raises(ObjectNotFoundError, match=r"missing\.ckpt"):
        checkpoint_io.load_checkpoint("s3://bucket/missing.ckpt")
    with pytest.raises(FileNotFoundError):
        checkpoint_io.load_checkpoint("s3://bucket/missing.ckpt")


def test_a_failed_save_leaves_the_old_checkpoint(s3, module):
    config = S3ClientConfig(max_attempts=1)
    checkpoint_io = module.S3LightningCheckpoint("us-east-1", config, s3.endpoint)
    checkpoint_io.save_checkpoint(STATE, URI)
    s3.add_fault(Fault.status(403, operation="PutObject", times=None))
    with pytest.raises(PermissionError):
        checkpoint_io.save_checkpoint({"global_step": 20}, URI)
    assert checkpoint_io.load_checkpoint(URI)["global_step"] == 10


def test_removing(s3, checkpoint_io):
    for key in ("run/a.ckpt", "run/a.ckpt/rank0", "run/a.ckpt/rank1", "run/a.ckpt2", "run/b.ckpt"):
        s3.put("bucket", key, b"x")
    checkpoint_io.remove_checkpoint("s3://bucket/run/a.ckpt")
    assert s3.keys("bucket") == ["run/a.ckpt2", "run/b.ckpt"]
    checkpoint_io.remove_checkpoint("s3://bucket/run/a.ckpt")  # there is none any more, as with the peer
    s3.put("bucket", "run/c.ckpt/rank0", b"x")
    checkpoint_io.remove_checkpoint("s3://bucket/run/c.ckpt/")
    assert s3.keys("bucket") == ["run/a.ckpt2", "run/b.ckpt"]


def test_what_could_not_be_removed_is_an_error(s3, checkpoint_io):
    for key in ("run/a.ckpt/rank0", "run/a.ckpt/rank1"):
        s3.put("bucket", key, b"x")
    s3.add_fault(Fault.failed_deletes(keys="*rank1", code="AccessDenied", times=None))
    with pytest.raises(PermissionError, match="rank1"):
        checkpoint_io.remove_checkpoint("s3://bucket/run/a.ckpt")


def test_the_latest(s3, checkpoint_io):
    assert checkpoint_io.latest("s3://bucket/run") is None
    for key in ("run2/step=99.ckpt", "run/step=9.ckpt", "run/step=10.ckpt", "run/zebra.txt"):
        s3.put("bucket", key, b"x")
    # Whether they were written in the same second or in two.
    assert checkpoint_io.latest("s3://bucket/run") == "s3://bucket/run/step=10.ckpt"
    assert checkpoint_io.latest("s3://bucket/run/") == "s3://bucket/run/step=10.ckpt"
    assert checkpoint_io.latest("s3://bucket/run", suffix=".txt") == "s3://bucket/run/zebra.txt"
    for key in ("run/step=9.ckpt", "run/step=10.ckpt", "run/zebra.txt"):
        s3.delete("bucket", key)
    assert checkpoint_io.latest("s3://bucket") == "s3://bucket/run2/step=99.ckpt"


def test_without_lightning_the_import_says_what_to_install():
    program = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if "lightning" in name.split(".")[0] else find(name, *rest)
try:
    import s3dataset.lightning
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "pip install 's3dataset[lightning]'" in done.stdout, done.stderr


def test_where_there_is_no_s3fs_lightnings_callbacks_find_s3(module):
    import fsspec

    from s3dataset.fsspec import S3FileSystem

    if find_spec("s3fs") is None:
        assert isinstance(fsspec.core.url_to_fs("s3://bucket/run")[0], S3FileSystem)
