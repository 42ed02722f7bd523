"""The examples that train train, are stopped, and go on where they were."""

import io
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

import s3dataset
from s3dataset.testing import LocalS3

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 240
DOCUMENTS = 96

# Frameworks take long to import, and each test runs several programs.
pytestmark = pytest.mark.timeout(900)

needs_lightning = pytest.mark.skipif(find_spec("lightning") is None, reason="Lightning is not installed")
needs_transformers = pytest.mark.skipif(
    find_spec("transformers") is None or find_spec("accelerate") is None,
    reason="transformers or accelerate is not installed",
)
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")


@pytest.fixture(scope="module")
def server() -> Iterator[LocalS3]:
    with LocalS3("my-bucket") as running:
        for number in range(48):
            file = io.BytesIO()
            Image.new("RGB", (8, 8), (number * 5, 0, 255 * (number % 2))).save(file, "PNG")
            running.put("my-bucket", f"images/{('cat', 'dog')[number % 2]}/{number:02d}.png", file.getvalue())
            file = io.BytesIO()
            Image.new("RGB", (8 + number, 8), (number * 5, 0, 255 * (number % 2))).save(file, "JPEG")
            running.put("my-bucket", f"photos/{('cat', 'dog')[number % 2]}/{number:02d}.jpg", file.getvalue())
        for shard in range(3):
            lines = [json.dumps({"text": f"document {shard} {n} says hello. " * 3}) for n in range(DOCUMENTS // 3)]
            running.put("my-bucket", f"jsonl/{shard}.jsonl", "\n".join(lines).encode())
        indexed = s3dataset.Manifest.from_prefix("s3://my-bucket/jsonl/").index("jsonl")
        indexed.save(s3dataset.Manifest.index_location("s3://my-bucket/jsonl/", "jsonl"))
        yield running


def start(*command: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


def finish(*processes: "subprocess.Popen[str]") -> str:
    """What they printed, when all of them have ended well."""
    try:
        outputs = [process.communicate(timeout=TIMEOUT_S) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (out, err) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, out + err
    return "".join(out for out, _ in outputs)


def run(*command: str) -> str:
    return finish(start(*command))


def ranks(world: int, *command: str) -> str:
    """Starts ranks with torchrun's variables, and without its own process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    return finish(
        *(
            start(*command, RANK=str(rank), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(world), **common)
            for rank in range(world)
        )
    )


@pytest.mark.usefixtures("server")
@pytest.mark.slow
def test_train_distributed_goes_on_with_other_numbers_of_ranks(tmp_path: Path) -> None:
    def names(world: int, steps: int, *more: str) -> dict[tuple[int, int], list[str]]:
        """What each rank took, by rank and the step before the first; all of it in the order of the steps."""
        arguments = ["s3://my-bucket/jsonl/", "s3://my-bucket/run-2", "--length", "32", "--batch-size", "4"]
        arguments += ["--workers", "0", "--names", str(tmp_path), "--steps", str(steps), *more]
        output = ranks(world, "examples/train_distributed.py", *arguments)
        assert f"step {steps}: loss" in output
        taken = {}
        for file in tmp_path.iterdir():
            first, rank = file.stem.split("-")
            taken[int(rank), int(first)] = [line.split()[1] for line in file.read_text().splitlines()]
            file.unlink()
        return taken

    before = names(2, 3)
    assert {place: len(taken) for place, taken in before.items()} == {(0, 0): 12, (1, 0): 12}
    alone = names(1, 3 + 18)
    assert len(alone[0, 3]) == 72
    with s3dataset.CheckpointManager("s3://my-bucket/run-2") as manager:
        manager.rollback(3)
    three = names(3, 3 + 6, "--fsdp")  # what DDP saved, FSDP2 goes on with
    assert {place: len(taken) for place, taken in three.items()} == {(0, 3): 24, (1, 3): 24, (2, 3): 24}
    everything = sorted(name for taken in before.values() for name in taken) + alone[0, 3]
    assert len(set(everything)) == len(everything) == DOCUMENTS
    # Batch by batch the same: three ranks take in turn what one would have taken.
    turns = [three[rank, 3][4 * n : 4 * n + 4] for n in range(6) for rank in range(3)]
    assert [name for batch in turns for name in batch] == alone[0, 3]


@pytest.mark.slow
def test_train_webdataset_images(server: LocalS3) -> None:
    arguments = ["examples/train_webdataset_images.py", "s3://my-bucket/images/", "s3://my-bucket/shards/"]
    options = ["--workers", "0", "--size", "8", "--batch-size", "16", "--classes", "2"]
    whole = run(*arguments, "s3://my-bucket/run-3a", *options, "--epochs", "4")
    assert "packed 48 images of 2 classes" in whole
    first = run(*arguments, "s3://my-bucket/run-3b", *options, "--epochs", "2")
    assert "packed" not in first
    second = run(*arguments, "s3://my-bucket/run-3b", *options, "--epochs", "4")
    assert "goes on behind epoch 2" in second
    losses = re.findall(r"epoch \d: loss [\d.]+", whole)
    assert len(losses) == 4
    assert re.findall(r"epoch \d: loss [\d.]+", first + second) == losses  # augmented alike


@needs_lightning
@pytest.mark.usefixtures("server")
@pytest.mark.slow
def test_train_lightning() -> None:
    def train(name: str, steps: int) -> str:
        place = ["examples/train_lightning.py", "s3://my-bucket/photos/", f"s3://my-bucket/{name}"]
        return run(*place, "--workers", "0", "--batch-size", "16", "--save-every", "4", "--steps", str(steps))

    first, second, whole = train("run-4", 4), train("run-4", 11), train("run-4-whole", 11)
    assert "run-4 has all 8 steps" in train("run-4", 8)  # the last checkpoint
    assert "goes on from" not in first
    assert "goes on from s3://my-bucket/run-4/epoch=1-step=4.ckpt" in second  # three batches are an epoch
    loss = re.compile(r"step 11: loss [\d.]+")
    assert loss.findall(second) == loss.findall(whole) != []


@needs_transformers
@pytest.mark.usefixtures("server")
@pytest.mark.slow
@pytest.mark.parametrize("loop", ["trainer", "accelerate"])
def test_train_transformers(loop: str) -> None:
    def train(name: str, steps: int) -> str:
        place = ["examples/train_transformers.py", "s3://my-bucket/jsonl/", f"s3://my-bucket/{name}-{loop}"]
        options = ["--length", "32", "--batch-size", "8", "--workers", "0", "--save-every", "5", "--steps", str(steps)]
        return run(*place, *options, *(["--accelerate"] if loop == "accelerate" else []))

    first, second = train("run-5", 15), train("run-5", 30)
    assert "goes on behind step 15" in second
    losses = [(int(step), float(loss)) for step, loss in re.findall(r"step (\d+): loss ([\d.]+)", first + second)]
    assert [step for step, _ in losses] == [5, 10, 15, 20, 25, 30]
    assert losses[-1][1] < losses[0][1] - 1
    assert losses[3][1] > losses[2][1] / 2  # a mean of the steps since the restart
    assert "loss" not in train("run-5", 30).replace("loss_type", "")  # there is nothing left to do
    with s3dataset.CheckpointManager(f"s3://my-bucket/run-5-{loop}") as manager:
        restored = manager.restore()
    assert restored is not None
    assert restored.step == 30
    assert restored.dataset_state["epoch"] == 2  # 12 batches are one: two epochs, and six batches of the third


@needs_transformers
@pytest.mark.usefixtures("server")
@pytest.mark.slow
@pytest.mark.parametrize("loop", ["trainer", "accelerate"])
def test_train_transformers_on_two_ranks(loop: str) -> None:
    place = ["examples/train_transformers.py", "s3://my-bucket/jsonl/", f"s3://my-bucket/run-7-{loop}"]
    options = ["--length", "32", "--batch-size", "8", "--workers", "0", "--save-every", "5"]
    options += ["--accelerate"] if loop == "accelerate" else []
    first = ranks(2, *place, *options, "--steps", "5")
    assert len(re.findall(r"^step 5: loss", first, re.MULTILINE)) == 1  # they train one model, and one of them tells
    second = run(*place, *options, "--steps", "10")
    assert "goes on behind step 5" in second
    with s3dataset.CheckpointManager(f"s3://my-bucket/run-7-{loop}") as manager:
        newest, before = manager.list()
    assert (before.step, newest.step) == (5, 10)
    assert (before.world_size, newest.world_size) == (2, 1)


@needs_ray
@pytest.mark.usefixtures("server")
@pytest.mark.slow
def test_train_ray(tmp_path: Path) -> None:
    def train(epochs: int, ranks: int) -> list[str]:
        place = ["examples/train_ray.py", "s3://my-bucket/images/", "s3://my-bucket/run-6"]
        options = ["--loader-workers", "0", "--batch-size", "8", "--storage", str(tmp_path)]
        output = run(*place, *options, "--epochs", str(epochs), "--ranks", str(ranks))
        assert f"s3://my-bucket/run-6 has all {epochs} epochs" in output
        return sorted(set(re.findall(r"steps (\d+ to \d+, epoch \d)", output)))  # Ray may repeat what a rank prints

    assert train(1, ranks=2) == ["1 to 3, epoch 1"]  # of 48 images, three batches of each rank
    assert train(3, ranks=1) == ["4 to 15, epoch 3", "4 to 9, epoch 2"]


@pytest.mark.parametrize(
    "name", ["train_distributed", "train_lightning", "train_ray", "train_transformers", "train_webdataset_images"]
)
def test_they_say_how_they_are_launched(name: str) -> None:
    text = (ROOT / "examples" / f"{name}.py").read_text().split('"""')[1]
    assert f"examples/{name}.py s3://" in text
    if name != "train_webdataset_images":
        assert "#SBATCH" in text or "sbatch" in text
