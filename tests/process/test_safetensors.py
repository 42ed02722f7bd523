"""s3dataset.safetensors against a server, and against the safetensors library."""

import json

import pytest
import safetensors
import safetensors.torch
import torch

import s3dataset.safetensors as st
from s3dataset import (
    AccessDeniedError,
    ChecksumMismatchError,
    InvalidUriError,
    ObjectChangedError,
    ObjectNotFoundError,
    PreconditionFailedError,
    S3ClientConfig,
    S3Exception,
)
from s3dataset.safetensors._memory import Staging
from s3dataset.testing import Fault, LocalS3

URI = "s3://models/dir/model.safetensors"
MIB = 1 << 20
CONFIG = S3ClientConfig(part_size=5 * MIB)
NAMES = (
    "bool uint8 int8 int16 uint16 float16 bfloat16 int32 uint32 float32 float64 int64 uint64 complex64 float8_e4m3fn "
    "float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu float4_e2m1fn_x2"
)
DTYPES = [getattr(torch, name) for name in NAMES.split() if hasattr(torch, name)]


@pytest.fixture(scope="module")
def server():
    with LocalS3("models") as s3:
        yield s3


@pytest.fixture
def s3(server):
    server.clear_faults()
    server.reset_stats()
    for key in server.keys("models"):
        server.delete("models", key)
    return server


def of_dtype(dtype, *shape):
    raw = torch.randint(0, 2, (*shape, torch.empty(1, dtype=dtype).element_size()), dtype=torch.uint8)
    return raw.view(dtype).reshape(shape)


def every_type():
    state = {f"x{number}": of_dtype(dtype, 3, 8) for number, dtype in enumerate(DTYPES)}
    return {
        "scalar": torch.tensor(3.0),
        "empty": torch.empty(0, 3),
        "none": torch.empty(2, 0),
        "ü.\n": torch.ones(1),
        **state,
    }


def large():
    return {"a": torch.randn(3 * MIB), "small": torch.arange(5), "b": torch.randn(1025, 2049), "empty": torch.empty(0)}


