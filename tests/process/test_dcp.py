"""s3dataset.dcp against a server: what torch.distributed.checkpoint does with it, in one process."""

import contextlib
import io
import pickle
import re
import threading
import zlib
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import filesystem
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner

from s3dataset import (
    InvalidConfigError,
    InvalidUriError,
    ObjectChangedError,
    ObjectNotFoundError,
    PreconditionFailedError,
    S3Client,
    S3ClientConfig,
    S3Exception,
    S3ReaderConstructor,
)
from s3dataset._checkpoint._skeleton import Skeleton
from s3dataset.dcp import HexPrefixStrategy, S3FileSystem, S3StorageReader, S3StorageWriter
from s3dataset.dcp._archive import expected
from s3dataset.testing import Fault, LocalS3

MIB = 1 << 20
BUCKET = "models"
URI = f"s3://{BUCKET}/run/step-1"

# torch tells that it works without a process group, that it is about to change ...
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore::FutureWarning:torch")


@pytest.fixture(scope="module")
def server():
    with LocalS3(BUCKET) as s3:
        yield s3


@pytest.fixture
def s3(server):
    server.clear_faults()
    server.reset_stats()
    S3Client().delete_objects(BUCKET, keys())
    return server


def keys(prefix=""):
    return [info.key for page in S3Client().list_objects(BUCKET, prefix) for info in page.object_info]


def names(uri=URI):
    prefix = uri.removeprefix(f"s3://{BUCKET}/") + "/"
    return sorted(key.removeprefix(prefix) for key in keys(prefix))


class Odd(torch.Tensor):
    pass


def state(seed=0):
    random = torch.Generator().manual_seed(seed)

    def make(*size):
        return torch.randn(*size, generator=random)

    base = make(200, 20)
    return {
        "large": make(700, 300),
        "larger": make(3 * MIB),
        "small": make(7),
        "rows of another": base[10:20],
        "transposed": make(30, 40).t(),
        "large and transposed": make(300, 400).t(),
        "half": make(500, 300).bfloat16(),
        "conjugated": torch.view_as_complex(make(50, 2)).conj(),
        "empty": torch.empty(0, 4),
        "a number": torch.tensor(3.5),
        "parameter": torch.nn.Parameter(make(3, 3)),
        "expanded": make(1, 5).expand(4, 5),
        "nested": {"integers": torch.arange(10), "list": [make(2), make(3)]},
        "step": seed,
        "text": "ü" * 10,
        "nothing": None,
    }


def emptied(value):
    if isinstance(value, dict):
        return {key: emptied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [emptied(item) for item in value]
    if isinstance(value, torch.Tensor):
        return torch.full(value.size(), 77, dtype=value.dtype)
    return "not loaded"


def assert_same(loaded, saved):
    if isinstance(saved, dict):
        assert loaded.keys() == saved.keys()
        for key in saved:
            assert_same(loaded[key], saved[key])
    elif isinstance(saved, list):
        assert len(loaded) == len(saved)
        for one, other in zip(loaded, saved, strict=True):
            assert_same(one, other)
    elif isinstance(saved, torch.Tensor):
        assert loaded.dtype == saved.dtype
        assert torch.equal(loaded, saved)
    else:
        assert loaded == saved


def writer(uri=URI, **arguments):
    return S3StorageWriter("us-east-1", uri, S3ClientConfig(part_size=5 * MIB), **arguments)


def reader(uri=URI, **arguments):
    return S3StorageReader("us-east-1", uri, S3ClientConfig(part_size=5 * MIB), **arguments)


def load(into, uri=URI, planner=None, **arguments):
    dcp.load(into, storage_reader=reader(uri, **arguments), planner=planner)
    return into


@contextlib.contextmanager
def fails(kind, match):
    """torch gathers what went wrong on each rank in an exception of its own."""
    with pytest.raises(CheckpointException) as caught:
        yield
    error, _ = caught.value.failures[0]
    assert isinstance(error, kind)
    text = "\n".join([str(error), *getattr(error, "__notes__", ())])
    assert re.search(match, text), text


# -- Save and load -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"thread_count": 3},
        {"thread_count": 40},
        {"single_file_per_rank": False},
        {"prefix_strategy": HexPrefixStrategy(epoch_num=2)},
    ],
    ids=["plain", "three objects", "more objects than items", "an object each", "prefixes"],
)
def test_what_is_saved_is_loaded(s3, options):
    saved = state()
    dcp.save(saved, storage_writer=writer(**options))
    assert_same(load(emptied(saved)), saved)


