"""docs/shards.md does what it says."""

import re
from pathlib import Path

import pytest

from s3dataset.testing import LocalS3

PAGE = Path(__file__).resolve().parents[2] / "docs" / "shards.md"


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_its_blocks_run_one_after_the_other() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 6
    names: dict[str, object] = {}
    with LocalS3("my-bucket"):
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), names)
