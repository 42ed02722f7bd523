"""The README's Python and the examples run as they stand."""

import io
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from s3dataset.formats import Tar
from s3dataset.testing import LocalS3

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 120


@pytest.fixture(scope="module")
def server():
    with LocalS3("my-bucket") as running:
        for number in range(48):
            file = io.BytesIO()
            Image.new("RGB", (8, 8), (number * 5, 0, 0)).save(file, "JPEG")
            label = ("cat", "dog")[number % 2]
            running.put("my-bucket", f"images/{label}/{number:02d}.jpg", file.getvalue())
        running.put("my-bucket", "shards/0.tar", shard(70))
        yield running


def shard(count):
    file = io.BytesIO()
    with Tar().writer(file) as writer:
        for number in range(count):
            writer.write({"__key__": f"{number:03}", "txt": f"text {number}"})
        writer.finish()
    return file.getvalue()


def run(*command):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *command], capture_output=True, text=True, timeout=TIMEOUT_S, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.usefixtures("server")
def test_the_readmes_python_runs():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) >= 2
    setting = "import torch\nmodel = torch.nn.Linear(2, 2)\ntrain = lambda batch: print(len(batch['txt']), 'texts')\n"
    program = setting + "\n".join(blocks).replace("    ...", "    print(images.shape, labels.tolist())")
    program = f"def main():\n{indented(program)}\nif __name__ == '__main__':\n    main()\n"
    output = run("-c", program)
    assert output.count("torch.Size([") == 2  # 48 images in batches of 32
    assert "64 texts" in output
    assert "6 texts" in output


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("name", "needs"),
    [("dcp", []), ("safetensors", []), ("fsspec", ["fsspec", "pandas", "pyarrow"]), ("lightning", ["lightning"])],
)
def test_the_documents_python_runs(name, needs):
    for module in needs:
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / f"{name}.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    output = run("-c", "\n".join(blocks))
    if name == "safetensors":
        assert output == "torch.Size([4, 3])\n['bias', 'weight'] [[3.0, 4.0], [6.0, 7.0]]\n"
    if name == "fsspec":
        assert output == "100 b'7'\nrun,loss\n7,0.25\n\n(1000, 2)\n"


def indented(program):
    return "\n".join("    " + line for line in program.splitlines())


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
