"""S3Checkpoint.save and load, against a server."""

import contextlib
import io
import pickle
import zipfile

import psutil
import pytest
import torch
from tests.process.checkpoints.states import MIB, URI, Sub, file_of, large, stored, views
from tests.process.test_torch_save_load import STATES, same

from s3dataset import (
    ChecksumMismatchError,
    DecodeError,
    InvalidUriError,
    ObjectChangedError,
    ObjectNotFoundError,
    PreconditionFailedError,
    S3Exception,
)
from s3dataset._checkpoint._skeleton import Skeleton
from s3dataset.safetensors import save_file
from s3dataset.testing import Fault

pytestmark = pytest.mark.skipif(not Skeleton.is_possible(), reason="torch < 2.6 saves through a writer")


MORE = {
    "views": views,
    "sparse": lambda: torch.randn(20, 20).relu().to_sparse(),
    "strides": lambda: torch.randn(30, 40).t(),
    "in parts": large,
    "a storage": lambda: torch.randn(100).untyped_storage(),
}


@pytest.mark.parametrize("make", [*STATES.values(), *MORE.values()], ids=[*STATES, *MORE])
def test_the_file_is_the_one_that_torch_writes(checkpoint, make):
    state = make()
    info = checkpoint.save(state, URI)
    found = stored()
    assert info.size == len(found)
    assert found == file_of(state)
    assert zipfile.ZipFile(io.BytesIO(found)).testzip() is None


@pytest.mark.parametrize("make", [*STATES.values(), large], ids=[*STATES, "in parts"])
def test_what_was_saved_is_loaded(checkpoint, make):
    state = make()
    checkpoint.save(state, URI)
    assert same(state, checkpoint.load(URI))


def test_a_missing_checkpoint_is_told_with_its_uri(checkpoint):
    with pytest.raises(ObjectNotFoundError, match=f"The key does not exist: {URI}x"):
        checkpoint.load(f"{URI}x")


@pytest.mark.parametrize("content", [b"", b"hello world" * 100, b"\x80\x02"], ids=["empty", "text", "cut"])
def test_what_is_no_file_of_torch_is_told_with_its_uri(checkpoint, content):
    with checkpoint.writer(URI) as writer:
        writer.write(content)
    with pytest.raises(DecodeError, match=f"{URI} is no file of torch.save"):
        checkpoint.load(URI)


@pytest.mark.parametrize("keys", [None, ["weight"]])
def test_a_file_of_safetensors_is_told_apart(checkpoint, keys):
    save_file({"weight": torch.zeros(4)}, URI)
    with pytest.raises(DecodeError, match=r"one of safetensors: s3dataset\.safetensors\.load_file") as caught:
        checkpoint.load(URI, keys=keys)
    assert not getattr(caught.value, "__notes__", [])  # least of all that it may be trusted


@pytest.mark.parametrize("keys", [None, ["model"]])
def test_an_error_of_torch_notes_the_uri_and_what_to_do(checkpoint, keys):
    checkpoint.save({"model": torch.nn.Linear(2, 2)}, URI)
    with pytest.raises(pickle.UnpicklingError) as caught:
        checkpoint.load(URI, keys=keys)
    told = "\n".join(caught.value.__notes__)
    assert URI in told
    assert "weights_only=False" in told


def test_aliases_stay_aliases(checkpoint):
    checkpoint.save(views(), URI)
    loaded = checkpoint.load(URI)
    assert len({tensor.untyped_storage().data_ptr() for tensor in loaded.values()}) == 1
    loaded["rows"].fill_(7)
    assert loaded["base"][15, 3] == 7
    assert loaded["flat"][15 * 20] == 7
    assert isinstance(loaded["parameter"], torch.nn.Parameter)


def test_loaded_storages_are_ordinary_ones(checkpoint):
    checkpoint.save(large(), URI)
    loaded = checkpoint.load(URI)
    storage = loaded["a"].untyped_storage()
    storage.resize_(100)
    assert storage.nbytes() == 100
    loaded["a"].share_memory_()
    assert loaded["small"].tolist() == [0, 1, 2, 3, 4]


def test_subclasses_and_modules_need_code(checkpoint):
    module = torch.nn.Linear(3, 4)
    tensor = torch.randn(5).as_subclass(Sub)
    checkpoint.save({"module": module, "tensor": tensor}, URI)
    with pytest.raises(pickle.UnpicklingError, match="weights_only"):
        checkpoint.load(URI)
    loaded = checkpoint.load(URI, weights_only=False)
    assert torch.equal(loaded["module"].weight, module.weight)
    assert type(loaded["tensor"]) is Sub
    assert torch.equal(loaded["tensor"].as_subclass(torch.Tensor), tensor.as_subclass(torch.Tensor))


@pytest.mark.parametrize(
    "place",
    ["cpu", torch.device("cpu"), {"cpu": "cpu"}, {"cuda:0": "cpu"}, lambda storage, _: storage, lambda *_: None],
    ids=["text", "device", "dict", "other dict", "callable", "callable without an opinion"],
)
def test_map_location(checkpoint, place):
    state = large()
    checkpoint.save(state, URI)
    assert same(state, checkpoint.load(URI, map_location=place))