def test_there_are_the_objects_that_torch_would_write(s3):
    dcp.save(state(), storage_writer=writer())
    assert names() == [".metadata", "__0_0.distcp"]
    dcp.save(state(), storage_writer=writer(f"{URI}b", thread_count=20))
    assert names(f"{URI}b") == sorted([".metadata", *(f"__0_{number}.distcp" for number in range(20))])
    dcp.save(state(), storage_writer=writer(f"{URI}c", prefix_strategy=HexPrefixStrategy(epoch_num=2)))
    assert names(f"{URI}c") == [".metadata", "0000000000/epoch_2/__0_0.distcp"]


def test_items_are_what_torch_would_write_byte_for_byte(s3, tmp_path):
    saved = state()
    dcp.save(saved, storage_writer=writer())
    dcp.save(saved, storage_writer=dcp.FileSystemWriter(tmp_path))
    ours, theirs = metadata(), pickle.loads((tmp_path / ".metadata").read_bytes())
    assert ours.state_dict_metadata == theirs.state_dict_metadata
    assert ours.storage_data.keys() == theirs.storage_data.keys()
    data = S3Client().get_object(BUCKET, "run/step-1/__0_0.distcp").read()
    file = (tmp_path / "__0_0.distcp").read_bytes()
    for index, info in ours.storage_data.items():
        other = theirs.storage_data[index]
        assert data[info.offset :][: info.length] == file[other.offset :][: other.length], index


def metadata(uri=URI):
    return pickle.loads(S3Client().get_object(BUCKET, uri.removeprefix(f"s3://{BUCKET}/") + "/.metadata").read())


def test_the_metadata_say_what_is_saved_and_where(s3):
    dcp.save(state(), storage_writer=writer())
    found = metadata()
    assert found.storage_meta.checkpoint_id == URI
    if hasattr(filesystem, "CURRENT_DCP_VERSION"):
        assert found.version == filesystem.CURRENT_DCP_VERSION
    assert {info.relative_path for info in found.storage_data.values()} == {"__0_0.distcp"}


def test_another_place_by_checkpoint_id(s3):
    storage, saved = writer("s3://models/elsewhere"), state()
    dcp.save(saved, storage_writer=storage, checkpoint_id=URI)
    assert storage.checkpoint_id == URI
    assert keys("elsewhere") == []
    into, loads = emptied(saved), reader("s3://models/elsewhere")
    dcp.load(into, storage_reader=loads, checkpoint_id=URI)
    assert_same(into, saved)


def test_a_bucket_alone_and_a_slash_at_the_end_are_places(s3):
    saved = {"a": torch.arange(5)}
    for uri in (f"s3://{BUCKET}", f"{URI}/", Path(URI)):
        dcp.save(saved, storage_writer=writer(uri))
        assert_same(load(emptied(saved), uri), saved)
    assert keys() == [".metadata", "__0_0.distcp", "run/step-1/.metadata", *keys("run/step-1/__0_0")]


def test_a_model_and_its_optimizer_go_on_where_they_were(s3):
    def trained(steps):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(300, 400), torch.nn.ReLU(), torch.nn.Linear(400, 3))
        optimizer = torch.optim.AdamW(model.parameters())
        for _ in range(steps):
            model(torch.ones(2, 300)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        return model, optimizer

    def step(model, optimizer):
        model(torch.ones(2, 300)).sum().backward()
        optimizer.step()
        return model.state_dict()

    model, optimizer = trained(3)
    dcp.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, storage_writer=writer())
    other, other_optimizer = trained(1)
    into = {"model": other.state_dict(), "optimizer": other_optimizer.state_dict()}
    load(into)
    other.load_state_dict(into["model"])
    other_optimizer.load_state_dict(into["optimizer"])
    assert_same(dict(step(other, other_optimizer)), dict(step(model, optimizer)))


