"""The page: values that threads, forked and spawned processes share."""

import gc
import multiprocessing
import os
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3dataset._page import Page


def count_up(page: Page, times: int) -> None:
    for _ in range(times):
        page.add("count", 1)
    page.add_many({"count": times, "other": 1})


def test_integers_and_texts_are_kept_by_name() -> None:
    page = Page.create()
    assert page.get("a") == 0
    page.set("a", -5)
    assert page.add("a", 7) == 2
    page.add_many({"a": 1, "b": 2**62})
    assert page.items() == {"a": 3, "b": 2**62}
    assert page.get_bytes("path") == b""
    page.set_bytes("path", b"/tmp/" + b"x" * 4000)
    page.set_bytes("path", "/tmp/ü".encode())
    assert page.get_bytes("path") == "/tmp/ü".encode()


def test_limits_are_told() -> None:
    page = Page.create()
    with pytest.raises(ValueError, match="4096 at most"):
        page.set_bytes("path", bytes(4097))
    with pytest.raises(ValueError, match="1 to 56 bytes"):
        page.set("x" * 57, 1)
    for number in range(1024):
        page.set(f"n{number}", number)
    with pytest.raises(ValueError, match="1024 integers at most"):
        page.set("one more", 1)
    assert page.get("n127") == 127


def test_threads_lose_no_addition() -> None:
    page = Page.create()
    threads = [threading.Thread(target=count_up, args=(page, 200)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert page.items() == {"count": 1600, "other": 4}


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_processes_lose_no_addition(method: str) -> None:
    page = Page.create()
    page.set("count", 0)
    context = multiprocessing.get_context(method)
    processes = [context.Process(target=count_up, args=(page, 200)) for _ in range(3)]  # type: ignore[attr-defined]
    for process in processes:
        process.start()
    count_up(page, 200)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert page.items() == {"count": 1600, "other": 4}
    assert Path(page.path).exists()


def test_the_creator_removes_the_file_and_what_lies_beside_it() -> None:
    page = Page.create()
    path = Path(page.path)
    beside = path.with_name(path.name + ".manifest")
    beside.write_bytes(b"columns")
    child = os.fork()
    if child == 0:
        del page
        os._exit(0)
    os.waitpid(child, 0)
    assert path.exists()
    assert beside.exists()
    del page
    assert not path.exists()
    assert not beside.exists()


def test_a_pickle_leads_to_the_same_page_or_to_an_empty_one() -> None:
    page = Page.create()
    page.set("epoch", 3)
    data = pickle.dumps(page)
    assert pickle.loads(data) is page
    del page
    late = pickle.loads(data)
    assert late.get("epoch") == 0
    late.set("epoch", 1)
    assert late.get("epoch") == 1


def hold(page: Page, held: "multiprocessing.synchronize.Event") -> None:  # type: ignore[name-defined]
    with page.locked():
        held.set()
        threading.Event().wait(60)


def test_what_counts_on_a_page_may_be_garbage_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    unraisable: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", unraisable.append)

    def counting(page: Page) -> Iterator[None]:
        try:
            yield
        finally:
            page.add("count", 1)

    cycle: list[object] = [counter := counting(Page.create())]
    cycle.append(cycle)
    next(counter)
    del counter, cycle
    gc.collect()
    assert not unraisable


def test_what_counts_in_the_midst_of_a_change_does_not_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page.create()
    claim = page._claim

    def interrupted(name: str) -> int:  # as by the garbage collector, which ends an iterator
        if name == "epoch":
            page.add_many({"samples": 3, "bytes": 7})
        return claim(name)

    monkeypatch.setattr(page, "_claim", interrupted)
    assert page.add("epoch", 1) == 1
    page.set("epoch", 5)
    assert page.items() == {"epoch": 5, "samples": 6, "bytes": 14}


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_holder_that_is_killed_gives_up_the_lock_and_counting_goes_on_meanwhile() -> None:
    page = Page.create()
    context = multiprocessing.get_context("fork")
    held = context.Event()
    process = context.Process(target=hold, args=(page, held))
    process.start()
    assert held.wait(30)
    assert page.add("count", 1) == 1
    process.kill()
    process.join(30)
    with page.locked():
        pass
