"""Files that processes share: later ones sweep what killed ones left, and nobody loses a file that is in use."""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from s3dataset import _shared_files
from s3dataset._manifest import Manifest, _builder
from s3dataset._page import Page

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of this test's, for its children too."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def make_both() -> tuple[Page, Manifest]:
    """A page with a listing beside it, and a manifest that is large enough for a file."""
    _builder.SMALL_BYTES = 0  # a file, however small
    page, manifest = Page.create(), Manifest.from_objects(["s3://bucket/key"])
    manifest.publish(f"{page.path}.manifest")
    return page, manifest


def make_and_wait(ready: Any) -> None:
    made = make_both()
    ready.send((made[0].path, made[1].path))
    threading.Event().wait(60)


def open_both_and_wait(page_path: str, manifest_path: str, ready: Any) -> None:
    opened = Page.attach(page_path), Manifest.open(manifest_path)
    ready.send((opened[0].path, opened[1].path))
    threading.Event().wait(60)


class Child:
    """A process that has files, and tells which."""

    def __init__(self, method: str, target: Callable[..., None], *arguments: Any) -> None:
        context: Any = multiprocessing.get_context(method)
        ours, theirs = context.Pipe()
        self.process = context.Process(target=target, args=(*arguments, theirs))
        self.process.start()
        theirs.close()
        assert ours.poll(60)
        self.paths: tuple[str, str] = ours.recv()

    def kill(self) -> None:
        self.process.kill()
        self.process.join(60)


@pytest.fixture
def children() -> Iterator[list[Child]]:
    started: list[Child] = []
    yield started
    for child in started:
        child.kill()


def test_what_a_killed_process_left_is_swept_by_the_next_that_makes_one(folder: Path, children: list[Child]) -> None:
    children.append(Child("spawn", make_and_wait))
    left = sorted(file.name.partition(".")[2] for file in folder.glob("s3dataset-*"))
    assert left == ["manifest", "page", "page.lock", "page.manifest"]
    _shared_files.sweep(str(folder))
    assert len(list(folder.glob("s3dataset-*"))) == 4, "they are in use"
    children[0].kill()
    assert len(list(folder.glob("s3dataset-*"))) == 4
    children.append(Child("spawn", make_and_wait))
    assert len(list(folder.glob("s3dataset-*"))) == 4
    assert Path(children[1].paths[0]).exists()


def test_a_process_that_has_swept_sweeps_again_when_its_children_are_killed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, children: list[Child]
) -> None:
    monkeypatch.setattr(_shared_files._Sweep, "due_at", 0.0)
    Page.create()
    for _ in range(3):
        children.append(Child("fork", make_and_wait))
        children[-1].kill()
    assert len(list(folder.glob("s3dataset-*.page"))) == 3
    monkeypatch.setattr(_shared_files._Sweep, "due_at", _shared_files._Sweep.due_at - _shared_files._SWEEP_EVERY_S)
    page = Page.create()
    assert list(folder.glob("s3dataset-*.page")) == [Path(page.path)]
    assert list(folder.glob("s3dataset-*.manifest")) == []


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_worker_that_outlives_its_parent_keeps_its_files(folder: Path, children: list[Child], method: str) -> None:
    parent = Child("spawn", make_and_wait)
    children.append(parent)
    # Whatever its own parent is, the worker has opened the files as a spawned or forked one does.
    worker = Child(method, open_both_and_wait, *parent.paths)
    children.append(worker)
    parent.kill()
    _shared_files.sweep(str(folder))
    assert all(os.path.exists(path) for path in parent.paths)  # noqa: PTH110
    assert Path(f"{parent.paths[0]}.lock").exists()
    assert Page.attach(parent.paths[0]).path == parent.paths[0]
    worker.kill()
    _shared_files.sweep(str(folder))
    assert list(folder.glob("s3dataset-*")) == []


PARENT = """
import os, signal, sys, threading  # the worker is forked, and the parent waits to be killed
sys.path[:0] = {path!r}
from tests.unit.test_shared_files import make_both
page, manifest = make_both()
if os.fork() == 0:
    print(os.getpid(), page.path, manifest.path, flush=True)
    threading.Event().wait(60)
    os._exit(0)
signal.pause()
"""