def test_statefuls_are_asked_and_told(s3):
    model = torch.nn.Linear(300, 300)
    dcp.save({"model": model}, storage_writer=writer())
    other = torch.nn.Linear(300, 300)
    load({"model": other})
    assert_same(dict(other.state_dict()), dict(model.state_dict()))


# -- Memory ------------------------------------------------------------------------------------------------------------


def test_a_large_tensor_arrives_in_place(s3, monkeypatch):
    """Without a buffer: the memory asked for is the tensor's."""
    from s3dataset.dcp import _items

    saved = {"a": torch.randn(MIB), "b": torch.randn(2 * MIB)}
    dcp.save(saved, storage_writer=writer())
    taken = []
    allocate = _items.allocate
    monkeypatch.setattr(_items, "allocate", lambda nbytes: taken.append(nbytes) or allocate(nbytes))
    into = emptied(saved)
    addresses = {key: tensor.data_ptr() for key, tensor in into.items()}
    load(into)
    assert_same(into, saved)
    assert {key: tensor.data_ptr() for key, tensor in into.items()} == addresses
    assert taken == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(400, 300, dtype=torch.float64),
        lambda: torch.zeros(300, 400).t(),
        lambda: torch.zeros(400, 600)[:, ::2],
        lambda: torch.zeros(400, 300).as_subclass(Odd),
        lambda: torch.zeros(400, 300).requires_grad_(),
        lambda: torch.zeros(500, 300)[50:450],
    ],
    ids=["another type", "transposed", "with gaps", "a subclass", "with a gradient", "rows of another"],
)
def test_a_tensor_that_lies_otherwise_is_filled_all_the_same(s3, make):
    saved = torch.randn(400, 300)
    dcp.save({"a": saved}, storage_writer=writer())
    into = make()
    strides, base = into.stride(), into
    load({"a": into})
    assert torch.equal(into.detach().float().as_subclass(torch.Tensor), saved)
    assert (base.stride(), base.dtype) == (strides, into.dtype)


def test_memory_that_changes_after_the_save_is_of_no_matter(s3):
    saved = {"a": torch.randn(3 * MIB), "b": torch.randn(5)}
    kept = {key: tensor.clone() for key, tensor in saved.items()}
    s3.add_fault(Fault.delay(0.2, operation="UploadPart", times=2), Fault.reset(operation="UploadPart", after=1))
    dcp.save(saved, storage_writer=writer())
    for tensor in saved.values():
        tensor.zero_()
    assert_same(load(emptied(kept)), kept)


# -- What is read ------------------------------------------------------------------------------------------------------


def bytes_read(s3):
    return sum(record.bytes_out for record in s3.requests("GetObject") if not record.key.endswith(".metadata"))


def test_a_part_of_a_checkpoint_reads_that_part(s3):
    model = {f"layer {number}": torch.randn(300, 300) for number in range(10)}
    moments = {f"moment {number}": torch.randn(600, 300) for number in range(10)}
    dcp.save({"optimizer": moments, "model": model}, storage_writer=writer())
    s3.reset_stats()
    into = {"model": emptied(model)}
    load(into)
    assert_same(into["model"], model)
    assert bytes_read(s3) <= 1.05 * sum(tensor.nbytes for tensor in model.values())


def test_a_checkpoint_is_read_with_few_requests(s3):
    saved = {f"layer {number}": torch.randn(30, 30) for number in range(100)}
    dcp.save(saved, storage_writer=writer())
    s3.reset_stats()
    load(emptied(saved))
    assert s3.stats()["operations"] == {"GetObject": 2}


class Part(DefaultLoadPlanner):
    """Loads rows [first, last) of "a", into two destinations that overlap by `shared` rows if there are two."""

    def __init__(self, *spans, column=0):
        super().__init__()
        self.spans, self.column = spans, column

    def create_local_plan(self):
        plan = super().create_local_plan()
        (item,) = plan.items
        items = []
        for number, (first, last) in enumerate(self.spans):
            size = item.lengths
            offsets = torch.Size([first, self.column])
            lengths = torch.Size([last - first, size[1] - self.column])
            items.append(
                type(item)(
                    type=item.type,
                    dest_index=type(item.dest_index)(str(number)),
                    dest_offsets=torch.Size([0, 0]),
                    storage_index=item.storage_index,
                    storage_offsets=offsets,
                    lengths=lengths,
                )
            )
        return type(plan)(items, plan.storage_data, plan.planner_data)

    def resolve_tensor(self, read_item):
        self.loaded = getattr(self, "loaded", {})
        return self.loaded.setdefault(read_item.dest_index.fqn, torch.full(read_item.lengths, 77.0))

    def commit_tensor(self, read_item, tensor):
        assert self.loaded[read_item.dest_index.fqn] is tensor or torch.equal(
            self.loaded[read_item.dest_index.fqn], tensor
        )


