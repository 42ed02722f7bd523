"""CheckpointManager ends at every request of everything it does: what is there afterwards is whole, and the newest.

A crash is a service that refuses everything from the n-th request on: the dying manager changes nothing any more, its
cleaning up included. What a killed process leaves is the same; tests/process/manager/test_crashes.py kills some.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from s3dataset import CheckpointManager, Restored, S3ClientConfig, S3Exception
from s3dataset._client import ClientRef
from s3dataset._commits import Catalog, Layout, Pruner
from s3dataset.testing import Fault, LocalS3

BUCKET = "bucket"
URI = "s3://bucket/run"
MIB = 1 << 20
CONFIG = S3ClientConfig(part_size=5 * MIB, max_attempts=1)

Work = Callable[[CheckpointManager], Any]


@pytest.fixture(scope="module")
def running() -> Iterator[LocalS3]:
    with LocalS3(BUCKET) as server:
        yield server


@pytest.fixture
def server(running: LocalS3) -> Iterator[LocalS3]:
    yield running
    empty(running)


def empty(server: LocalS3) -> None:
    server.clear_faults()
    for key in server.keys(BUCKET):
        server.delete(BUCKET, key)
    client = ClientRef(None, None, CONFIG).get()
    for upload in list(client.list_uploads(BUCKET)):
        client.abort_upload(BUCKET, upload.key, upload.upload_id)


def manager(**options: Any) -> CheckpointManager:
    return CheckpointManager(URI, s3client_config=CONFIG, **({"keep_last": 2} | options))


def state(value: float, nbytes: int = 4096) -> dict[str, Any]:
    return {"weights": torch.full((nbytes // 4,), value), "value": value}


def is_whole(restored: Restored) -> bool:
    value = restored.state["value"]
    return bool((restored.state["weights"] == value).all()) and restored.dataset_state == {"value": value}


def save(step: int, value: float, **options: Any) -> Work:
    nbytes = options.pop("nbytes", 4096)

    def work(on: CheckpointManager) -> Any:
        return on.save(step, state(value, nbytes), dataset_state={"value": value}, **options)

    return work


def prepare(server: LocalS3, *works: Work, **options: Any) -> None:
    with manager(**options) as on:
        for work in works:
            work(on)


def crash_everywhere(
    server: LocalS3, prepared: tuple[Work, ...], work: Work, *, lost: bool, **options: Any
) -> Iterator[bool]:
    """Does `work` with a crash at its first, second, ... request -> whether it was done all the same, each time.

    With `lost`, the request at which it ends is carried out, and only its answer is lost.
    """
    for passed in range(200):
        empty(server)
        prepare(server, *prepared, **options)
        faults = [Fault.lost_answer(after=passed)] if lost else []
        number, *_ = server.add_fault(*faults, Fault.status(403, after=passed + lost, times=None))
        ended = False
        with contextlib.suppress(S3Exception), manager(**options) as on:
            work(on)
            ended = True
        has_crashed = server.fault_counts()[number] > 0
        server.clear_faults()
        yield ended
        if not has_crashed:
            return
    pytest.fail("it never ends")


def nothing_is_left(server: LocalS3, steps: list[int]) -> None:
    """What crashes have left goes once it is a day old: then there are the files of these steps, and no others."""
    catalog = Catalog(Layout.at(URI), ClientRef(None, None, CONFIG))
    Pruner(catalog, stale_s=-10.0).prune(keep_last=None, keep_every=None)
    named = {step: catalog.read(step).record.attempt for step in steps}
    assert [entry.step for entry in catalog.entries()] == sorted(steps, reverse=True)
    assert {f"{step}.{attempt}" for step, attempt in named.items()} == {
        f"{attempt.step}.{attempt.name}" for attempt in catalog.attempts()
    }
    assert server.uploads(BUCKET) == []
    assert server.keys(BUCKET, "run/restores/") == []


@pytest.mark.parametrize("lost", [False, True], ids=["refused", "answer-lost"])
@pytest.mark.parametrize("nbytes", [4096, 12 * MIB], ids=["one-request", "in-parts"])
def test_a_save(server: LocalS3, nbytes: int, lost: bool) -> None:
    outcomes = set()
    for done in crash_everywhere(server, (save(1, 1.0), save(2, 2.0)), save(3, 3.0, nbytes=nbytes), lost=lost):
        with manager() as fresh:
            newest = fresh.latest()
            restored = fresh.restore()
            assert restored is not None
            assert restored.step == newest
            assert restored.state["value"] == newest
            assert restored.skipped == []
            assert is_whole(restored)
            outcomes.add((done, newest))
            assert newest == 3 or not done
            fresh.save(4, state(4.0), dataset_state={"value": 4.0})
            assert fresh.latest() == 4
        nothing_is_left(server, [4, newest])
    assert outcomes == {(True, 3), (False, 2)} | ({(False, 3)} if lost else set())


@pytest.mark.parametrize("lost", [False, True], ids=["refused", "answer-lost"])
def test_an_overwrite(server: LocalS3, lost: bool) -> None:
    """The step is the old or the new one, whole, at every moment."""
    seen = set()
    for done in crash_everywhere(server, (save(1, 1.0), save(2, 2.0)), save(2, 2.5, overwrite=True), lost=lost):
        with manager() as fresh:
            restored = fresh.restore()
            assert restored is not None
            assert restored.step == 2
            assert restored.skipped == []
            assert is_whole(restored)
            assert restored.state["value"] == 2.5 or not done
            seen.add((done, restored.state["value"]))
        nothing_is_left(server, [2, 1])
    assert seen == {(True, 2.5), (False, 2.0)} | ({(False, 2.5)} if lost else set())


def test_a_retention_run(server: LocalS3) -> None:
    """Ten checkpoints, of which eight go: at every moment all that has a record is whole."""
    steps = list(range(1, 11))
    left = set()
    for done in crash_everywhere(
        server,
        tuple(save(step, float(step)) for step in steps),
        lambda _: manager(keep_last=2, keep_every=5).prune(),
        lost=False,
        keep_last=None,
    ):
        with manager(keep_last=None) as fresh:
            infos = fresh.list()
            there = [info.step for info in infos]
            assert there[:2] == [10, 9]
            assert 5 in there
            assert not any(fresh.verify(step) for step in there)
            left.add(len(there))
            assert there == [10, 9, 5] or not done
        with manager(keep_last=2, keep_every=5) as fresh:
            fresh.prune()
            assert [info.step for info in fresh.list()] == [10, 9, 5]
        nothing_is_left(server, [10, 9, 5])
    assert left == {10, 3}


def test_a_rollback(server: LocalS3) -> None:
    """The newest one is what it was until all that are newer are gone."""
    prepared = tuple(save(step, float(step)) for step in range(1, 7))
    newest = set()
    for done in crash_everywhere(server, prepared, lambda on: on.rollback(2), lost=False, keep_last=None):
        with manager(keep_last=None) as fresh:
            restored = fresh.restore()
            assert restored is not None
            assert is_whole(restored)
            assert restored.step in (6, 2)
            newest.add(restored.step)
            assert restored.step == 2 or not done
            fresh.rollback(2)
            fresh.save(3, state(3.5), dataset_state={"value": 3.5})
            after = fresh.restore()
            assert after is not None
            assert after.state["value"] == 3.5
        nothing_is_left(server, [3, 2, 1])
    assert newest == {6, 2}


def test_a_restore_and_one_that_falls_back(server: LocalS3) -> None:
    """It changes nothing, whenever it ends; and a mark that it left keeps nothing for longer than a day."""
    for damaged in (False, True):
        prepared = (save(1, 1.0), save(2, 2.0), *([damage] if damaged else []))
        for _ in crash_everywhere(server, prepared, lambda on: on.restore(), lost=False):
            with manager() as fresh:
                restored = fresh.restore()
                assert restored is not None
                assert restored.step == (1 if damaged else 2)
                assert [skipped.step for skipped in restored.skipped] == ([2] if damaged else [])
                assert is_whole(restored)
            nothing_is_left(server, [2, 1])


def damage(on: CheckpointManager) -> None:
    """Takes a byte off the file of the newest checkpoint."""
    client = ClientRef(None, None, CONFIG).get()
    info = on.list()[0]
    prefix = info.uri.removeprefix("s3://bucket/")
    keys = [found.key for page in client.list_objects(BUCKET, prefix) for found in page.object_info]
    client.put_many([(BUCKET, keys[0], bytes(client.get_range(BUCKET, keys[0], 0, info.nbytes))[:-1])])


@pytest.mark.filterwarnings("ignore:torch.distributed is:UserWarning", "ignore:TypedStorage:UserWarning")
def test_a_save_of_torchs_distributed_format(server: LocalS3) -> None:
    """Several files, of which none may be missing."""
    outcomes = set()
    for done in crash_everywhere(server, (save(1, 1.0), save(2, 2.0)), save(3, 3.0), lost=False, format="dcp"):
        with manager(format="dcp") as fresh:
            restored = fresh.restore(state(0.0))
            assert restored is not None
            assert restored.step == fresh.latest()
            assert restored.state["value"] == restored.step
            assert restored.skipped == []
            assert is_whole(restored)
            outcomes.add((done, restored.step))
            fresh.prune()
        nothing_is_left(server, [restored.step, restored.step - 1])
    assert outcomes == {(True, 3), (False, 2)}
