"""torch.save and torch.load through a writer and a reader, against a server."""

import io
import zipfile

import pytest
import torch

from s3dataset import (
    AccessDeniedError,
    ObjectChangedError,
    S3Checkpoint,
    S3Client,
    S3ClientConfig,
    S3ReaderConstructor,
)
from s3dataset.testing import Fault, LocalS3

URI = "s3://models/model.pt"
MIB = 1 << 20


@pytest.fixture(scope="module")
def server():
    with LocalS3("models") as s3:
        yield s3


@pytest.fixture
def s3(server):
    server.clear_faults()
    server.set_traffic(latency_s=0)
    server.reset_stats()
    return server


@pytest.fixture
def checkpoint(s3):
    return S3Checkpoint("us-east-1")


def save(checkpoint, state, **options):
    with checkpoint.writer(URI) as writer:
        torch.save(state, writer, **options)


def load(checkpoint, **options):
    with checkpoint.reader(URI) as reader:
        return torch.load(reader, **options)


def same(a, b):
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        raw = (a.detach().contiguous().flatten().view(torch.uint8), b.detach().contiguous().flatten().view(torch.uint8))
        return torch.equal(*raw)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def model_state():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(300, 400), torch.nn.LayerNorm(400), torch.nn.Linear(400, 5))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(3, 300)).sum().backward()
    optimizer.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, "name": "ü"}