@pytest.mark.parametrize(
    ("spans", "column", "most"),
    [
        ([(100, 200)], 0, 0.11),
        ([(0, 100), (900, 1000)], 0, 0.21),
        ([(100, 300), (200, 400)], 0, 0.31),
        ([(100, 100)], 0, 0.01),
        ([(100, 200)], 299, 0.11),
        ([(0, 1000)], 299, 1.01),
    ],
    ids=["some rows", "two destinations", "that overlap", "none", "a column of some rows", "a column"],
)
def test_rows_of_a_tensor_are_read_alone(s3, spans, column, most):
    saved = torch.randn(1000, 300)
    dcp.save({"a": saved}, storage_writer=writer())
    s3.reset_stats()
    planner = Part(*spans, column=column)
    load({"a": torch.zeros(1000, 300)}, planner=planner)
    for number, (first, last) in enumerate(spans):
        assert torch.equal(planner.loaded[str(number)], saved[first:last, column:])
    assert bytes_read(s3) <= most * saved.nbytes


def test_gaps_are_read_along_only_up_to_what_was_allowed(s3):
    saved = {f"layer {number:02}": torch.randn(100, 300 if number % 2 else 1) for number in range(40)}
    dcp.save(saved, storage_writer=writer())
    wanted = {key: torch.zeros_like(tensor) for key, tensor in saved.items() if tensor.size(1) == 300}

    def requests(**arguments):
        s3.reset_stats()
        load(dict(wanted), **arguments)
        assert_same(wanted, {key: saved[key] for key in wanted})
        assert bytes_read(s3) <= 1.05 * nbytes
        return s3.stats()["operations"]["GetObject"] - 1

    nbytes = sum(info.length for index, info in metadata().storage_data.items() if index.fqn in wanted)
    assert requests() == 1
    assert requests(reader_constructor=S3ReaderConstructor.dcp_optimized(0)) == 20


@pytest.mark.parametrize("kind", ["sequential", "range_based", "dcp_optimized", "default"])
def test_every_reader_constructor_serves(s3, kind):
    saved = state()
    dcp.save(saved, storage_writer=writer())
    assert_same(load(emptied(saved), reader_constructor=getattr(S3ReaderConstructor, kind)()), saved)


def test_a_reader_constructor_of_ones_own_reads_everything(s3):
    opened = []

    def own(bucket, key, get_object_info, get_stream):
        opened.append(key)
        return S3ReaderConstructor.sequential()(bucket, key, get_object_info, get_stream)

    saved = state()
    dcp.save(saved, storage_writer=writer())
    assert_same(load(emptied(saved), reader_constructor=own), saved)
    assert opened == ["run/step-1/.metadata", "run/step-1/__0_0.distcp"]


# -- Items that are laid out otherwise ---------------------------------------------------------------------------------


def test_items_of_another_torch_are_looked_at_first(s3, monkeypatch):
    """As if none of them had the length that this torch would give it."""
    from s3dataset.dcp import _items

    saved = state()
    dcp.save(saved, storage_writer=writer())
    monkeypatch.setattr(_items, "expected", lambda dtype, size: None)
    assert_same(load(emptied(saved)), saved)
    s3.reset_stats()
    planner = Part((100, 200))
    dcp.save({"a": torch.arange(300_000.0).view(1000, 300)}, storage_writer=writer(f"{URI}b"))
    s3.reset_stats()
    load({"a": torch.zeros(1000, 300)}, f"{URI}b", planner=planner)
    assert planner.loaded["0"][0, 0] == 30_000
    assert bytes_read(s3) < 0.12 * 1_200_000


