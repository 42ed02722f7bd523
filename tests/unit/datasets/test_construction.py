"""What constructors check, what they leave for later, and what a pickle carries."""

import copy
import io
import multiprocessing.context
import pickle
from typing import Any

import pytest
import torch.distributed

import s3dataset
from s3dataset import S3Checkpoint, S3IterableDataset, S3MapDataset, S3ReaderConstructor, Split
from s3dataset.errors import InvalidConfigError, InvalidUriError
from s3dataset.transforms import Bytes, Text

BOTH: Any = [S3MapDataset, S3IterableDataset]


def first_line(reader: s3dataset.S3Reader) -> str:
    return reader.readline().decode()


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("uri", ["/tmp/images", "https://bucket/images", "s3://", "s3:///images", ""])
def test_what_is_no_uri_is_refused_at_once_and_quoted(kind: Any, uri: str) -> None:
    for make in (kind.from_prefix, kind.from_objects):
        with pytest.raises(InvalidUriError) as caught:
            make(uri)
        assert repr(uri) in str(caught.value)
    with pytest.raises(ValueError, match="key"):
        kind.from_objects(["s3://bucket/a", "s3://bucket/"])


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("uris", [None, 5, b"s3://bucket/key", [5], [b"s3://bucket/key"], [None]])
def test_what_is_no_text_is_refused_at_once_and_quoted(kind: Any, uris: Any) -> None:
    with pytest.raises(TypeError, match="URI") as caught:
        kind.from_objects(uris)
    assert repr(uris[0] if isinstance(uris, list) else uris) in str(caught.value)


@pytest.mark.parametrize("make", [S3MapDataset.from_prefix, S3Checkpoint, s3dataset.S3Client])
def test_connections_are_checked_at_once(make: Any) -> None:
    arguments = ("s3://bucket/",) if make == S3MapDataset.from_prefix else ()
    with pytest.raises(TypeError, match="region must be a str, not int: 5"):
        make(*arguments, region=5)
    with pytest.raises(TypeError, match="endpoint must be a str, not bytes"):
        make(*arguments, region="us-east-1", endpoint=b"http://host")
    with pytest.raises(TypeError, match="s3client_config must be an S3ClientConfig, not dict"):
        make(*arguments, region="us-east-1", s3client_config={"max_attempts": 3})
    with pytest.raises(InvalidConfigError, match="write 'https://host' or 'http://host:port'"):
        make(*arguments, region="us-east-1", endpoint="localhost:9000")


@pytest.mark.parametrize("kind", BOTH)
def test_arguments_are_checked_at_once(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"\["):
        kind.from_prefix("s3://bucket/", pattern="shard-[0-9.tar")
    with pytest.raises(TypeError, match="transform must be callable"):
        kind.from_prefix("s3://bucket/", transform=3)
    with pytest.raises(TypeError, match="reader_constructor"):
        kind.from_prefix("s3://bucket/", reader_constructor="sequential")
    for uncalled in (S3ReaderConstructor, S3ReaderConstructor.range_based):
        with pytest.raises(TypeError, match=r"S3ReaderConstructor.*: pass what"):
            kind.from_prefix("s3://bucket/", reader_constructor=uncalled)
    with pytest.raises(TypeError, match="S3ClientConfig"):
        kind.from_prefix("s3://bucket/", s3client_config={"part_size": 1})
    with pytest.raises(ValueError, match="endpoint"):
        kind.from_prefix("s3://bucket/", endpoint="localhost")
    with pytest.raises(TypeError, match="manifest must be a Manifest"):
        kind.from_manifest(["s3://bucket/a"])
    with pytest.raises(ValueError, match="did you mean 'tar'"):
        kind.from_prefix("s3://bucket/", format="tarr")
    with pytest.raises(ValueError, match="on_error must be one of"):
        kind.from_prefix("s3://bucket/", on_error="ignore")


