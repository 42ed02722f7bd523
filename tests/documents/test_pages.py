"""Every Python block of README, docs/ and the examples' page runs, each page's in order, against a local S3.

A new page needs nothing here: it runs with an empty bucket "my-bucket". What a page needs beyond that stands in
SETTINGS. A page that cannot run would stand in NOT_RUN, with the reason.
"""

import io
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image
from tests.preloaded import Program

from s3dataset.formats import Tar
from s3dataset.testing import LocalS3

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "examples" / "README.md"])
TIMEOUT_S = 600
SLOW = ("docs/distributed.md",)


# -- What lies in the bucket -----------------------------------------------------------------------------------------


def nothing(server: LocalS3) -> None:
    pass


def pictures(server: LocalS3) -> None:
    """48 pictures of cats and dogs, one color each."""
    for number in range(48):
        file = io.BytesIO()
        Image.new("RGB", (8, 8), (number * 5, 0, 0)).save(file, "JPEG")
        server.put("my-bucket", f"images/{('cat', 'dog')[number % 2]}/{number:02d}.jpg", file.getvalue())


def pictures_and_shards(server: LocalS3) -> None:
    pictures(server)
    file = io.BytesIO()
    with Tar().writer(file) as writer:
        for number in range(70):
            writer.write({"__key__": f"{number:03}", "txt": f"text {number}"})
        writer.finish()
    server.put("my-bucket", "shards/0.tar", file.getvalue())


def jpegs(server: LocalS3) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 0, 0)).save(file, "JPEG")
    for number in range(48):
        server.put("my-bucket", f"images/{number:02d}.jpg", file.getvalue())


def small_objects(server: LocalS3) -> None:
    for number in range(40):
        kind = "cat" if number < 10 else "dog"
        server.put("my-bucket", f"images/{kind}/{number:04d}.jpg", bytes([number]) * 1000)


# -- Pages -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """What a page needs, and what must have come of it.

    Attributes:
        needs: Modules, and programs, without which it is skipped.
        data: Fills the bucket.
        before, after: Python, run in the same process.
        commands: Lines of its other blocks that are run where they stand.
        check: Gets the server and what was printed.
    """

    needs: tuple[str, ...] = ()
    data: Callable[[LocalS3], None] = nothing
    before: str = ""
    after: str = ""
    commands: tuple[str, ...] = ()
    check: Callable[[LocalS3, str], None] = lambda _server, _output: None


def check_readme(server: LocalS3, output: str) -> None:
    assert output == "64\n6\n"
    assert server.keys("my-bucket", "run-7/") == ["run-7/epoch-3.pt", "run-7/epoch-4.pt"]


def check_checkpoints(server: LocalS3, output: str) -> None:
    assert len(server.keys("my-bucket", "run-7/commits/")) == 3


def check_distributed(server: LocalS3, output: str) -> None:
    assert "world size 2: steps 1 to 6" in output
    assert "world size 1: steps 7 to 12" in output


def assert_in(expected: str, output: str) -> None:
    assert expected in output


def printed(expected: str) -> Callable[[LocalS3, str], None]:
    def check(server: LocalS3, output: str) -> None:
        assert output == expected

    return check


SETTINGS = {
    "README.md": Setting(
        data=pictures_and_shards,
        before="import torch\nmodel = torch.nn.Linear(2, 2)\ntrain = lambda batch: print(len(batch['txt']))\n",
        after="assert images.shape[1:] == (3, 8, 8) and set(labels.tolist()) <= {0, 1}",
        check=check_readme,
    ),
    "docs/checkpoints.md": Setting(check=check_checkpoints),
    "docs/distributed.md": Setting(
        commands=(
            "torchrun --standalone --nproc-per-node 2 train.py",
            "torchrun --standalone --nproc-per-node 1 train.py",
        ),
        check=check_distributed,
    ),
    "docs/fsspec.md": Setting(
        needs=("fsspec", "pandas", "pyarrow"), check=printed("100 b'7'\nrun,loss\n7,0.25\n\n(1000, 2)\n")
    ),
    "docs/lightning.md": Setting(needs=("lightning",)),
    "docs/monitoring.md": Setting(
        needs=("tensorboard", "prometheus_client", "opentelemetry"),
        data=jpegs,
        after="from pathlib import Path\nassert list(Path('runs/7').iterdir())",
    ),
    "docs/packing.md": Setting(data=small_objects),
    "docs/safetensors.md": Setting(check=printed("torch.Size([4, 3])\n['bias', 'weight'] [[3.0, 4.0], [6.0, 7.0]]\n")),
    "docs/testing-your-code.md": Setting(
        commands=("pytest -q test_training.py",), check=lambda _server, output: assert_in("7 passed", output)
    ),
    "docs/video.md": Setting(needs=("torchcodec", "av", "ffmpeg"), check=printed("9 clips, 90 frames\n")),
}

NOT_RUN: dict[str, str] = {}


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> int:
    return len(re.findall(r"^```python\b", page.read_text(), re.MULTILINE))


RUN = [
    pytest.param(page, id=name_of(page), marks=[pytest.mark.slow] * (name_of(page) in SLOW))
    for page in PAGES
    if blocks_of(page)
]


@pytest.mark.timeout(TIMEOUT_S + 20)
@pytest.mark.parametrize("page", RUN)
def test_its_blocks_run_one_after_the_other(page: Path, tmp_path: Path) -> None:
    if name_of(page) in NOT_RUN:
        pytest.skip(NOT_RUN[name_of(page)])
    setting = SETTINGS.get(name_of(page), Setting())
    for name in setting.needs:
        if find_spec(name) is None and shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")
    told = {"before": setting.before, "after": setting.after, "commands": setting.commands}
    with LocalS3("my-bucket") as server:
        setting.data(server)
        (folder := tmp_path / "page").mkdir()
        output, errors = tmp_path / "output", tmp_path / "errors"
        arguments = [str(page), json.dumps(told)]
        program = Program(Path(__file__).with_name("run_page.py"), arguments, os.environ, output, errors, folder)
        try:
            assert program.finish(TIMEOUT_S) == 0, output.read_text() + errors.read_text()
        finally:
            program.kill()
        setting.check(server, output.read_text())


def test_no_setting_is_left_over() -> None:
    assert {*SETTINGS, *NOT_RUN} <= {name_of(page) for page in PAGES if blocks_of(page)}


def test_no_block_is_hidden_from_these_tests() -> None:
    for page in PAGES:
        assert page.read_text().count("```python") == blocks_of(page), f"{page} has an indented block"


def test_the_layout_of_checkpoints_that_is_shown_is_the_one_there_is() -> None:
    from s3dataset._commits import Layout

    layout = Layout.at("s3://my-bucket/run-7")
    text = (ROOT / "docs" / "checkpoints.md").read_text()
    assert layout.commit(450).removeprefix("run-7/") in text
    assert layout.pin(300).removeprefix("run-7/") in text
