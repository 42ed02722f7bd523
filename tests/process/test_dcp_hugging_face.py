"""Distributed checkpoints in safetensors files, by one process, beside PyTorch's own writer and reader."""

import json

import pytest
import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner

from s3dataset import AccessDeniedError, DecodeError, ObjectChangedError, ObjectNotFoundError, S3ClientConfig
from s3dataset.dcp import S3HuggingFaceStorageReader, S3HuggingFaceStorageWriter, consolidate_safetensors_files
from s3dataset.testing import Fault, LocalS3

MIB = 1 << 20
PATH = "s3://models/run/step-1"
CONFIG = S3ClientConfig(part_size=5 * MIB)
NAMES = {"layers.0.weight": 1, "layers.1.weight": 2, "scale": 2, "empty": 1}

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore:.*:FutureWarning")
needs_pytorch_s_own = pytest.mark.skipif(
    not hasattr(dcp, "HuggingFaceStorageReader"), reason="this torch has no HuggingFaceStorageReader"
)


@pytest.fixture(scope="module")
def server():
    with LocalS3("models") as s3:
        yield s3


@pytest.fixture
def s3(server):
    server.clear_faults()
    for key in server.keys("models"):
        server.delete("models", key)
    server.reset_stats()
    return server


def make(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "layers.0.weight": torch.randn(2000, 1000, generator=generator),
        "layers.1.weight": torch.randn(300, 500, generator=generator).to(torch.bfloat16),
        "scale": torch.tensor(3.5 + seed),
        "empty": torch.empty(0, 4),
    }


def zeros():
    return {name: torch.zeros_like(tensor) for name, tensor in make().items()}


def save(state, path=PATH, **options):
    writer = S3HuggingFaceStorageWriter(path, s3client_config=CONFIG, **options)
    return dcp.save(state, storage_writer=writer)


def load(state=None, path=PATH):
    state = zeros() if state is None else state
    dcp.load(state, storage_reader=S3HuggingFaceStorageReader(path, s3client_config=CONFIG))
    return state