STATES = {
    "a model and its optimizer": model_state,
    "nothing": dict,
    "no tensors": lambda: {"a": [1, 2.5, "three", None, True]},
    "an empty tensor": lambda: {"empty": torch.empty(0), "shaped": torch.empty(3, 0, 2)},
    "scalars": lambda: [torch.tensor(3.5), torch.tensor(True), torch.tensor(7)],
    "bfloat16": lambda: torch.randn(1000).to(torch.bfloat16),
    "float8": lambda: torch.randn(1000).to(torch.float8_e4m3fn),
    "complex": lambda: torch.randn(10, dtype=torch.complex64),
    "many small ones": lambda: [torch.full((i % 7,), i) for i in range(1500)],
    "a large one": lambda: torch.arange(5 * MIB, dtype=torch.int32),
    "large and small ones": lambda: [torch.randn(n) for n in (3, MIB, 5, 2 * MIB, 7, 11)],
    "an 8 MiB pickle": lambda: {"text": "x" * (8 * MIB), "tensor": torch.arange(5)},
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("weights_only", [True, False])
@pytest.mark.parametrize("name", STATES)
def test_what_is_saved_is_loaded(checkpoint, name, weights_only, zipped):
    if name == "float8" and not zipped:
        pytest.skip("torch's own legacy format cannot hold it")
    state = STATES[name]()
    save(checkpoint, state, _use_new_zipfile_serialization=zipped)
    assert same(load(checkpoint, weights_only=weights_only), state)


def test_the_file_is_torchs_own(checkpoint, s3):
    state = model_state()
    save(checkpoint, state)
    assert same(torch.load(io.BytesIO(s3.get("models", "model.pt"))), state)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    s3.put("models", "model.pt", buffer.getvalue())
    assert same(load(checkpoint), state)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_tied_tensors_and_views_stay_tied(checkpoint, zipped):
    base = torch.arange(MIB, dtype=torch.float32)
    state = {"base": base, "tied": base, "view": base[10:20], "strided": base.view(1024, 1024).t()[::2]}
    save(checkpoint, state, _use_new_zipfile_serialization=zipped)
    loaded = load(checkpoint)
    assert same(loaded, state)
    loaded["base"][12] = -1
    assert loaded["tied"][12] == loaded["view"][2] == -1
    assert loaded["strided"].untyped_storage().data_ptr() == loaded["base"].untyped_storage().data_ptr()


def test_map_location(checkpoint):
    save(checkpoint, {"a": torch.arange(5), "b": torch.randn(MIB)})
    assert load(checkpoint, map_location="meta")["b"].is_meta
    seen = []
    load(checkpoint, map_location=lambda storage, location: seen.append(location) or storage)
    assert seen == ["cpu", "cpu"]


def test_whole_modules_and_scripts(checkpoint):
    module = torch.nn.Linear(20, 30)
    save(checkpoint, module)
    assert same(load(checkpoint, weights_only=False).state_dict(), module.state_dict())


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
def test_torchscript(checkpoint):
    module = torch.jit.trace(torch.nn.Linear(20, 30), torch.randn(1, 20))
    with checkpoint.writer(URI) as writer:
        torch.jit.save(module, writer)
    with checkpoint.reader(URI) as reader:
        loaded = torch.jit.load(reader)
    assert same(loaded.state_dict(), module.state_dict())


@pytest.mark.parametrize(
    "constructor",
    [S3ReaderConstructor.range_based(), S3ReaderConstructor.range_based(0), S3ReaderConstructor.dcp_optimized()],
    ids=["range_based", "unbuffered", "dcp_optimized"],
)
def test_every_kind_of_reader_loads(s3, checkpoint, constructor):
    state = model_state()
    save(checkpoint, state)
    with S3Client("us-east-1").get_object("models", "model.pt", reader_constructor=constructor) as reader:
        assert same(torch.load(reader), state)


def test_a_part_of_a_file(s3):
    # torch.load begins where the file stands.
    buffer = io.BytesIO(b"header")
    buffer.seek(6)
    torch.save(torch.arange(10), buffer, _use_new_zipfile_serialization=False)
    s3.put("models", "model.pt", buffer.getvalue())
    with S3Client("us-east-1").get_object("models", "model.pt") as reader:
        reader.seek(6)
        assert same(torch.load(reader), torch.arange(10))


def in_numeric_order(archive):
    names = [name for name in zipfile.ZipFile(io.BytesIO(archive)).namelist() if "/data/" in name]
    return names == sorted(names, key=lambda name: int(name.rpartition("/")[2]))


def test_loading_fetches_each_byte_once_and_far_ahead(s3, checkpoint):
    state = [torch.randn(MIB // 4 * 3 + i) for i in range(40)]
    save(checkpoint, state)
    nbytes = len(s3.get("models", "model.pt"))
    s3.reset_stats()
    s3.set_traffic(latency_s=0.2)
    assert same(load(checkpoint), state)
    stats = s3.stats()
    assert stats["operations"] == {"GetObject": stats["requests"]}
    in_order = in_numeric_order(s3.get("models", "model.pt"))  # which an old torch does not write
    assert stats["bytes_out"] == nbytes if in_order else nbytes <= stats["bytes_out"] <= 1.1 * nbytes
    assert stats["requests"] <= stats["bytes_out"] // (2 * MIB)
    assert stats["max_in_flight"] >= 10


def in_string_order(data):
    """The same archive with storage 10 behind storage 1, as torch.save wrote it until 2.5."""
    archive, out = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    infos = archive.infolist()
    storages = sorted((info for info in infos if "/data/" in info.filename), key=lambda info: info.filename)
    rest = [info for info in infos if info not in storages]
    with zipfile.ZipFile(out, "w") as written:
        for old in [*rest[:-2], *storages, *rest[-2:]]:
            info = zipfile.ZipInfo(old.filename)
            padding = -(out.tell() + 30 + len(old.filename) + 4) % 64
            info.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
            written.writestr(info, archive.read(old))
    return out.getvalue()


@pytest.mark.parametrize(
    ("count", "mebibytes", "limit"), [(40, 3, None), (130, 2, None), (30, 3, 32 * MIB), (14, 12, 64 * MIB)]
)
def test_storages_in_string_order_are_fetched_once_too(s3, count, mebibytes, limit):
    state = [torch.randn(mebibytes * MIB // 4 + i) for i in range(count)]
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = in_string_order(buffer.getvalue())
    assert not in_numeric_order(data)
    s3.put("models", "model.pt", data)
    s3.reset_stats()
    settings = S3ClientConfig(memory_limit_bytes=limit)
    with S3Checkpoint("us-east-1", s3client_config=settings).reader("s3://models/model.pt") as reader:
        assert same(torch.load(reader), state)
    stats = s3.stats()
    assert stats["bytes_out"] <= 1.1 * len(data)
    assert stats["requests"] <= len(data) // MIB


def test_reading_one_tensors_place_does_not_fetch_the_others(s3, checkpoint):
    from torch._subclasses.fake_tensor import FakeTensorMode

    save(checkpoint, [torch.randn(MIB) for _ in range(10)])
    s3.reset_stats()
    with FakeTensorMode():
        loaded = load(checkpoint)
    assert [tensor.shape for tensor in loaded] == [(MIB,)] * 10
    assert s3.stats()["bytes_out"] < 2 * MIB


def test_a_small_save_is_a_single_put_and_a_large_one_goes_in_parts(s3, checkpoint):
    save(checkpoint, torch.arange(10))
    assert s3.stats()["operations"] == {"PutObject": 1}
    s3.reset_stats()
    save(checkpoint, torch.zeros(5 * MIB))
    assert s3.stats()["operations"] == {"CreateMultipartUpload": 1, "UploadPart": 3, "CompleteMultipartUpload": 1}


@pytest.mark.parametrize("mebibytes", [3, 80])
def test_a_save_survives_faults(s3, checkpoint, mebibytes):
    s3.add_fault(
        Fault.status(503, operation="UploadPart", times=2),
        Fault.status(500, operation="PutObject"),
        Fault.status(500, operation="CreateMultipartUpload"),
        Fault.status(500, operation="CompleteMultipartUpload"),
    )
    # torch.save hands over memory that it frees when write() returns: 80 MiB in one piece are sent from where they are.
    state = {"weights": torch.randn(mebibytes * MIB // 4), "step": 1}
    save(checkpoint, state)
    s3.clear_faults()
    assert same(load(checkpoint), state)


@pytest.mark.parametrize("mebibytes", [1, 20, 80])
def test_a_failed_save_publishes_nothing(s3, checkpoint, mebibytes, caplog):
    s3.put("models", "model.pt", b"before")
    s3.add_fault(
        Fault.status(403, operation="PutObject", times=None),
        Fault.status(403, operation="UploadPart", after=1, times=None),
    )
    with pytest.raises(PermissionError):
        save(checkpoint, torch.randn(mebibytes * MIB // 4))
    assert s3.get("models", "model.pt") == b"before"
    assert not s3.uploads("models")
    assert "s3://models/model.pt was NOT saved" in caplog.text


def test_an_object_that_torch_cannot_pickle_publishes_nothing(s3, checkpoint):
    s3.put("models", "model.pt", b"before")
    with pytest.raises(Exception, match="pickle"), checkpoint.writer(URI) as writer:
        torch.save({"good": torch.zeros(5 * MIB), "bad": lambda: None}, writer)
    assert s3.get("models", "model.pt") == b"before"
    assert not s3.uploads("models")


def test_a_checkpoint_replaced_while_it_is_loaded_is_never_mixed(s3, checkpoint):
    state = [torch.full((MIB,), i, dtype=torch.int32) for i in range(50)]
    save(checkpoint, state)
    with checkpoint.reader(URI) as reader:
        reader.read(4)
        reader.seek(0)
        s3.put("models", "model.pt", bytes(reader.size))
        with pytest.raises(ObjectChangedError, match=r"s3://models/model\.pt"):
            torch.load(reader)


@pytest.mark.parametrize("after", range(1, 5))
def test_errors_of_the_reader_are_those_that_load_raises(s3, checkpoint, after):
    save(checkpoint, [torch.full((MIB,), i, dtype=torch.int32) for i in range(50)])
    s3.add_fault(Fault.status(403, operation="GetObject", after=after, times=None))
    with pytest.raises(AccessDeniedError, match=r"s3://models/model\.pt"):
        load(checkpoint)
