"""docs/checkpoints.md does what it says."""

import re
from pathlib import Path

from s3dataset.testing import LocalS3

PAGE = Path(__file__).resolve().parents[2] / "docs" / "checkpoints.md"


def test_its_blocks_run_one_after_the_other() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 4
    names: dict[str, object] = {}
    with LocalS3("my-bucket") as server:
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), names)
        assert len(server.keys("my-bucket", "run-7/commits/")) == 3


def test_the_layout_it_shows_is_the_one_there_is() -> None:
    from s3dataset._commits import Layout

    layout = Layout.at("s3://my-bucket/run-7")
    text = PAGE.read_text()
    assert layout.commit(450).removeprefix("run-7/") in text
    assert layout.pin(300).removeprefix("run-7/") in text
