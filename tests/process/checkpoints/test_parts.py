"""S3Checkpoint.load of a part, and while bytes are on their way."""

import pickle

import pytest
import torch
from tests.process.checkpoints.states import MIB, URI, Sub, file_of, large
from tests.process.test_torch_save_load import same

from s3dataset import ChecksumMismatchError, ObjectChangedError
from s3dataset._checkpoint._skeleton import Skeleton
from s3dataset.testing import Fault

pytestmark = pytest.mark.skipif(not Skeleton.is_possible(), reason="torch < 2.6 saves through a writer")


def nested():
    weights = {f"layer{i}.weight": torch.randn(MIB // 2) for i in range(6)}
    return {
        "model": weights,
        "optimizer": {"state": {i: {"exp_avg": torch.randn(MIB // 2)} for i in range(6)}, "lr": 0.1},
        "step": 7,
        "tied": weights["layer0.weight"],
        ("a", "tuple"): 1,
    }


def fetched_bytes(s3):
    return sum(record.bytes_out for record in s3.requests("GetObject"))


class TestKeys:
    def test_one(self, checkpoint, s3):
        state = nested()
        checkpoint.save(state, URI)
        s3.reset_stats()
        loaded = checkpoint.load(URI, keys=["model"])
        assert same({"model": state["model"]}, loaded)
        assert fetched_bytes(s3) < 12 * MIB + (400 << 10)  # the whole has 24 MiB

    def test_a_word_is_one_key(self, checkpoint):
        checkpoint.save(nested(), URI)
        assert checkpoint.load(URI, keys="step") == {"step": 7}

    def test_paths(self, checkpoint, s3):
        state = nested()
        checkpoint.save(state, URI)
        s3.reset_stats()
        loaded = checkpoint.load(
            URI, keys=[("model", "layer3.weight"), ("optimizer", "state", 2), "step", ("a", "tuple")]
        )
        assert list(loaded) == ["model", "optimizer", "step", ("a", "tuple")]
        assert torch.equal(loaded["model"]["layer3.weight"], state["model"]["layer3.weight"])
        assert list(loaded["model"]) == ["layer3.weight"]
        assert torch.equal(loaded["optimizer"]["state"][2]["exp_avg"], state["optimizer"]["state"][2]["exp_avg"])
        assert fetched_bytes(s3) < 4 * MIB + (400 << 10)

    def test_views_come_with_their_storages(self, checkpoint):
        base = torch.randn(100, 100)
        checkpoint.save({"rows": base[5:7], "base": base, "other": torch.randn(5)}, URI)
        loaded = checkpoint.load(URI, keys=["rows", "base"])
        assert torch.equal(loaded["rows"], base[5:7])
        assert loaded["rows"].untyped_storage().data_ptr() == loaded["base"].untyped_storage().data_ptr()

    @pytest.mark.parametrize("keys", [["modell"], [("model", "layer9.weight")]])
    def test_no_such_key(self, checkpoint, s3, keys):
        checkpoint.save(nested(), URI)
        s3.reset_stats()
        with pytest.raises(KeyError, match=r"models/model\.pt has no \[.*\]; it has (model|layer)"):
            checkpoint.load(URI, keys=keys)
        assert fetched_bytes(s3) < 400 << 10

    @pytest.mark.parametrize(("state", "keys"), [(torch.ones(3), ["a"]), (nested(), [("step", "x")])])
    def test_what_has_no_keys(self, checkpoint, state, keys):
        checkpoint.save(state, URI)
        with pytest.raises(TypeError, match="has no keys"):
            checkpoint.load(URI, keys=keys)

    def test_keys_that_are_none(self, checkpoint):
        with pytest.raises(ValueError, match="empty"):
            checkpoint.load(URI, keys=[])
        with pytest.raises(TypeError, match="keys"):
            checkpoint.load(URI, keys=5)

    def test_weights_only(self, checkpoint):
        module = torch.nn.Linear(300, 4)
        checkpoint.save({"module": module, "more": torch.randn(3 * MIB), "sub": torch.randn(5).as_subclass(Sub)}, URI)
        with pytest.raises(pickle.UnpicklingError, match="weights_only"):
            checkpoint.load(URI, keys=["more"])
        loaded = checkpoint.load(URI, keys=["module", "sub"], weights_only=False)
        assert torch.equal(loaded["module"].weight, module.weight)
        assert type(loaded["sub"]) is Sub

    def test_tensors_of_many_kinds(self, checkpoint, recwarn):
        state = {
            "sparse": torch.randn(20, 20).relu().to_sparse(),
            "attributes": torch.nn.Parameter(torch.randn(5)),
            "storage": torch.randn(100).untyped_storage(),
            "scalar": torch.tensor(5.0),
            "empty": torch.empty(0, 3),
            "bf16": torch.randn(7).bfloat16(),
            "quantized": torch.quantize_per_tensor(torch.randn(5), 0.1, 0, torch.qint8),
            "other": torch.randn(MIB),
        }
        state["attributes"].extra = torch.randn(9)
        with checkpoint.writer(URI) as writer:
            torch.save(state, writer)
        for key, value in state.items():
            loaded = checkpoint.load(URI, keys=[key], weights_only=False)[key]
            assert (
                bytes(loaded) == bytes(value)
                if key == "storage"
                else torch.equal(
                    loaded.dequantize() if key == "quantized" else loaded.to_dense(),
                    value.dequantize() if key == "quantized" else value.to_dense(),
                )
            )
        assert torch.equal(
            checkpoint.load(URI, keys="attributes", weights_only=False)["attributes"].extra, state["attributes"].extra
        )

    def test_files_that_cannot_be_taken_apart(self, checkpoint):
        state = nested()
        with checkpoint.writer(URI) as writer:
            torch.save(state, writer, _use_new_zipfile_serialization=False)
        assert same({"model": state["model"]}, checkpoint.load(URI, keys=["model"]))

    def test_a_directory_longer_than_the_tail(self, checkpoint, s3):
        state = {f"a-name-of-some-length-{i}": torch.full((600,), i) for i in range(3000)}
        size = checkpoint.save(state, URI).size
        assert same(state, checkpoint.load(URI))
        s3.reset_stats()
        key = "a-name-of-some-length-2000"
        assert checkpoint.load(URI, keys=[key])[key][0] == 2000
        assert fetched_bytes(s3) < size / 4

    def test_wrong_bytes_are_fetched_again(self, checkpoint, s3):
        state = nested()
        checkpoint.save(state, URI)
        at = file_of(state).index(state["model"]["layer4.weight"].numpy().tobytes()[:64])
        s3.add_fault(Fault.corrupt(at=at, of="object", operation="GetObject", times=4))
        assert same({"model": state["model"]}, checkpoint.load(URI, keys=["model"]))

    def test_wrong_bytes_for_ever_are_told(self, checkpoint, s3):
        state = nested()
        checkpoint.save(state, URI)
        at = file_of(state).index(state["model"]["layer4.weight"].numpy().tobytes()[:64])
        s3.add_fault(Fault.corrupt(at=at, of="object", operation="GetObject", times=None))
        with pytest.raises(ChecksumMismatchError, match=r"models/model\.pt.*data/4"):
            checkpoint.load(URI, keys=["model"])
        assert checkpoint.load(URI, keys=["step"]) == {"step": 7}

    def test_an_object_that_changes_is_not_mixed(self, checkpoint, s3):
        checkpoint.save(nested(), URI)
        s3.add_fault(Fault.replace(operation="GetObject", times=1, after=3))
        with pytest.raises(ObjectChangedError, match=r"models/model\.pt"):
            checkpoint.load(URI, keys=["model"])

    def test_without_checksums(self, checkpoint):
        state = nested()
        torch.serialization.set_crc32_options(False)
        try:
            data = file_of(state)
        finally:
            torch.serialization.set_crc32_options(True)
        with checkpoint.writer(URI) as writer:
            writer.write(data)
        assert same({"model": state["model"]}, checkpoint.load(URI, keys=["model"]))


def test_meta_fetches_no_storage(checkpoint, s3):
    checkpoint.save(nested(), URI)
    s3.reset_stats()
    loaded = checkpoint.load(URI, map_location=torch.device("meta"))
    assert loaded["model"]["layer0.weight"].shape == (MIB // 2,)
    assert loaded["model"]["layer0.weight"].device.type == "meta"
    assert fetched_bytes(s3) < 400 << 10


def test_storages_are_placed_while_later_ones_come(checkpoint, s3):
    """The last part is held back until the first storage has been placed."""
    state = large()
    checkpoint.save(state, URI)
    s3.add_fault(Fault.delay(1.5, operation="GetObject", times=1, after=6))
    seen = []

    def place(storage, location):
        seen.append(len([r for r in s3.requests("GetObject") if r.status == 206]))
        return storage

    assert same(state, checkpoint.load(URI, map_location=place))
    assert seen[0] < seen[-1]


def test_an_error_while_bytes_come_ends_it(checkpoint):
    checkpoint.save(large(), URI)

    def place(storage, location):
        raise RuntimeError("no place")

    with pytest.raises(RuntimeError, match="no place"):
        checkpoint.load(URI, map_location=place)


def test_values_are_there_when_code_of_the_file_looks_at_them(checkpoint):
    checkpoint.save(Looker(torch.arange(3 * MIB)), URI)
    assert checkpoint.load(URI, weights_only=False).sum == 3 * MIB * (3 * MIB - 1) // 2


class Looker:
    def __init__(self, values):
        self.values = values
        self.sum = 0

    def __setstate__(self, state):
        self.__dict__ = state
        self.sum = int(self.values.sum())