def test_map_location_meta(checkpoint):
    checkpoint.save(large(), URI)
    loaded = checkpoint.load(URI, map_location="meta")
    assert loaded["a"].device.type == "meta"
    assert loaded["a"].shape == (3 * MIB,)


class TestFilesOfOthers:
    def test_torch_saved_it(self, checkpoint):
        state = large()
        with checkpoint.writer(URI) as writer:
            torch.save(state, writer)
        assert same(state, checkpoint.load(URI))

    def test_old_format(self, checkpoint):
        state = {"a": torch.randn(100)}
        with checkpoint.writer(URI) as writer:
            torch.save(state, writer, _use_new_zipfile_serialization=False)
        assert same(state, checkpoint.load(URI))

    def test_compressed_archive(self, checkpoint):
        state = {"a": torch.zeros(10_000)}
        packed = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(file_of(state))) as plain, zipfile.ZipFile(packed, "w") as archive:
            for name in plain.namelist():
                archive.writestr(name, plain.read(name), zipfile.ZIP_DEFLATED)
        with checkpoint.writer(URI) as writer:
            writer.write(packed.getvalue())
        assert same(state, checkpoint.load(URI))

    def test_repacked_archive(self, checkpoint):
        state = {"a": torch.randn(10_000), "b": torch.arange(3)}
        packed = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(file_of(state))) as plain, zipfile.ZipFile(packed, "w") as archive:
            for name in reversed(plain.namelist()):
                archive.writestr(name, plain.read(name))
        with checkpoint.writer(URI) as writer:
            writer.write(packed.getvalue())
        assert same(state, checkpoint.load(URI))

    def test_without_crcs(self, checkpoint):
        state = large()
        before = torch.serialization.get_crc32_options()
        torch.serialization.set_crc32_options(False)
        try:
            data = file_of(state)
        finally:
            torch.serialization.set_crc32_options(before)
        with checkpoint.writer(URI) as writer:
            writer.write(data)
        assert same(state, checkpoint.load(URI))

    def test_no_word_on_byte_order(self, checkpoint):
        state = {"a": torch.arange(1000)}
        packed = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(file_of(state))) as plain, zipfile.ZipFile(packed, "w") as archive:
            for name in plain.namelist():
                if not name.endswith("/byteorder"):
                    archive.writestr(name, plain.read(name))
        with checkpoint.writer(URI) as writer:
            writer.write(packed.getvalue())
        assert same(state, checkpoint.load(URI))
        before = torch.serialization.get_default_load_endianness()
        torch.serialization.set_default_load_endianness(torch.serialization.LoadEndianness.BIG)
        try:
            swapped = checkpoint.load(URI)
        finally:
            torch.serialization.set_default_load_endianness(before)
        assert swapped["a"][1] == 1 << 56

    @pytest.mark.parametrize("field", [20, 24, 42], ids=["stored bytes", "plain bytes", "header"])
    @pytest.mark.parametrize("value", [0xFFFFFFF0, 0x7FFFFFFF, 0], ids=["huge", "large", "none"])
    def test_a_directory_that_lies(self, checkpoint, field, value):
        data = bytearray(file_of({"a": torch.randn(1000), "b": torch.randn(10)}))
        at = 0
        while (at := data.find(b"PK\x01\x02", at)) >= 0:
            if b"/data/0" in data[at + 46 : at + 80]:
                data[at + field : at + field + 4] = value.to_bytes(4, "little")
            at += 4
        with checkpoint.writer(URI) as writer:
            writer.write(data)
        before = psutil.Process().memory_info().rss
        with contextlib.suppress(RuntimeError, OSError):  # some of it torch does not look at
            checkpoint.load(URI)
        assert psutil.Process().memory_info().rss - before < 200 * MIB

    def test_other_byte_order(self, checkpoint):
        state = {"a": torch.arange(1000)}
        data = file_of(state).replace(b"little", b"big   ")
        with checkpoint.writer(URI) as writer:
            writer.write(data)
        with pytest.raises(ValueError, match="endianness"):
            checkpoint.load(URI)

    @pytest.mark.parametrize("data", [b"", b"no archive", b"PK" + bytes(300)], ids=["empty", "text", "begun"])
    def test_no_checkpoint_at_all(self, checkpoint, data):
        with checkpoint.writer(URI) as writer:
            writer.write(data)
        with pytest.raises((DecodeError, RuntimeError, pickle.UnpicklingError)) as caught:
            checkpoint.load(URI)
        assert URI in "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())])

    def test_cut_short(self, checkpoint):
        with checkpoint.writer(URI) as writer:
            writer.write(file_of(large())[:-1000])
        with pytest.raises((RuntimeError, pickle.UnpicklingError)):
            checkpoint.load(URI)

    def test_quantized_tensors_are_saved_through_a_writer(self, checkpoint, recwarn):
        state = torch.quantize_per_tensor(torch.randn(5), 0.1, 0, torch.qint8)
        checkpoint.save(state, URI)
        assert torch.equal(state.dequantize(), checkpoint.load(URI).dequantize())