@pytest.mark.skipif(not Skeleton.is_possible(), reason="torch < 2.6 guesses nothing")
def test_a_wrong_guess_is_found_out(s3, monkeypatch):
    """An item that has the length that this torch would give it, and its elements elsewhere."""
    from s3dataset.dcp import _items

    saved = state()
    dcp.save(saved, storage_writer=writer())

    def elsewhere(dtype, size):
        stored, length = expected(dtype, size)
        return type(stored)(dtype, stored.start + 64, stored.nbytes - 64, 0, stored.size, stored.strides), length

    monkeypatch.setattr(_items, "expected", elsewhere)
    assert_same(load(emptied(saved)), saved)


@pytest.mark.skipif(not hasattr(filesystem, "_StorageWriterTransforms"), reason="this torch has no extensions")
def test_extensions_transform_what_is_saved(s3):
    from torch.distributed.checkpoint._extension import ExtensionRegistry, StreamTransformExtension

    class Deflating(io.RawIOBase):
        def __init__(self, out):
            self.out, self.work = out, zlib.compressobj()

        def writable(self):
            return True

        def write(self, data):
            self.out.write(self.work.compress(bytes(data)))
            return memoryview(data).nbytes

        def flush(self):
            pass

        def close(self):
            if not self.closed:
                self.out.write(self.work.flush())
                self.out.close()
                super().close()

    class Deflate(StreamTransformExtension):
        @staticmethod
        def registry_name():
            return "deflate"

        @staticmethod
        def from_descriptor(version):
            return Deflate()

        def get_descriptor(self):
            return "deflate/1"

        def transform_to(self, output):
            return Deflating(output)

        def transform_from(self, source):
            return io.BytesIO(zlib.decompress(source.read()))

    saved = {"a": torch.zeros(100_000), "b": torch.randn(5), "step": 3}
    dcp.save(saved, storage_writer=writer(_extensions=[Deflate()]))
    assert S3Client().head_object(BUCKET, "run/step-1/__0_0.distcp").size < 20_000
    registry = ExtensionRegistry()
    registry.extensions = {"deflate": Deflate}
    assert_same(load(emptied(saved), _extension_registry=registry), saved)


# -- An existing checkpoint --------------------------------------------------------------------------------------------


def test_a_save_over_a_checkpoint_leaves_its_own_objects_alone(s3):
    for seed in range(3):
        saved = state(seed)
        dcp.save(saved, storage_writer=writer(thread_count=3))
        assert len(names()) == 4
        assert_same(load(emptied(saved)), saved)


def test_no_object_of_the_checkpoint_is_ever_written_again(s3):
    dcp.save(state(), storage_writer=writer())
    s3.reset_stats()
    dcp.save(state(1), storage_writer=writer(thread_count=2))
    written = {record.key for record in s3.requests() if record.method in ("PUT", "POST") and record.key}
    assert "run/step-1/__0_0.distcp" not in written
    assert len([key for key in written if key.endswith(".distcp")]) == 2


def test_overwrite_false_refuses(s3):
    dcp.save({"a": torch.zeros(3)}, storage_writer=writer(overwrite=False))
    before = names()
    with fails(RuntimeError, "Checkpoint already exists and self.overwrite=False"):
        dcp.save({"a": torch.ones(3)}, storage_writer=writer(overwrite=False))
    assert names() == before
    assert_same(load({"a": torch.ones(3)}), {"a": torch.zeros(3)})


def test_what_failed_saves_have_left_goes_away(s3):
    s3.put(BUCKET, "run/step-1/__0_0.distcp", b"half")
    s3.put(BUCKET, "run/step-1/__7_3-0123456789ab.distcp", b"half")
    s3.put(BUCKET, "run/step-1/notes.txt", b"the user's")
    s3.put(BUCKET, "run/step-1/step-2/__0_0.distcp", b"of another checkpoint")
    s3.put(BUCKET, "run/step-10/__0_0.distcp", b"of another checkpoint")
    saved = state()
    dcp.save(saved, storage_writer=writer())
    found = names()
    assert len(found) == 4
    assert {".metadata", "notes.txt", "step-2/__0_0.distcp"} < set(found)
    assert keys("run/step-10/") == ["run/step-10/__0_0.distcp"]
    assert_same(load(emptied(saved)), saved)


