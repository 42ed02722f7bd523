"""Samples whose content is broken: what `on_error` makes of them."""

import io
import json
import tarfile
import time
from collections.abc import Iterator
from typing import Any

import pytest

import s3dataset
from s3dataset._order import SampleOrder
from s3dataset.errors import DecodeError, ObjectNotFoundError
from s3dataset.testing import Fault, LocalS3

SHARDS, SAMPLES = 4, 25
EVERYTHING = list(range(SHARDS * SAMPLES))
GOOD = [n for n in EVERYTHING if n % 10 != 7]

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def tar_of(first: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for n in range(first, first + SAMPLES):
            for suffix, data in (("cls", str(n).encode()), ("bin", bytes(3000))):
                member = tarfile.TarInfo(f"{n:06}.{suffix}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def number(sample: Any) -> int:
    n = int(sample["cls"] if isinstance(sample, dict) else sample.read())
    if n % 10 == 7:
        raise DecodeError(f"{n} is bad")
    return n


def failing(sample: Any) -> int:
    raise ZeroDivisionError(sample["__key__"])


def skip_all(error: Exception, uri: str, place: int) -> Any:
    assert uri.startswith("s3://bucket/")
    return "skip" if place % 2 or "bad" in str(error) else "raise"


@pytest.fixture(scope="module")
def manifests() -> Iterator[dict[str, s3dataset.Manifest]]:
    with LocalS3("bucket"):
        client = s3dataset.S3Client()
        puts = [("bucket", f"tars/{k}.tar", tar_of(k * SAMPLES)) for k in range(SHARDS)]
        puts += [("bucket", f"objects/{n:03}", str(n).encode()) for n in EVERYTHING]
        client.put_many(puts)
        tars = s3dataset.Manifest.from_prefix("s3://bucket/tars/")
        objects = s3dataset.Manifest.from_prefix("s3://bucket/objects/")
        yield {"unindexed": tars, "indexed": tars.index("tar"), "objects": objects}


def stream(manifest: s3dataset.Manifest, **options: Any) -> s3dataset.S3IterableDataset[Any]:
    kind = "tar" if "tars/" in manifest.key(0) else None
    return s3dataset.S3IterableDataset.from_manifest(manifest, format=kind, **{"transform": number, **options})


def numbers(batches: Any) -> list[int]:
    return [int(n) for batch in batches for n in batch]


@pytest.mark.parametrize("kind", ["unindexed", "indexed", "objects"])
def test_unless_told_otherwise_the_first_one_raises(manifests: Any, kind: str) -> None:
    with pytest.raises(DecodeError, match="7 is bad") as raised:
        list(stream(manifests[kind]))
    assert "s3://bucket/" in "".join(raised.value.__notes__)


@pytest.mark.parametrize("kind", ["unindexed", "indexed", "objects"])
@pytest.mark.parametrize("workers", [0, 2])
def test_skipping_leaves_out_these_and_tells_which(manifests: Any, kind: str, workers: int) -> None:
    dataset = stream(manifests[kind], on_error="skip")
    loader = s3dataset.DataLoader(dataset, batch_size=8, num_workers=workers)
    assert sorted(numbers(loader)) == GOOD
    ledger = dataset.bad_samples()
    assert ledger.count == len(EVERYTHING) - len(GOOD)
    assert "7 is bad" in str(ledger)
    assert sorted(dataset) == GOOD


def test_bad_lines_have_their_numbers_with_an_index_and_without(manifests: Any) -> None:
    del manifests  # its server
    lines = ["{no json" if n in {0, 3, 7} else json.dumps({"cls": n}) for n in range(8)]
    s3dataset.S3Client().put_many([("bucket", "lines/0.jsonl", "\n".join(lines).encode())])
    listed = s3dataset.Manifest.from_prefix("s3://bucket/lines/")
    told: list[int] = []

    def skip(error: Exception, uri: str, place: int) -> Any:
        assert uri == "s3://bucket/lines/0.jsonl"
        assert f"line {place} " in str(error)
        told.append(place)
        return "skip"

    for manifest in (listed, listed.index("jsonl")):
        dataset = s3dataset.S3IterableDataset.from_manifest(manifest, format="jsonl", on_error=skip)
        assert [sample["cls"] for sample in dataset] == [1, 2, 4, 5, 6]
        assert [entry.offset for entry in dataset.bad_samples().entries] == [0, 3, 7]
    assert told == [0, 3, 7] * 2


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["unindexed", "indexed", "objects"])
def test_a_state_among_skipped_samples_is_exact(manifests: Any, kind: str, workers: int) -> None:
    def loader() -> s3dataset.DataLoader[Any]:
        dataset = stream(manifests[kind], on_error="skip", shuffle=True)
        return s3dataset.DataLoader(dataset, batch_size=8, num_workers=workers)

    first = loader()
    batches = iter(first)
    before = numbers(next(batches) for _ in range(5))
    state = first.state_dict()
    del batches
    second = loader()
    second.load_state_dict(state)
    assert sorted(before + numbers(second)) == GOOD


@pytest.mark.parametrize("kind", ["indexed", "objects"])
def test_replacing_keeps_the_batches_whole_and_is_the_same_every_time(manifests: Any, kind: str) -> None:
    def epoch(workers: int) -> list[list[int]]:
        dataset = stream(manifests[kind], on_error="replace", shuffle=s3dataset.Shuffle(streams=4))
        return [batch.tolist() for batch in s3dataset.DataLoader(dataset, batch_size=10, num_workers=workers)]

    batches = epoch(0)
    assert [len(batch) for batch in batches] == [10] * 10
    assert set(numbers(batches)) == set(GOOD)
    assert epoch(2) == batches


@pytest.mark.parametrize("block_bytes", [9 * 4096, 60 * 4096])
def test_the_replacement_comes_from_the_same_block(manifests: Any, block_bytes: int) -> None:
    shuffle = s3dataset.Shuffle(seed=2, streams=3, block_bytes=block_bytes)
    manifest = manifests["indexed"]
    whole = list(stream(manifest, transform=key_of, shuffle=shuffle))
    sizes = [manifest.size(shard) or 0 for shard in range(SHARDS)]
    row = SampleOrder([SAMPLES] * SHARDS, sizes, seed=2, epoch=0, block_bytes=block_bytes)
    block_of = {n: row.block(place).number for place, n in enumerate(row.take(range(len(row))))}
    assert len(set(block_of.values())) not in {1, SHARDS}
    for size in (1, 7):
        dataset = stream(manifest, shuffle=shuffle, on_error="replace", batch_size=size)
        plain = whole if size == 1 else list(stream(manifest, transform=key_of, shuffle=shuffle, batch_size=size))
        for wanted, got in zip(plain, dataset, strict=True):
            assert got == wanted if wanted % 10 != 7 else got % 10 != 7
            assert block_of[got] == block_of[wanted]


def key_of(sample: Any) -> int:
    return int(sample["cls"])


@pytest.mark.parametrize("kind", ["indexed", "objects"])
def test_a_map_dataset_replaces(manifests: Any, kind: str) -> None:
    dataset = s3dataset.S3MapDataset.from_manifest(manifests[kind], transform=number, on_error="replace")
    taken = dataset.__getitems__(EVERYTHING)
    assert [n for i, n in enumerate(taken) if i % 10 != 7] == GOOD
    assert dataset[7] == taken[7]
    assert list(dataset) == taken
    assert dataset.bad_samples().count >= 10
    with pytest.raises(ValueError, match="shorter than the indices"):
        s3dataset.S3MapDataset.from_manifest(manifests[kind], on_error="skip")


def test_a_function_decides(manifests: Any) -> None:
    assert sorted(stream(manifests["indexed"], on_error=skip_all)) == GOOD
    with pytest.raises(ValueError, match="on_error must return one of"):
        list(stream(manifests["indexed"], on_error=lambda *_: None))


def test_what_is_no_fault_of_the_content_raises(manifests: Any) -> None:
    for kind in ("indexed", "unindexed"):
        with pytest.raises(ZeroDivisionError):
            list(stream(manifests[kind], transform=failing, on_error="skip"))


def test_an_object_that_is_gone_is_left_out(manifests: Any) -> None:
    manifest = s3dataset.Manifest.from_objects([manifests["objects"].uri(0), "s3://bucket/gone"])
    dataset = stream(manifest, on_error="skip")
    assert list(dataset) == [0]
    assert "gone" in str(dataset.bad_samples())
    with pytest.raises(ObjectNotFoundError):
        list(stream(manifest))


def test_when_nothing_is_good_it_ends(manifests: Any) -> None:
    many = manifests["objects"] + manifests["objects"]
    with pytest.raises(DecodeError, match="always") as raised:
        list(stream(many, transform=always_bad, on_error="skip"))
    assert "100 samples in a row were bad" in "".join(raised.value.__notes__)


def always_bad(reader: Any) -> int:
    raise DecodeError("always")


def test_replacing_and_skipping_say_where_they_cannot(manifests: Any) -> None:
    with pytest.raises(ValueError, match="s3dataset index"):
        list(stream(manifests["unindexed"], on_error="replace"))
    split = s3dataset.Split(rank=0, world_size=2)
    with pytest.raises(ValueError, match="differ"):
        list(stream(manifests["indexed"], on_error="skip", enable_sharding=split))


def test_denied_access_is_not_skipped() -> None:
    with LocalS3("bucket", faults=[Fault.status(403, code="AccessDenied", times=None, key="objects/1")]):
        s3dataset.S3Client().put_many([("bucket", "objects/0", b"0")])
        manifest = s3dataset.Manifest.from_objects(["s3://bucket/objects/0", "s3://bucket/objects/1"])
        with pytest.raises(s3dataset.AccessDeniedError):
            list(stream(manifest, on_error="skip"))


@pytest.mark.parametrize("kind", ["unindexed", "indexed", "objects"])
@pytest.mark.parametrize("on_error", ["skip", "replace"])
def test_statistics_count_what_was_handed_over_and_the_time_of_all(manifests: Any, kind: str, on_error: str) -> None:
    if (kind, on_error) == ("unindexed", "replace"):
        pytest.skip("what has no numbers has no neighbours")

    def slowly(sample: Any) -> int:
        began = time.perf_counter()
        try:
            time.sleep(0.002)
            return number(sample)
        finally:
            spent.append(time.perf_counter() - began)

    spent: list[float] = []
    dataset = stream(manifests[kind], transform=slowly, on_error=on_error)
    handed_over = len(list(dataset))
    stats = dataset.stats()
    assert handed_over == len(GOOD if on_error == "skip" else EVERYTHING)
    assert stats.samples == handed_over
    assert stats.transform_s >= sum(spent)


class TestInStates:
    BAD = len(EVERYTHING) - len(GOOD)

    def source(self, manifests: Any, kind: str, on_error: str = "skip") -> Any:
        if kind == "map":
            return s3dataset.S3MapDataset.from_manifest(manifests["indexed"], transform=number, on_error="replace")
        if kind == "mixed":
            parts = [stream(manifests["indexed"], on_error="replace") for _ in range(2)]
            return s3dataset.MixedDataset(parts, [1, 1])
        dataset = stream(manifests["indexed" if kind == "staged" else kind], on_error=on_error)
        return dataset.filter(bool) if kind == "staged" else dataset

    def count(self, dataset: Any, kind: str) -> int:
        if kind == "mixed":
            return sum(part.bad_samples().count for part in dataset._datasets)
        return int((dataset._source if kind == "staged" else dataset).bad_samples().count)

    @pytest.mark.parametrize("kind", ["unindexed", "indexed", "objects", "map", "mixed", "staged"])
    @pytest.mark.parametrize("workers", [0, 2])
    def test_a_run_that_goes_on_knows_what_was_met_before(self, manifests: Any, kind: str, workers: int) -> None:
        def loader() -> Any:
            return s3dataset.DataLoader(self.source(manifests, kind), batch_size=8, num_workers=workers)

        first = loader()
        batches = iter(first)
        before = [next(batches) for _ in range(9)]
        met = self.count(first.dataset, kind)  # before the state: workers go on meeting others
        assert met > 0
        state = json.loads(json.dumps(first.state_dict()))
        second = loader()
        second.load_state_dict(state)
        assert self.count(second.dataset, kind) >= met
        assert second.state_dict()["bad"] == state["bad"]
        rest = list(second)
        assert before
        assert rest
        if kind != "mixed":
            assert self.count(second.dataset, kind) == self.BAD, "what is met again counts once"
        again = loader()
        again.load_state_dict(second.state_dict())
        assert self.count(again.dataset, kind) == self.count(second.dataset, kind)

    @pytest.mark.filterwarnings("ignore:.* is deprecated")
    def test_under_stateful_data_loader_each_worker_brings_the_same(self, manifests: Any) -> None:
        stateful = pytest.importorskip("torchdata.stateful_dataloader")

        def loader() -> Any:
            dataset = stream(manifests["indexed"], on_error="replace", batch_size=8)
            return stateful.StatefulDataLoader(dataset, batch_size=8, num_workers=2)

        first = loader()
        batches = iter(first)
        for _ in range(9):
            next(batches)
        state = first.state_dict()
        second = loader()
        second.load_state_dict(state)
        list(second)
        assert second.dataset.bad_samples().count == self.BAD
        elastic = s3dataset.resume_state(state)
        assert 0 < elastic["bad"]["count"] <= self.BAD

    def test_ranks_put_theirs_together(self, manifests: Any) -> None:
        states = []
        for rank in range(2):
            split = s3dataset.Split(rank=rank, world_size=2, tail="exact")
            loader = s3dataset.DataLoader(
                stream(manifests["unindexed"], on_error="skip", enable_sharding=split), batch_size=8
            )
            list(loader)
            states.append(loader.state_dict())
        assert s3dataset.merge_states(states)["bad"]["count"] == self.BAD
        assert all(0 < state["bad"]["count"] < self.BAD for state in states)
