"""Ranks as processes of their own, with a launcher's variables."""

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.preloaded import Program

from s3dataset.testing import LocalS3

COUNT = 1797


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    """1,797 objects under "images/", each of which holds its number."""
    with LocalS3("bucket") as server:
        for i in range(COUNT):
            server.put("bucket", f"images/{i:05}", str(i).encode())
        yield server


@pytest.fixture
def ranks(server: LocalS3, tmp_path: Path) -> Callable[..., list[Any]]:
    """Runs a program of rank_programs.py on every rank -> the ranks' answers."""
    return runner(server, tmp_path)


def runner(server: LocalS3, folder: Path) -> Callable[..., list[Any]]:
    """What runs a program of rank_programs.py, or another script, on every rank; `dies` is killed in the end."""

    def run(
        program: str,
        *arguments: str,
        world_size: int = 2,
        launcher: bool = True,
        script: str = "rank_programs.py",
        dies: int | None = None,
    ) -> list[Any]:
        server.reset_stats()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        programs = []
        for rank in range(world_size):
            environment = dict(os.environ)
            if launcher:
                environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
                environment |= {"LOCAL_WORLD_SIZE": str(world_size)}
                environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            told = [program, str(folder / f"answer{rank}"), *arguments]
            programs.append(Program(Path(__file__).with_name(script), told, environment, folder / f"output{rank}"))
        try:
            for rank, started in enumerate(programs):
                code = started.finish(240)
                assert code == (-signal.SIGKILL if rank == dies else 0), started.output.read_text()
        finally:
            for started in programs:
                started.kill()
        paths = [folder / f"answer{rank}" for rank in range(world_size)]
        return [json.loads(path.read_text()) for path in paths]

    return run