def test_a_forked_worker_inherits_its_parents_hold(folder: Path) -> None:
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", PARENT.format(path=[root])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker, *paths = parent.stdout.readline().split()
        try:
            parent.kill()
            parent.wait(60)
            _shared_files.sweep(str(folder))
            assert len(paths) == 2
            assert all(os.path.exists(path) for path in paths)  # noqa: PTH110
        finally:
            os.kill(int(worker), signal.SIGKILL)
        assert parent.stdout.read() == "", "the pipe ends with the worker"
    _shared_files.sweep(str(folder))
    assert list(folder.glob("s3dataset-*")) == []


def test_a_manifest_beside_a_page_is_safe_though_nobody_has_mapped_it(folder: Path) -> None:
    page = Page.create()
    beside = Path(f"{page.path}.manifest")
    Manifest.from_objects(["s3://bucket/key"]).publish(str(beside))
    _shared_files.sweep(str(folder))
    assert beside.exists()


def test_a_manifest_in_use_is_safe_though_its_page_is_gone(folder: Path) -> None:
    page = Page.create()
    beside = folder / f"{Path(page.path).name}.manifest"
    Manifest.from_objects(["s3://bucket/key"]).publish(str(beside))
    mapped = Manifest.open(beside)
    copy = folder / f".{beside.name}.half-written"
    os.link(beside, copy)
    Path(page.path).unlink()
    _shared_files.sweep(str(folder))
    assert beside.exists()
    assert mapped.key(0) == "key"
    del mapped
    _shared_files.sweep(str(folder))
    assert not beside.exists()
    assert not copy.exists()


def test_other_files_are_left_alone(folder: Path) -> None:
    prefix = _shared_files._PREFIX
    elsewhere = f"s3dataset-{'0' * 8}-abcdefgh.page"  # on another machine that has the same folder
    for name in (elsewhere, "s3dataset-abcdefgh.page", f"{prefix}abcdefgh", "notes.txt"):
        (folder / name).write_bytes(b"")
    (folder / f"{prefix}directory.page").mkdir()
    (folder / f"{prefix}link.page").symlink_to(folder / "notes.txt")
    os.mkfifo(folder / f"{prefix}pipe.page")
    before = sorted(folder.iterdir())
    _shared_files.sweep(str(folder))
    assert sorted(folder.iterdir()) == before
    (folder / f"{prefix}abcdefgh.page").write_bytes(b"")
    _shared_files.sweep(str(folder))
    assert sorted(folder.iterdir()) == before


def test_another_users_file_is_left_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = folder / f"{_shared_files._PREFIX}abcdefgh.page"
    theirs.write_bytes(b"")
    monkeypatch.setattr(os, "geteuid", lambda: theirs.stat().st_uid + 1)
    _shared_files.sweep(str(folder))
    assert theirs.exists()


def test_a_sweep_that_comes_between_making_and_holding_is_survived(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tempfile.mkstemp
    times = iter(range(2))

    def swept(**options: Any) -> tuple[int, str]:
        descriptor, path = made(**options)
        if next(times) == 0:
            _shared_files.sweep(str(folder))
            assert not Path(path).exists()
        return descriptor, path

    monkeypatch.setattr(tempfile, "mkstemp", swept)
    descriptor, path = _shared_files.create("page")
    os.close(descriptor)
    assert Path(path).exists()


def test_whoever_finds_a_page_being_swept_begins_one_of_its_own(folder: Path) -> None:
    page = Page.create()
    path = page.path
    copy = f"{path.removesuffix('.page')}x.page"
    os.link(path, copy)
    del page
    with _shared_files._alone(copy):
        late = Page.attach(copy)
        assert late.path != copy
    assert late.add("count", 1) == 1


def test_a_folder_that_cannot_be_listed_is_no_matter(tmp_path: Path) -> None:
    _shared_files.sweep(str(tmp_path / "missing"))