def same(found, expected):
    assert sorted(found) == sorted(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name
    return True


def index(s3, folder="run/step-1"):
    return json.loads(s3.get("models", f"{folder}/model.safetensors.index.json"))


class TestOneRank:
    def test_one_file(self, s3):
        save(make())
        assert s3.keys("models") == [
            "run/step-1/model-00001-of-00001.safetensors",
            "run/step-1/model.safetensors.index.json",
        ]
        assert same(load(), make())
        found = safetensors.torch.load(s3.get("models", "run/step-1/model-00001-of-00001.safetensors"))
        assert same(found, make())
        assert index(s3)["weight_map"] == dict.fromkeys(make(), "model-00001-of-00001.safetensors")

    @needs_pytorch_s_own
    def test_pytorch_reads_ours_and_we_read_pytorch_s(self, s3, tmp_path):
        save(make(), fqn_to_index_mapping=NAMES, thread_count=2)
        for key in s3.keys("models"):
            (tmp_path / key.rpartition("/")[2]).write_bytes(s3.get("models", key))
        state = zeros()
        dcp.load(state, storage_reader=dcp.HuggingFaceStorageReader(str(tmp_path)))
        assert same(state, make())
        theirs = tmp_path / "theirs"
        writer = dcp.HuggingFaceStorageWriter(str(theirs), NAMES, save_distributed=True)
        dcp.save(make(1), storage_writer=writer)
        for file in theirs.iterdir():
            s3.put("models", f"theirs/{file.name}", file.read_bytes())
        assert len(s3.keys("models", "theirs/")) == 2
        assert same(load(path="s3://models/theirs"), make(1))
        consolidate_safetensors_files("s3://models/theirs", "s3://models/out", NAMES, s3client_config=CONFIG)
        assert same(load(path="s3://models/out"), make(1))

    def test_a_save_over_another_is_whole_at_every_moment(self, s3):
        save(make())
        s3.add_fault(Fault.status(403, code="AccessDenied", operation="PutObject", key="*index.json", times=None))
        with pytest.raises(CheckpointException, match=r"AccessDenied|Access denied"):
            save(make(1))
        s3.clear_faults()
        assert same(load(), make())
        save(make(2))
        assert same(load(), make(2))
        leftovers = {"run/step-1/" + name for name in index(s3)["weight_map"].values()}
        assert len(leftovers) == 1
        assert leftovers < set(s3.keys("models"))

    def test_a_save_that_fails_leaves_nothing(self, s3):
        s3.add_fault(Fault.status(403, code="AccessDenied", operation="*", key="*model-00002*", times=None))
        with pytest.raises(CheckpointException):
            save(make(), fqn_to_index_mapping=NAMES)
        assert s3.keys("models") == []
        s3.clear_faults()
        save(make(), "s3://models/parts", save_distributed=True, fqn_to_index_mapping=NAMES)
        s3.add_fault(Fault.status(403, code="AccessDenied", operation="*", key="out/model-00002*", times=None))
        with pytest.raises(AccessDeniedError):
            consolidate_safetensors_files("s3://models/parts", "s3://models/out", NAMES)
        assert s3.keys("models", "out/") == []

    def test_part_of_a_checkpoint_into_other_types(self, s3):
        save(make())
        state = {"scale": torch.zeros((), dtype=torch.float64), "layers.1.weight": torch.zeros(300, 500)}
        s3.reset_stats()
        load(state)
        assert state["scale"] == 3.5
        assert torch.equal(state["layers.1.weight"], make()["layers.1.weight"].float())
        read = sum(request.bytes_out for request in s3.requests("GetObject"))
        assert read < 300 * 500 * 2 + 256 * 1024 + 4096  # and the headers

    def test_targets_that_are_not_contiguous(self, s3):
        save(make())
        state = {"layers.0.weight": torch.zeros(1000, 2000).t()}
        load(state)
        assert torch.equal(state["layers.0.weight"], make()["layers.0.weight"])

    def test_only_tensors(self, s3):
        with pytest.raises(CheckpointException, match="'step' is no tensor, and safetensors hold nothing else"):
            save({**make(), "step": 3})
        assert s3.keys("models") == []

    def test_a_mapping_that_misses_a_tensor(self, s3):
        with pytest.raises(CheckpointException, match="fqn_to_index_mapping has no file for 'scale'"):
            save(make(), fqn_to_index_mapping={"layers.0.weight": 1, "layers.1.weight": 1, "empty": 1})

    def test_errors_of_calls(self):
        with pytest.raises(ValueError, match="save_distributed=True"):
            S3HuggingFaceStorageWriter(PATH, enable_consolidation=True)
        for kind in (S3HuggingFaceStorageReader, S3HuggingFaceStorageWriter):
            with pytest.raises(ValueError, match="s3://"):
                kind("/tmp/run")
            assert kind.validate_checkpoint_id(PATH)
            assert not kind.validate_checkpoint_id("/tmp/run")

    def test_nothing_there(self, s3):
        with pytest.raises(CheckpointException, match=r"no model\.safetensors\.index\.json and no \*\.safetensors"):
            load()
        with pytest.raises(ObjectNotFoundError):
            S3HuggingFaceStorageReader(PATH).read_metadata()

    def test_asynchronous_saves(self, s3):
        future = dcp.async_save(make(), storage_writer=S3HuggingFaceStorageWriter(PATH, s3client_config=CONFIG))
        future.result()
        assert same(load(), make())


class TestParts:
    def part(self, s3, name, tensors, offsets, save=None):
        metadata = {"DCP_SHARDING_INFO": json.dumps({key: {"saved_offsets": at} for key, at in offsets.items()})}
        if save is not None:
            metadata["S3DATASET_SAVE"] = json.dumps(save)
        s3.put("models", f"parts/{name}.safetensors", safetensors.torch.save(tensors, metadata))

    def read(self):
        return S3HuggingFaceStorageReader("s3://models/parts").read_metadata()

    def test_parts_become_files(self, s3):
        save(make(), save_distributed=True, fqn_to_index_mapping=NAMES, enable_consolidation=True)
        assert same(load(), make())
        assert same(load(path=f"{PATH}/sharded"), make())
        for file in set(index(s3)["weight_map"].values()):
            with_metadata = s3.get("models", f"run/step-1/{file}")
            tensors = safetensors.torch.load(with_metadata)
            assert with_metadata == safetensors.torch.save(tensors, {"format": "pt"})

    def test_tensors_in_a_grid(self, s3):
        whole = torch.randn(7, 5000, 300)
        for number, (rows, columns) in enumerate([(0, 0), (0, 1234), (3, 0), (3, 1234)]):
            part = whole[rows : 3 if not rows else None, columns : 1234 if not columns else None].contiguous()
            self.part(s3, str(number), {"a": part}, {"a": [rows, columns, 0]})
        consolidate_safetensors_files("s3://models/parts", "s3://models/out", {"a": 1}, 2, s3client_config=CONFIG)
        found = safetensors.torch.load(s3.get("models", "out/model-00001-of-00001.safetensors"))
        assert torch.equal(found["a"], whole)

    def test_a_part_that_is_there_twice_is_read_once(self, s3):
        for name in "12":
            self.part(s3, name, {"a": torch.ones(3)}, {"a": [0]})
        state = {"a": torch.zeros(3)}
        load(state, "s3://models/parts")
        assert state["a"].tolist() == [1, 1, 1]

    def test_parts_that_are_missing(self, s3):
        self.part(s3, "1", {"a": torch.ones(3)}, {"a": [0]})
        self.part(s3, "2", {"a": torch.ones(3)}, {"a": [4]})
        with pytest.raises(DecodeError, match=r"tensor 'a' of \[7\] hold 6 numbers rather than 7"):
            self.read()

    def test_parts_of_two_saves(self, s3):
        self.part(s3, "1", {"a": torch.ones(3)}, {"a": [0]}, ["x", 2])
        with pytest.raises(DecodeError, match="1 of its 2 files are there"):
            self.read()
        self.part(s3, "2", {"a": torch.ones(3)}, {"a": [3]}, ["y", 2])
        with pytest.raises(DecodeError, match="are not of the same save"):
            self.read()
        self.part(s3, "2", {"a": torch.ones(3)}, {"a": [3]}, ["x", 2])
        assert self.read().state_dict_metadata["a"].size == (6,)

    @pytest.mark.parametrize("offsets", [{}, {"a": []}, {"a": [-1]}, {"a": [0.5]}, {"a": None}])
    def test_offsets_that_lie(self, s3, offsets):
        self.part(s3, "1", {"a": torch.ones(3)}, offsets)
        with pytest.raises(DecodeError, match="where its part of tensor 'a' belongs"):
            self.read()

    def test_leftovers_of_a_larger_save_are_removed(self, s3):
        save(make(), save_distributed=True, fqn_to_index_mapping=NAMES)
        save(make(1), save_distributed=True)
        assert s3.keys("models") == ["run/step-1/shard-00001-model-00001-of-00001.safetensors"]
        assert same(load(), make(1))

    def test_a_mapping_that_does_not_fit(self, s3):
        self.part(s3, "1", {"a": torch.ones(3)}, {"a": [0]})
        with pytest.raises(ValueError, match="tensor 'a' has no file in fqn_to_index_mapping"):
            consolidate_safetensors_files("s3://models/parts", "s3://models/out", {})
        with pytest.raises(ValueError, match="tensor 'b' is not in s3://models/parts"):
            consolidate_safetensors_files("s3://models/parts", "s3://models/out", {"a": 1, "b": 1})
        assert s3.keys("models", "out/") == []


class TestFaults:
    def test_saves_and_loads_go_on(self, s3):
        s3.add_fault(Fault.status(503, operation="*", times=3, scope="request", probability=0.3, seed=3))
        save(make(), save_distributed=True, enable_consolidation=True)
        assert same(load(), make())

    def test_a_file_that_is_replaced_before_it_is_read(self, s3):
        save(make())
        reader = S3HuggingFaceStorageReader(PATH, s3client_config=CONFIG)
        metadata = reader.read_metadata()
        s3.put("models", "run/step-1/model-00001-of-00001.safetensors", b"something else" * 1_000_000)
        reader.read_metadata = lambda *_, **__: metadata
        with pytest.raises(CheckpointException, match=r"replaced|changed") as caught:
            dcp.load(zeros(), storage_reader=reader)
        assert isinstance(caught.value.failures[0][0], ObjectChangedError)


def test_ranks_that_begin_with_different_files_load_none(s3):
    save({"a": torch.zeros(3)})
    readers = [S3HuggingFaceStorageReader(PATH, s3client_config=CONFIG) for _ in range(2)]
    plans = []
    for reader in readers:
        metadata = reader.read_metadata()
        planner = DefaultLoadPlanner()
        planner.set_up_planner({"a": torch.empty(3)}, metadata, is_coordinator=not plans)
        reader.set_up_storage_reader(metadata, is_coordinator=not plans)
        plans.append(reader.prepare_local_plan(planner.create_local_plan()))
        save({"a": torch.ones(3)})
    assert readers[0].prepare_global_plan(plans[:1]) == plans[:1]
    with pytest.raises(ObjectChangedError, match="while the ranks began to load them"):
        readers[0].prepare_global_plan(plans)