class TestFaults:
    def test_wrong_bytes_are_fetched_again(self, checkpoint, s3):
        state = large()
        checkpoint.save(state, URI)
        s3.add_fault(Fault.corrupt(at=1000, operation="GetObject", times=1, after=3))
        assert same(state, checkpoint.load(URI))

    def test_wrong_bytes_for_ever_are_told(self, checkpoint, s3):
        checkpoint.save(large(), URI)
        s3.add_fault(Fault.corrupt(at=6 * MIB, of="object", operation="GetObject", times=None))
        with pytest.raises(ChecksumMismatchError, match=r"models/model\.pt"):
            checkpoint.load(URI)

    @pytest.mark.parametrize(
        "fault",
        [
            Fault.reset(operation="GetObject", times=3),
            Fault.truncate(at=100, operation="GetObject", times=3),
            Fault.status(503, operation="GetObject", times=5),
        ],
        ids=["resets", "truncations", "slow down"],
    )
    def test_loads_go_on(self, checkpoint, s3, fault):
        state = large()
        checkpoint.save(state, URI)
        s3.add_fault(fault)
        assert same(state, checkpoint.load(URI))

    @pytest.mark.parametrize(
        "fault",
        [
            Fault.reset(operation="UploadPart", times=3),
            Fault.status(500, operation="UploadPart", times=3),
            Fault.lost_answer(operation="CompleteMultipartUpload", times=1),
            Fault.status(503, operation="CreateMultipartUpload", times=2),
        ],
        ids=["resets", "errors", "a lost answer", "slow down"],
    )
    def test_saves_go_on(self, checkpoint, s3, fault):
        state = large()
        s3.add_fault(fault)
        checkpoint.save(state, URI)
        s3.clear_faults()
        assert stored() == file_of(state)

    @pytest.mark.parametrize("operation", ["CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"])
    def test_a_refused_save_leaves_what_was_there(self, checkpoint, s3, operation):
        checkpoint.save({"old": 1}, URI)
        before = stored()
        s3.add_fault(Fault.status(403, code="AccessDenied", operation=operation, times=None))
        with pytest.raises(S3Exception, match=r"models/model\.pt"):
            checkpoint.save(large(), URI)
        s3.clear_faults()
        assert stored() == before
        assert s3.uploads("models") == []

    def test_an_object_that_changes_is_not_mixed(self, checkpoint, s3):
        checkpoint.save(large(), URI)
        s3.add_fault(Fault.replace(operation="GetObject", times=1, after=3))
        with pytest.raises(ObjectChangedError, match=r"models/model\.pt"):
            checkpoint.load(URI)


class TestCalls:
    def test_conditions(self, checkpoint):
        info = checkpoint.save(large(), URI)
        with pytest.raises(PreconditionFailedError):
            checkpoint.save(large(), URI, if_none_match=True)
        again = checkpoint.save({"a": 1}, URI, if_match=info.etag)
        assert again.etag != info.etag
        with pytest.raises(PreconditionFailedError):
            checkpoint.save({"a": 2}, URI, if_match=info.etag)
        with pytest.raises(ValueError, match="exclude"):
            checkpoint.save({}, URI, if_match=info.etag, if_none_match=True)
        assert checkpoint.load(URI) == {"a": 1}

    def test_progress(self, checkpoint):
        told = []
        checkpoint.save(large(), URI, progress=lambda done, total: told.append((done, total)))
        assert told[-1] == (len(stored()),) * 2
        assert [done for done, _ in told] == sorted(done for done, _ in told)
        told.clear()
        checkpoint.load(URI, progress=lambda done, total: told.append((done, total)))
        assert told[-1] == (len(stored()),) * 2

    def test_a_progress_that_raises_ends_it(self, checkpoint, s3):
        checkpoint.save({"old": 1}, URI)

        def stop(done, total):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(large(), URI, progress=stop)
        assert checkpoint.load(URI) == {"old": 1}
        assert s3.uploads("models") == []

    def test_bad_uris(self, checkpoint):
        for call in (lambda uri: checkpoint.save({}, uri), checkpoint.load):
            for uri in ("/tmp/model.pt", "s3://models", "s3://models/"):
                with pytest.raises(InvalidUriError):
                    call(uri)

    def test_nothing_there(self, checkpoint):
        with pytest.raises(ObjectNotFoundError, match="models/none"):
            checkpoint.load("s3://models/none.pt")

    def test_what_does_not_pickle_sends_nothing(self, checkpoint, s3):
        with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
            checkpoint.save({"f": lambda: 1}, URI)
        assert s3.requests() == []

    def test_requests(self, checkpoint, s3):
        size = checkpoint.save(large(), URI).size
        s3.reset_stats()
        checkpoint.load(URI)
        # One to identify it, the tail, the beginning, and its parts.
        assert len(s3.requests("GetObject")) <= 2 + -(-size // (5 * MIB)) + 1