def test_a_checkpoint_with_other_prefixes_is_replaced_whole(s3):
    strategies = [None, HexPrefixStrategy(epoch_num=1), HexPrefixStrategy(epoch_num=2), None]
    for seed, strategy in enumerate(strategies):
        saved = state(seed)
        dcp.save(saved, storage_writer=writer(prefix_strategy=strategy, thread_count=2))
        assert len(names()) == 3
        assert_same(load(emptied(saved)), saved)


@pytest.mark.skipif("enable_plan_caching" not in DefaultSavePlanner.__init__.__annotations__, reason="an older torch")
def test_planners_that_keep_their_plans_write_no_object_again(s3):
    planner = DefaultSavePlanner(enable_plan_caching=True)
    try:
        for seed in range(3):
            saved = {"a": torch.full((5,), float(seed)), "b": torch.randn(100)}
            dcp.save(saved, storage_writer=writer(), planner=planner)
            assert_same(load(emptied(saved)), saved)
            assert len(names()) == 2
    finally:
        for name in ("_cached_save_plan", "_cached_final_save_plan", "_cached_all_plans", "_cached_global_plan"):
            getattr(DefaultSavePlanner, name).clear()
        DefaultSavePlanner._cached_metadata.clear()


class Meanwhile(DefaultSavePlanner):
    """Does something while a save is under way."""

    def __init__(self, act):
        super().__init__()
        self.act = act

    def finish_plan(self, new_plan):
        act, self.act = self.act, None
        if act is not None:
            act()
        return super().finish_plan(new_plan)


@pytest.mark.parametrize("fresh", [True, False])
def test_of_two_saves_at_once_one_is_told(s3, fresh):
    winner, loser = state(1), state(2)
    if not fresh:
        dcp.save(state(0), storage_writer=writer())
    planner = Meanwhile(lambda: dcp.save(winner, storage_writer=writer()))
    with fails(PreconditionFailedError, "written by somebody else since this save began"):
        dcp.save(loser, storage_writer=writer(), planner=planner)
    assert_same(load(emptied(winner)), winner)
    dcp.save(loser, storage_writer=writer())
    assert_same(load(emptied(loser)), loser)
    assert len(names()) == 2


@pytest.mark.parametrize("variant", ["b2", "gcs", "r2", "minio"])
def test_other_stores_serve_too(variant):
    with LocalS3(BUCKET, variant=variant):
        for seed in range(2):
            saved = state(seed)
            dcp.save(saved, storage_writer=writer(thread_count=2))
            assert_same(load(emptied(saved)), saved)
            assert len(names()) == 3


# -- Errors ------------------------------------------------------------------------------------------------------------


def test_no_checkpoint_there(s3):
    with fails((ObjectNotFoundError, AssertionError), r"The key does not exist: s3://models/run/step-1/\.metadata"):
        load({"a": torch.zeros(3)})


def test_an_object_that_is_missing_is_named(s3):
    dcp.save(state(), storage_writer=writer())
    S3Client().delete_object(BUCKET, "run/step-1/__0_0.distcp")
    with fails(ObjectNotFoundError, r"__0_0\.distcp(.|\n)*not copied whole"):
        load(emptied(state()))


class Between(DefaultLoadPlanner):
    """Does something between planning and reading."""

    def __init__(self, act):
        super().__init__()
        self.act = act

    def finish_plan(self, central_plan):
        self.act()
        return super().finish_plan(central_plan)


def test_a_checkpoint_that_is_replaced_while_it_is_loaded_is_an_error(s3):
    dcp.save(state(), storage_writer=writer())
    planner = Between(lambda: dcp.save(state(1), storage_writer=writer()))
    with fails(ObjectChangedError, "replaced by another save"):
        load(emptied(state()), planner=planner)


