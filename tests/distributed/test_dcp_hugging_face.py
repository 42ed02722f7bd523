"""Distributed checkpoints in safetensors files, by two processes."""

import json
import os
import socket
import warnings
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp
from tests.distributed.hf_programs import MAPPING, compare, whole
from tests.preloaded import Program

from s3dataset.testing import LocalS3

pytestmark = [pytest.mark.timeout(200)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """With what the programs have left there."""
    with LocalS3("models") as s3:
        run(2, tmp_path_factory.mktemp("ranks"))
        yield s3


def run(world_size, folder):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    script = Path(__file__).with_name("hf_programs.py")
    programs = []
    for rank in range(world_size):
        launched = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
        launched |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        programs.append(Program(script, [], os.environ | launched, folder / f"output{rank}"))
    try:
        for program in programs:
            assert program.finish(150) == 0, program.output.read_text()
    finally:
        for program in programs:
            program.kill()


def consolidated(server, folder):
    """The tensors of an output folder, as the library and its index have them."""
    weight_map = json.loads(server.get("models", f"{folder}/model.safetensors.index.json"))["weight_map"]
    found = {}
    for name in set(weight_map.values()):
        tensors = safetensors.torch.load(server.get("models", f"{folder}/{name}"))
        assert all(weight_map[tensor] == name for tensor in tensors)
        found |= tensors
    assert set(weight_map) == set(MAPPING)
    return found


def test_pytorch_reads_the_parts(server, tmp_path):
    names = [key.removeprefix("run/") for key in server.keys("models", "run/")]
    assert len(names) == 6
    assert names[0] == "shard-00001-model-00001-of-00003.safetensors"
    reader = getattr(dcp, "HuggingFaceStorageReader", None)
    if reader is None:
        pytest.skip("this torch has none")
    for name in names:
        (tmp_path / name).write_bytes(server.get("models", f"run/{name}"))
    state = {name: torch.zeros_like(tensor) for name, tensor in whole().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(state, storage_reader=reader(str(tmp_path)))
    compare(state)


def test_the_writer_consolidates(server):
    compare(consolidated(server, "both"))
    assert len(server.keys("models", "both/sharded/")) == 6
    assert "both/model-00002-of-00003.safetensors" in server.keys("models", "both/")


def test_every_rank_consolidates(server):
    compare(consolidated(server, "out"))
    assert len(server.keys("models", "out/")) == 4


def test_one_rank_s_failure_is_that_of_all(server):
    assert server.keys("models", "failed/") == []


def test_ranks_that_would_write_the_same_file(server):
    assert server.keys("models", "single/") == []