def test_arguments_of_streams_are_checked_at_once() -> None:
    with pytest.raises(TypeError, match="enable_sharding must be"):
        S3IterableDataset.from_prefix("s3://bucket/", enable_sharding="ranks")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="batch_size"):
        S3IterableDataset.from_prefix("s3://bucket/", batch_size=0)
    with pytest.raises(TypeError, match=r"batch_size must be an integer, got 2\.5"):
        S3IterableDataset.from_prefix("s3://bucket/", batch_size=2.5)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="seed must be an integer"):
        s3dataset.MixedDataset([S3IterableDataset.from_prefix("s3://bucket/")], [1], seed=1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("state", [None, 3, "state", []])
def test_what_is_no_state_is_told_apart(kind: Any, state: Any) -> None:
    loader: Any = s3dataset.DataLoader(kind.from_prefix("s3://bucket/"))
    with pytest.raises(ValueError, match="this is no state of s3dataset"):
        loader.load_state_dict(state)


def test_sharding_may_be_said_by_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    uris = [f"s3://b/{i}" for i in range(6)]
    lengths = [len(S3IterableDataset.from_objects(uris, enable_sharding=flag)) for flag in (0, 1)]
    assert lengths == [6, 3]


@pytest.mark.parametrize("kind", BOTH)
def test_construction_and_repr_need_no_network(kind: Any) -> None:
    dataset = kind.from_prefix("s3://no-such-bucket/images/", region="eu-central-1", pattern="*.jpg")
    assert dataset.region == "eu-central-1"
    assert dataset.endpoint is None
    assert repr(dataset) == f"<{kind.__name__} of s3://no-such-bucket/images/ with pattern '*.jpg' (not listed yet)>"
    assert "(2 objects)" in repr(kind.from_objects(["s3://b/1", "s3://b/2"]))


@pytest.mark.parametrize("kind", BOTH)
def test_an_iterable_of_uris_is_consumed_at_once(kind: Any) -> None:
    dataset = kind.from_objects(f"s3://b/{i}" for i in range(3))
    assert len(dataset) == 3
    assert len(pickle.loads(pickle.dumps(dataset))) == 3
    assert len(kind.from_objects("s3://b/only")) == 1


def test_a_text_index_is_a_key_or_a_uri_and_close_ones_are_named() -> None:
    dataset = S3MapDataset.from_objects(["s3://b/cats/1.png", "s3://b/cats/2.png", "s3://b/dogs/1.png"])
    assert dataset["s3://b/cats/2.png"].key == "cats/2.png"
    assert dataset["dogs/1.png"].uri == "s3://b/dogs/1.png"
    with pytest.raises(KeyError, match=r"cats/2\.png"):
        dataset["cats/3.png"]
    with pytest.raises(KeyError):
        dataset["s3://other/cats/1.png"]


def test_numbers_count_from_both_ends() -> None:
    dataset = S3MapDataset.from_objects([f"s3://b/{i}" for i in range(5)], transform=lambda reader: reader.key)
    assert (dataset[0], dataset[-1], dataset[4]) == ("0", "4", "4")
    assert dataset[torch.tensor(3)] == "3"
    for index in (5, -6):
        with pytest.raises(IndexError, match=str(index)):
            dataset[index]
    with pytest.raises(IndexError, match="5"):
        dataset.__getitems__([0, 5])
    with pytest.raises(TypeError):
        dataset[1.5]  # type: ignore[index]


def test_a_derived_class_may_count_otherwise() -> None:
    class Few(S3MapDataset[Any]):
        def __len__(self) -> int:
            return 2

    dataset = Few.from_objects([f"s3://b/{i}" for i in range(5)], transform=lambda reader: reader.key)
    assert (len(dataset), dataset[4], dataset[-1]) == (2, "4", "4")


class Lines(S3IterableDataset[Any]):
    """Makes any number of samples of an object."""

    def __iter__(self) -> Any:
        for reader in super().__iter__():
            yield from reader


class CountedLines(Lines):
    def __len__(self) -> int:
        return 2 * super().__len__()


def test_nobody_counts_what_a_derived_class_makes() -> None:
    uris = [f"s3://b/{i}" for i in range(5)]
    assert len(CountedLines.from_objects(uris)) == 10
    lines = Lines.from_objects(uris)
    for loader in (torch.utils.data.DataLoader, s3dataset.DataLoader):
        with pytest.raises(TypeError, match=r"has no len\(\)"):
            len(loader(lines, batch_size=2))  # type: ignore[operator]
        assert len(loader(CountedLines.from_objects(uris), batch_size=2)) == 5  # type: ignore[operator]


def test_a_stream_is_true_without_being_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for dataset in (S3IterableDataset.from_prefix("s3://b/"), Lines.from_objects([])):
        assert dataset


@pytest.mark.parametrize("kind", BOTH)
def test_pickles_carry_options(kind: Any) -> None:
    dataset = kind.from_objects(
        ["s3://b/1"], region="eu-west-1", endpoint="http://localhost:1", transform=Text("latin-1")
    )
    twin = pickle.loads(pickle.dumps(dataset))
    assert (twin.region, twin.endpoint, repr(twin)) == (dataset.region, dataset.endpoint, repr(dataset))
    assert b"latin-1" in pickle.dumps(dataset)
    pickle.dumps(kind.from_prefix("s3://b/", transform=first_line))
    with pytest.raises(pickle.PicklingError, match=r"transform=.*test_pickles_carry_options.*<lambda>"):
        pickle.dumps(kind.from_prefix("s3://b/", transform=lambda reader: reader))


@pytest.mark.parametrize("kind", BOTH)
def test_a_plain_pickle_says_nothing_about_the_rank(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    dataset = kind.from_objects(["s3://b/1"])
    assert pickle.loads(pickle.dumps(dataset))._parent_rank is None
    out = io.BytesIO()
    multiprocessing.context.set_spawning_popen(object())  # type: ignore[attr-defined]
    try:
        pickle.Pickler(out).dump(dataset)
    finally:
        multiprocessing.context.set_spawning_popen(None)  # type: ignore[attr-defined]
    parent = pickle.loads(out.getvalue())._parent_rank
    assert (parent.rank, parent.world_size) == (1, 2)


def test_a_deep_copy_shares_the_listing() -> None:
    transform = [Bytes()]
    dataset = S3MapDataset.from_objects(["s3://b/1"], transform=CallsFirst(transform))
    twin = copy.deepcopy(dataset)
    assert twin.manifest is dataset.manifest
    assert twin._maker._transform is not dataset._maker._transform


class CallsFirst:
    def __init__(self, transforms: list[Any]) -> None:
        self.transforms = transforms

    def __call__(self, reader: s3dataset.S3Reader) -> Any:
        return self.transforms[0](reader)


def test_a_transform_that_refers_to_its_dataset_pickles() -> None:
    transform = CallsFirst([])
    dataset = S3MapDataset.from_objects(["s3://b/1"], transform=transform)
    transform.transforms.append(dataset)
    assert len(pickle.loads(pickle.dumps(dataset))) == 1


def test_lengths_follow_ranks_and_tails(monkeypatch: pytest.MonkeyPatch) -> None:
    uris = [f"s3://b/{i}" for i in range(11)]

    def length(sharding: Any, batch_size: int | None = None) -> int:
        return len(S3IterableDataset.from_objects(uris, enable_sharding=sharding, batch_size=batch_size))

    assert length(None) == 11
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert length(False) == length(Split(ranks=False)) == 11
    assert length(True) == 4
    assert length(Split(tail="exact")) == 3
    assert length(Split(tail="drop")) == 3
    assert length(Split(tail="exact"), 4) == 3
    assert length(Split(tail="pad"), 4) == 4
    assert length(Split(tail="drop"), 4) == 0
    assert length(Split(steps_per_epoch=5), 4) == 20
    with pytest.raises(ValueError, match="batch_size="):
        length(Split(steps_per_epoch=5))
    with pytest.raises(ValueError, match="runs on 3 ranks"):
        length(None)


def test_arguments_of_loaders_are_checked() -> None:
    stream = S3IterableDataset.from_objects(["s3://b/1"], batch_size=4)
    objects = S3MapDataset.from_objects(["s3://b/1"])
    with pytest.raises(ValueError, match="made with batch_size=4 and the loader with 8"):
        s3dataset.DataLoader(stream, batch_size=8)
    with pytest.raises(ValueError, match=r"tail= only for a map dataset.*enable_sharding="):
        s3dataset.DataLoader(stream, batch_size=4, tail="pad")
    with pytest.raises(ValueError, match="seed=, split= only for"):
        s3dataset.DataLoader(objects, sampler=[0], seed=1, split=Split())
    with pytest.raises(ValueError, match="contradict"):
        s3dataset.DataLoader(objects, drop_last=True, tail="pad")
    with pytest.raises(TypeError, match="only datasets of s3dataset keep statistics"):
        s3dataset.DataLoader([1, 2]).stats()  # type: ignore[arg-type]


def test_other_datasets_and_all_of_pytorchs_arguments_work() -> None:
    numbers: Any = list(range(10))
    assert [batch.tolist() for batch in s3dataset.DataLoader(numbers, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [batch.tolist() for batch in s3dataset.DataLoader(numbers, 4, drop_last=True)] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
    ]
    assert list(s3dataset.DataLoader(numbers, batch_size=None)) == numbers
    generator = torch.Generator().manual_seed(7)
    loader: Any = s3dataset.DataLoader(
        numbers, 5, True, None, None, 0, list, False, False, 0, None, None, generator, prefetch_factor=None
    )
    assert sorted(i for batch in loader for i in batch) == numbers
    same: Any = s3dataset.DataLoader(numbers, 5, shuffle=True, seed=7, collate_fn=list)
    loader.set_epoch(3)
    same.set_epoch(3)
    assert list(loader) == list(same)
