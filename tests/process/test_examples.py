"""The examples run as they stand. (Pages: tests/documents.)"""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from s3dataset.testing import LocalS3

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 120


@pytest.fixture(scope="module")
def server():
    with LocalS3("my-bucket") as running:
        for number in range(48):
            file = io.BytesIO()
            Image.new("RGB", (8 + number, 8), (number * 5, 0, 0)).save(file, "JPEG")
            label = ("cat", "dog")[number % 2]
            running.put("my-bucket", f"images/{label}/{number:02d}.jpg", file.getvalue())
        yield running


def start(*command):
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=TIMEOUT_S, cwd=ROOT)


def run(*command):
    done = start("-W", "ignore", *command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_train_on_images(server):
    output = run("examples/train_on_images.py", "s3://my-bucket/images/", "s3://my-bucket/model.pt", "--workers", "0")
    assert "epoch 2: loss" in output
    assert "model.pt" in server.keys("my-bucket")


@pytest.mark.usefixtures("server")
def test_read_many():
    output = run("examples/read_many.py", "s3://my-bucket/images/")
    assert "48 objects" in output
    assert "into one's own memory" in output


def test_pretrain_on_text(server):
    lines = [json.dumps({"text": f"document {number} says hello to the world. " * 9}) for number in range(60)]
    server.put("my-bucket", "jsonl/0.jsonl", "\n".join(lines).encode())
    arguments = ("s3://my-bucket/jsonl/", "s3://my-bucket/run-1", "--length", "64", "--save-every", "5")
    first = run("examples/pretrain_on_text.py", *arguments, "--steps", "10")
    assert re.findall(r"step (\d+): loss", first) == ["5", "10"]
    second = run("examples/pretrain_on_text.py", *arguments, "--steps", "30")
    assert "goes on behind step 10" in second
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", first + second)]
    assert losses[-1] < losses[0] / 2


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("name", ["read_many", "train_on_images", "train_webdataset_images", "train_lightning"])
def test_nothing_below_the_prefix_is_told(name):
    places = ["s3://my-bucket/imgaes/", *(f"s3://my-bucket/made/{place}" for place in ("a/", "b/"))]
    takes = {"read_many": 1, "train_webdataset_images": 3}.get(name, 2)
    if name == "train_lightning":
        pytest.importorskip("lightning")
    done = start("-W", "ignore", f"examples/{name}.py", *places[:takes])
    assert done.returncode == 1
    assert re.fullmatch(r"There are no (images|objects) below s3://my-bucket/imgaes/\.", done.stderr.splitlines()[-1])
    assert "Traceback" not in done.stderr