def test_ranks_that_begin_with_different_checkpoints_load_neither(s3):
    dcp.save({"a": torch.zeros(3)}, storage_writer=S3StorageWriter("us-east-1", URI))
    readers = [S3StorageReader("us-east-1", URI) for _ in range(2)]
    plans = []
    for reader in readers:
        metadata = reader.read_metadata()
        planner = DefaultLoadPlanner()
        planner.set_up_planner({"a": torch.empty(3)}, metadata, is_coordinator=not plans)
        reader.set_up_storage_reader(metadata, is_coordinator=not plans)
        plans.append(reader.prepare_local_plan(planner.create_local_plan()))
        dcp.save({"a": torch.ones(3)}, storage_writer=S3StorageWriter("us-east-1", URI))
    assert readers[0].prepare_global_plan(plans[:1]) == plans[:1]
    with pytest.raises(ObjectChangedError, match="while the ranks began to load it"):
        readers[0].prepare_global_plan(plans)


def test_a_rank_without_items_writes_no_objects(s3):
    """Such as one whose tensors other ranks write too."""
    dcp.save({}, storage_writer=S3StorageWriter("us-east-1", URI, single_file_per_rank=False))
    assert len(keys()) == 1


def test_an_object_that_is_replaced_while_it_is_loaded_is_an_error(s3):
    saved = {f"{number}": torch.randn(2 * MIB) for number in range(4)}
    dcp.save(saved, storage_writer=writer())
    s3.add_fault(Fault.replace(operation="GetObject", key="*.distcp", after=2))
    with fails(ObjectChangedError, "__0_0.distcp"):
        load(emptied(saved))


def test_an_object_that_is_too_short_is_an_error(s3):
    saved = {"a": torch.randn(MIB)}
    dcp.save(saved, storage_writer=writer())
    s3.put(BUCKET, "run/step-1/__0_0.distcp", b"PK" + bytes(1000))
    with fails(S3Exception, r"__0_0\.distcp"):
        load(emptied(saved))


def test_items_that_are_broken_are_named(s3):
    saved = {"weight": torch.randn(MIB), "bias": torch.randn(3)}
    dcp.save(saved, storage_writer=writer())
    s3.put(BUCKET, "run/step-1/__0_0.distcp", bytes(8 * MIB))
    with fails(S3Exception, "(weight|bias) cannot be read from bytes"):
        load(emptied(saved))


@pytest.mark.skipif(not Skeleton.is_possible(), reason="torch 2.4 loads what there is")
def test_another_size_is_an_error(s3):
    dcp.save({"a": torch.zeros(1000, 300)}, storage_writer=writer())
    with fails((ValueError, RuntimeError), "[Ss]ize"):
        load({"a": torch.zeros(1000, 200)})


def test_bad_arguments(s3):
    for make in (S3StorageWriter, S3StorageReader):
        with pytest.raises(InvalidUriError, match="/tmp/x"):
            make("us-east-1", "/tmp/x")
        with pytest.raises(InvalidConfigError, match="nonsense"):
            make("us-east-1", URI, endpoint="nonsense")
    for count in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="thread_count"):
            writer(thread_count=count)


def test_the_endpoint_given_is_used(s3, monkeypatch):
    endpoint = s3.endpoint
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    saved = {"a": torch.arange(3)}
    dcp.save(saved, storage_writer=S3StorageWriter("us-east-1", URI, endpoint=endpoint))
    into = emptied(saved)
    dcp.load(into, storage_reader=S3StorageReader("us-east-1", URI, endpoint=endpoint))
    assert_same(into, saved)
    assert S3FileSystem("us-east-1", endpoint=endpoint).exists(f"{URI}/.metadata")


# -- Asynchronous ------------------------------------------------------------------------------------------------------


def test_async_save_in_a_thread(s3):
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        saved = state()
        kept = pickle.loads(pickle.dumps({key: saved[key] for key in ("large", "small", "step")}))
        s3.add_fault(Fault.delay(0.2, operation="PutObject", times=2))
        future = dcp.async_save({key: saved[key] for key in kept}, storage_writer=writer())
        saved["large"].zero_()
        saved["small"].zero_()
        future.result()
        assert_same(load(emptied(kept)), kept)
        assert threading.active_count() < 50
    finally:
        torch.distributed.destroy_process_group()


def test_writers_and_readers_pickle(s3):
    saved = state()
    dcp.save(saved, storage_writer=pickle.loads(pickle.dumps(writer(thread_count=2))))
    into = emptied(saved)
    dcp.load(into, storage_reader=pickle.loads(pickle.dumps(reader())))
    assert_same(into, saved)
