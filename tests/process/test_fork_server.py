"""Workers of "forkserver" come from a process that has imported PyTorch once for all of them."""

import os
import subprocess
import sys
from multiprocessing import forkserver, get_context
from pathlib import Path

import pytest

from s3dataset._datasets._fork_server import preload_for_workers
from s3dataset.testing import LocalS3

PROGRAM = """
import multiprocessing, sys
import s3dataset
from tests.process.test_fork_server import maps_of_parent

if __name__ == "__main__":
    dataset = s3dataset.S3MapDataset.from_prefix("s3://bucket/", transform=maps_of_parent)
    for _ in range(2):
        loader = s3dataset.DataLoader(dataset, num_workers=2, multiprocessing_context="forkserver", collate_fn=list)
        print(*sorted(has for (has,) in loader))
"""


def maps_of_parent(_: object) -> bool:
    return "libtorch" in Path(f"/proc/{os.getppid()}/maps").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_workers_are_forked_from_where_torch_is(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    with LocalS3("bucket") as server:
        for key in "ab":
            server.put("bucket", key, b"x")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}
        output = subprocess.check_output([sys.executable, str(program)], env=environment, text=True)
    assert output == "True True\n" * 2


MOVED = """
import s3dataset
from s3dataset.testing import LocalS3


def text(reader):
    return reader.read().decode()


if __name__ == "__main__":
    for content in ("first", "second"):
        with LocalS3("bucket") as server:
            server.put("bucket", "a", content.encode())
            dataset = s3dataset.S3MapDataset.from_prefix("s3://bucket/", transform=text)
            print(*next(iter(s3dataset.DataLoader(dataset, num_workers=1, multiprocessing_context="forkserver"))))
"""


def test_workers_go_where_the_environment_points_now(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(MOVED)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}
    output = subprocess.check_output([sys.executable, str(program)], env=environment, text=True)
    assert output == "first\nsecond\n"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> forkserver.ForkServer:
    server = forkserver.ForkServer()
    monkeypatch.setattr(forkserver, "_forkserver", server)
    monkeypatch.setattr(forkserver, "set_forkserver_preload", server.set_forkserver_preload)
    return server


def test_a_programs_own_choice_stays(server: forkserver.ForkServer) -> None:
    server.set_forkserver_preload(["json"])
    preload_for_workers(get_context("forkserver"))
    assert server._preload_modules == ["json"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_ways_to_start_change_nothing(server: forkserver.ForkServer, method: str) -> None:
    preload_for_workers(get_context(method))
    assert server._preload_modules == ["__main__"]


def test_a_python_that_keeps_it_elsewhere_is_left_alone(
    server: forkserver.ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(forkserver, "_forkserver")
    preload_for_workers(get_context("forkserver"))
    assert server._preload_modules == ["__main__"]