def same(found, expected):
    assert sorted(found) == sorted(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(raw(found[name]), raw(tensor)), name
    return True


def raw(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def put(s3, state, key="dir/model.safetensors", **options):
    s3.put("models", key, safetensors.torch.save(state, **options))


class TestSave:
    @pytest.mark.parametrize("make", [every_type, large, dict], ids=["every type", "in parts", "nothing"])
    @pytest.mark.parametrize("metadata", [None, {}, {"format": 'p"t\u2028é\x01'}], ids=["no metadata", "empty", "some"])
    def test_the_file_is_the_one_that_the_library_writes(self, s3, make, metadata):
        state = make()
        info = st.save_file(state, URI, metadata, s3client_config=CONFIG)
        found = s3.get("models", "dir/model.safetensors")
        assert info.size == len(found)
        if not state and metadata == {}:  # the library's own file cannot be read by anybody
            assert found[8:] == b'{"__metadata__":{}}     '
        else:
            assert found == safetensors.torch.save(state, metadata)

    def test_metadata_are_sorted(self, s3):
        st.save_file({"a": torch.ones(1)}, URI, {"b": "1", "a": "2"})
        header = s3.get("models", "dir/model.safetensors")
        assert header.index(b'"a":"2"') < header.index(b'"b":"1"')

    def test_tensors_that_are_parts_of_others(self, s3):
        base = torch.randn(10, 4)
        state = {"head": base[:3], "tail": base[5:], "parameter": torch.nn.Parameter(torch.ones(3))}
        st.save_file(state, URI)
        assert same(safetensors.torch.load(s3.get("models", "dir/model.safetensors")), state)

    def test_what_a_conjugate_shows_is_saved(self, s3):
        state = {"a": torch.randn(4, dtype=torch.complex64).conj()}
        st.save_file(state, URI)
        assert torch.equal(safetensors.torch.load(s3.get("models", "dir/model.safetensors"))["a"], state["a"])

    @pytest.mark.parametrize(
        ("state", "error", "reason"),
        [
            ({"a": torch.ones(3, 3).t()}, ValueError, "'a' is not contiguous"),
            ({"a": torch.ones(3).to_sparse()}, ValueError, "'a' is sparse"),
            ({"a": torch.ones(3, device="meta")}, ValueError, "'a'.* has no memory"),
            ({"a": torch.ones(3, dtype=torch.complex128)}, ValueError, "'a' is of torch.complex128"),
            ({"a": 3}, ValueError, "'a' is no tensor but int"),
            ([("a", torch.ones(1))], ValueError, "not list"),
            ({1: torch.ones(1)}, TypeError, "the name 1 "),
            ({"__metadata__": torch.ones(1)}, ValueError, "no tensor can have the name"),
            ({"\ud800": torch.ones(1)}, ValueError, "half a character"),
        ],
    )
    def test_what_cannot_be_saved_sends_nothing(self, s3, state, error, reason):
        with pytest.raises(error, match=reason):
            st.save_file(state, URI)
        assert s3.requests() == []

    def test_shared_memory_is_refused(self, s3):
        base = torch.randn(10)
        for state in (
            {"a": base, "b": base},
            {"a": base[:6], "b": base[5:]},
            {"a": base, "b": base[2:4], "c": base[7:]},
        ):
            with pytest.raises(RuntimeError, match="'a', 'b'"):
                st.save_file(state, URI)
            with pytest.raises(RuntimeError):
                safetensors.torch.save(state)
        assert s3.requests() == []

    @pytest.mark.parametrize("metadata", [{"a": 1}, {1: "a"}])
    def test_metadata_are_texts(self, metadata):
        with pytest.raises(TypeError, match="metadata are texts"):
            st.save_file({}, URI, metadata)

    def test_conditions(self, s3):
        info = st.save_file(large(), URI)
        with pytest.raises(PreconditionFailedError):
            st.save_file(large(), URI, if_none_match=True)
        st.save_file({"a": torch.ones(1)}, URI, if_match=info.etag)
        with pytest.raises(PreconditionFailedError):
            st.save_file({"a": torch.zeros(1)}, URI, if_match=info.etag)
        assert st.load_file(URI)["a"].item() == 1

    def test_progress(self, s3):
        told = []
        info = st.save_file(large(), URI, progress=lambda *done: told.append(done), s3client_config=CONFIG)
        assert told[-1] == (info.size, info.size)
        told.clear()
        st.load_file(URI, progress=lambda *done: told.append(done), s3client_config=CONFIG)
        assert told[-1] == (info.size, info.size)
        assert [done for done, _ in told] == sorted(done for done, _ in told)


class TestLoad:
    @pytest.mark.parametrize("make", [every_type, large, dict], ids=["every type", "in parts", "nothing"])
    def test_files_of_the_library(self, s3, make):
        state = make()
        put(s3, state)
        assert same(st.load_file(URI, s3client_config=CONFIG), state)

    def test_tensors_are_ordinary_and_independent(self, s3):
        put(s3, large())
        found = st.load_file(URI)
        assert found["a"].untyped_storage().nbytes() == 12 * MIB
        found["a"].untyped_storage().resize_(8)
        found["b"].share_memory_()
        assert not found["b"].requires_grad
        st.save_file({name: found[name] for name in ("b", "small")}, URI)

    def test_a_header_that_is_longer_than_the_first_read(self, s3):
        state = {f"layers.{number:05}.{'x' * 50}": torch.full((2,), float(number)) for number in range(4000)}
        put(s3, state)
        assert same(st.load_file(URI), state)

    def test_meta_reads_headers_alone(self, s3):
        put(s3, large())
        found = st.load_file(URI, device="meta")
        assert found["b"].shape == (1025, 2049)
        assert found["b"].is_meta
        assert len(s3.requests("GetObject")) == 1

    def test_every_part_is_asked_for_once(self, s3):
        state = large()
        put(s3, state)
        size = len(s3.get("models", "dir/model.safetensors"))
        s3.reset_stats()
        st.load_file(URI, s3client_config=CONFIG)
        assert len(s3.requests("GetObject")) == 1 + -(-size // (5 * MIB))
        assert s3.stats()["operations"]["HeadObject"] == 1

    def test_bad_uris(self):
        for uri in ("/tmp/model.safetensors", "s3://", "model.safetensors"):
            with pytest.raises(InvalidUriError):
                st.load_file(uri)
        for uri in ("s3://models", "s3://models/"):
            with pytest.raises(InvalidUriError):
                st.save_file({}, uri)

    def test_bad_device(self):
        with pytest.raises(RuntimeError, match="nowhere"):
            st.load_file(URI, device="nowhere")

    def test_nothing_there(self, s3):
        with pytest.raises(ObjectNotFoundError, match=r"dir/model\.safetensors"):
            st.load_file(URI)
        with pytest.raises(ObjectNotFoundError, match=r"none of .*dir/model.safetensors.*index\.json"):
            st.load_file("s3://models/dir")

    def test_a_type_that_this_torch_lacks(self, s3):
        header = b'{"a":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]}}'
        s3.put("models", "dir/model.safetensors", len(header).to_bytes(8, "little") + header + b"abc")
        with pytest.raises(TypeError, match="cannot hold tensor 'a' of F6_E2M3"):
            st.load_file(URI)
        with st.safe_open(URI) as file:
            assert file.keys() == ["a"]

    def test_a_header_that_lies_takes_no_memory(self, s3):
        header = b'{"a":{"dtype":"U8","shape":[1099511627776],"data_offsets":[0,1099511627776]}}'
        s3.put("models", "dir/model.safetensors", len(header).to_bytes(8, "little") + header + b"abc")
        with pytest.raises(ValueError, match=r"dir/model\.safetensors is no safetensors file.*reach past"):
            st.load_file(URI)

    @pytest.mark.parametrize("count", [1, 3])
    def test_buffers_before_another_device(self, s3, count, monkeypatch):
        """The way to a GPU, with this machine's memory in its place: nothing is pinned, copies are on no stream."""
        from s3dataset.safetensors import _files

        state = {**every_type(), **large()}
        put(s3, state)
        made = []

        def staging(device, buffer_bytes):
            made.append(Staging(device, buffer_bytes, count))
            return made[-1]

        monkeypatch.setattr(_files, "Staging", staging)
        monkeypatch.setattr(_files, "_DIRECT", ("meta",))
        assert same(st.load_file(URI, s3client_config=CONFIG), state)
        with st.safe_open(URI, s3client_config=CONFIG) as file:
            assert torch.equal(file.get_tensor("b"), state["b"])
        assert len(made) == 2


class TestLazy:
    @pytest.fixture
    def state(self, s3):
        state = {
            "cube": torch.randn(20, 30, 40),
            "wide": torch.randn(64, 70_000),
            "scalar": torch.tensor(7),
            "empty": torch.empty(0, 3),
        }
        put(s3, state, metadata={"format": "pt"})
        return state

    def test_it_is_the_library_s(self, s3, state, tmp_path):
        path = tmp_path / "model.safetensors"
        path.write_bytes(s3.get("models", "dir/model.safetensors"))
        with safetensors.safe_open(path, "pt") as theirs, st.safe_open(URI, "pt") as ours:
            assert ours.keys() == theirs.keys()
            assert ours.offset_keys() == theirs.offset_keys()
            assert ours.metadata() == theirs.metadata() == {"format": "pt"}
            for name in state:
                assert torch.equal(ours.get_tensor(name), theirs.get_tensor(name))
                assert ours.get_slice(name).get_shape() == theirs.get_slice(name).get_shape()
                assert ours.get_slice(name).get_dtype() == theirs.get_slice(name).get_dtype()

    def test_only_what_is_needed_is_read(self, s3, state):
        with st.safe_open(URI) as file:
            s3.reset_stats()
            assert torch.equal(file.get_slice("wide")[10:20], state["wide"][10:20])
            (request,) = s3.requests("GetObject")
            assert request.bytes_out < 10 * 70_000 * 4 + 1000
            s3.reset_stats()
            assert torch.equal(file.get_slice("wide")[:, 100:200], state["wide"][:, 100:200])
            assert len(s3.requests("GetObject")) == 64
            s3.reset_stats()
            assert torch.equal(file.get_slice("cube")[3:7, :, 1], state["cube"][3:7, :, 1])
            (request,) = s3.requests("GetObject")
            assert request.bytes_out < 4 * 30 * 40 * 4 + 1000
            s3.reset_stats()
            assert file.get_slice("cube")[3:3].shape == (0, 30, 40)
            assert s3.requests("GetObject") == []

    def test_what_is_returned_keeps_no_more_than_itself(self, state):
        with st.safe_open(URI) as file:
            assert file.get_slice("wide")[:, ::100].untyped_storage().nbytes() == 64 * 700 * 4

    def test_many_at_once(self, state):
        with st.safe_open(URI) as file:
            assert same(file.get_tensors(), state)
            assert list(file.get_tensors(["scalar", "cube"])) == ["scalar", "cube"]
            assert file.get_tensors([]) == {}

    def test_errors(self, state):
        with pytest.raises(ValueError, match="must be 'pt'"):
            st.safe_open(URI, "np")
        with st.safe_open(URI) as file:
            with pytest.raises(KeyError, match="has no tensor 'cub': is it one of 'cube'"):
                file.get_tensor("cub")
            with pytest.raises(IndexError):
                file.get_slice("cube")[20]
        with pytest.raises(ValueError, match="is closed"):
            file.keys()

    def test_a_file_that_was_replaced(self, s3, state):
        with st.safe_open(URI) as file:
            put(s3, {"cube": torch.zeros(20, 30, 40)})
            for read in (
                file.get_tensor,
                lambda name: file.get_slice(name)[1],
                lambda name: file.get_slice(name)[..., 1],
            ):
                with pytest.raises(ObjectChangedError, match=r"dir/model\.safetensors"):
                    read("cube")


class TestShards:
    def test_transformers_layout(self, s3):
        """As save_pretrained writes it: names, an index with total_size, every file with its format."""
        state = large()
        names = list(state)
        put(
            s3,
            {name: state[name] for name in names[:2]},
            "m/model-00001-of-00002.safetensors",
            metadata={"format": "pt"},
        )
        put(
            s3,
            {name: state[name] for name in names[2:]},
            "m/model-00002-of-00002.safetensors",
            metadata={"format": "pt"},
        )
        weight_map = {name: f"model-0000{1 + number // 2}-of-00002.safetensors" for number, name in enumerate(names)}
        index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
        s3.put("models", "m/model.safetensors.index.json", json.dumps(index, indent=2).encode())
        for uri in ("s3://models/m", "s3://models/m/", "s3://models/m/model.safetensors.index.json"):
            assert same(st.load_file(uri, s3client_config=CONFIG), state)
        with st.safe_open("s3://models/m") as file:
            assert file.keys() == sorted(state)
            assert sorted(file.offset_keys()) == sorted(state)
            assert file.metadata() == {"format": "pt"}
            assert torch.equal(file.get_slice("b")[5], state["b"][5])
            assert same(file.get_tensors(), state)

    def test_ours_are_read_by_the_library(self, s3):
        state = large()
        weight_map = st.save_sharded(state, "s3://models/m", max_shard_size="9MB")
        index = json.loads(s3.get("models", "m/model.safetensors.index.json"))
        assert index["weight_map"] == weight_map
        assert index["metadata"]["total_size"] == sum(
            tensor.numel() * tensor.element_size() for tensor in state.values()
        )
        found = {}
        for name in set(weight_map.values()):
            found |= safetensors.torch.load(s3.get("models", f"m/{name}"))
        assert same(found, state)
        assert sorted(set(weight_map.values())) == [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
        ]

    def test_a_model_is_replaced_whole(self, s3):
        first, second, third = large(), large(), large()
        st.save_sharded(first, "s3://models/m", max_shard_size="9MB")
        s3.add_fault(Fault.status(403, code="AccessDenied", operation="UploadPart", times=None, after=1))
        with pytest.raises(AccessDeniedError):
            st.save_sharded(second, "s3://models/m", max_shard_size="9MB", s3client_config=CONFIG)
        s3.clear_faults()
        assert same(st.load_file("s3://models/m"), first)
        assert len(s3.keys("models")) == 3
        st.save_sharded(second, "s3://models/m", max_shard_size="9MB")
        assert same(st.load_file("s3://models/m"), second)
        assert len(s3.keys("models")) == 3
        assert set(st.save_sharded(third, "s3://models/m").values()) == {"model.safetensors"}
        assert same(st.load_file("s3://models/m"), third)
        assert s3.keys("models") == ["m/model.safetensors"]
        st.save_sharded(first, "s3://models/m/", max_shard_size=9_000_000)
        assert same(st.load_file("s3://models/m"), first)
        assert len(s3.keys("models")) == 3

    def test_whoever_may_not_list_overwrites_nothing(self, s3):
        st.save_sharded(large(), "s3://models/m", max_shard_size="9MB")
        s3.add_fault(Fault.status(403, code="AccessDenied", operation="GetObject", times=1))
        state = large()
        weight_map = st.save_sharded(state, "s3://models/m", max_shard_size="9MB")
        assert "model-00001-of-00002.safetensors" not in weight_map.values()
        assert same(st.load_file("s3://models/m"), state)

    def test_a_name_in_two_shards_is_the_index_s(self, s3):
        put(s3, {"a": torch.zeros(3), "b": torch.zeros(3)}, "m/1.safetensors")
        put(s3, {"a": torch.ones(3), "more": torch.ones(2)}, "m/2.safetensors")
        index = {"weight_map": {"a": "2.safetensors", "b": "1.safetensors"}}
        s3.put("models", "m/model.safetensors.index.json", json.dumps(index).encode())
        expected = {"a": torch.ones(3), "b": torch.zeros(3), "more": torch.ones(2)}
        assert same(st.load_file("s3://models/m"), expected)
        with st.safe_open("s3://models/m") as file:
            assert same(file.get_tensors(), expected)

    @pytest.mark.parametrize(
        ("index", "error", "reason"),
        [
            (b"{", ValueError, "no index"),
            (b"[]", ValueError, "no weight_map"),
            (b'{"weight_map": {"a": 3}}', ValueError, "no weight_map"),
            (b'{"weight_map": {"a": "../other.safetensors"}}', ValueError, "no file beside it"),
            (b'{"weight_map": {"a": "/other.safetensors"}}', ValueError, "no file beside it"),
            (b'{"weight_map": {"a": "other.bin"}}', ValueError, "no file beside it"),
            (
                b'{"weight_map": {"z": "1.safetensors"}}',
                ValueError,
                "tensor 'z' is in .*m/1.safetensors, and it is not",
            ),
            (b'{"weight_map": {"a": "none.safetensors"}}', ObjectNotFoundError, "m/none.safetensors"),
        ],
    )
    def test_an_index_that_lies(self, s3, index, error, reason):
        put(s3, {"a": torch.zeros(3)}, "m/1.safetensors")
        s3.put("models", "m/model.safetensors.index.json", index)
        with pytest.raises(error, match=reason):
            st.load_file("s3://models/m")

    def test_a_file_of_any_name(self, s3):
        put(s3, {"a": torch.ones(3)}, "weights.st")
        assert st.load_file("s3://models/weights.st")["a"].tolist() == [1, 1, 1]

    @pytest.mark.parametrize("size", ["5 apples", "0", 0, "0.1B", -1])
    def test_bad_sizes(self, size):
        with pytest.raises(ValueError, match="max_shard_size"):
            st.save_sharded({}, "s3://models/m", max_shard_size=size)


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(4, 4)
        self.second = torch.nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.turned = torch.nn.Parameter(torch.randn(3, 5).t())


class TestModels:
    def test_tied_tensors(self, s3, tmp_path):
        model, other, third = Tied(), Tied(), Tied()
        st.save_model(model, URI, {"format": "pt"})
        path = tmp_path / "model.safetensors"
        path.write_bytes(s3.get("models", "dir/model.safetensors"))
        assert st.load_model(other, URI) == (set(), [])
        assert safetensors.torch.load_model(third, path) == (set(), [])
        assert same(other.state_dict(), model.state_dict())
        assert same(third.state_dict(), model.state_dict())
        safetensors.torch.save_model(model, tmp_path / "theirs")
        with safetensors.safe_open(tmp_path / "theirs", "pt") as theirs, st.safe_open(URI) as ours:
            assert ours.keys() == theirs.keys()
            assert ours.metadata() == {"format": "pt", **theirs.metadata()}

    def test_strict(self, s3):
        model = Tied()
        put(s3, {"first.weight": torch.zeros(4, 4), "more": torch.ones(1)})
        with pytest.raises(RuntimeError, match=r"without 'first.bias'.*unknown 'more'"):
            st.load_model(model, URI)
        missing, unexpected = st.load_model(model, URI, strict=False)
        assert missing == {"first.bias", "second.bias", "turned"}
        assert unexpected == ["more"]

    def test_not_contiguous(self):
        with pytest.raises(ValueError, match="'turned' is not contiguous"):
            st.save_model(Tied(), URI, force_contiguous=False)


class TestFaults:
    @pytest.mark.parametrize(
        "fault",
        [
            Fault.reset(operation="GetObject", times=3),
            Fault.truncate(at=100, operation="GetObject", times=3),
            Fault.status(503, operation="GetObject", times=5),
            Fault.status(500, operation="HeadObject", times=1),
            Fault.corrupt(at=10 * MIB, of="object", operation="GetObject", times=1),
        ],
        ids=["resets", "truncations", "slow down", "an error of the first question", "a wrong byte"],
    )
    def test_loads_go_on(self, s3, fault):
        state = large()
        st.save_file(state, URI, s3client_config=CONFIG)
        s3.add_fault(fault)
        assert same(st.load_file(URI, s3client_config=CONFIG), state)
        with st.safe_open(URI, s3client_config=CONFIG) as file:
            assert torch.equal(file.get_slice("b")[:, :3], state["b"][:, :3])

    def test_wrong_bytes_for_ever_are_told(self, s3):
        st.save_file(large(), URI)
        s3.add_fault(Fault.corrupt(at=6 * MIB, of="object", operation="GetObject", times=None))
        with pytest.raises(ChecksumMismatchError, match=r"dir/model\.safetensors"):
            st.load_file(URI)

    def test_a_file_that_is_replaced_meanwhile_is_not_mixed(self, s3):
        st.save_file(large(), URI, s3client_config=CONFIG)
        s3.add_fault(Fault.replace(operation="GetObject", times=1, after=2))
        with pytest.raises(ObjectChangedError, match=r"dir/model\.safetensors"):
            st.load_file(URI, s3client_config=CONFIG)

    @pytest.mark.parametrize("operation", ["CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"])
    def test_a_refused_save_leaves_what_was_there(self, s3, operation):
        st.save_file({"old": torch.ones(1)}, URI)
        s3.add_fault(Fault.status(403, code="AccessDenied", operation=operation, times=None))
        with pytest.raises(S3Exception, match=r"dir/model\.safetensors"):
            st.save_file(large(), URI, s3client_config=CONFIG)
        s3.clear_faults()
        assert st.load_file(URI)["old"].item() == 1
        assert s3.uploads("models") == []

    def test_saves_go_on(self, s3):
        state = large()
        s3.add_fault(Fault.reset(operation="UploadPart", times=2), Fault.status(503, operation="UploadPart", times=2))
        st.save_file(state, URI, s3client_config=CONFIG)
        assert s3.get("models", "dir/model.safetensors") == safetensors.torch.save(state)

    def test_a_cut_object(self, s3):
        s3.put("models", "dir/model.safetensors", safetensors.torch.save(large())[:-1])
        with pytest.raises(ValueError, match=r"end at byte|reach past"):
            st.load_file(URI)
