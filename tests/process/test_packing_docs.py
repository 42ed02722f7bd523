"""docs/packing.md does what it says."""

import re
from pathlib import Path

from s3dataset.testing import LocalS3

PAGE = Path(__file__).resolve().parents[2] / "docs" / "packing.md"


def test_its_blocks_run_one_after_the_other() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 5
    names: dict[str, object] = {"__name__": "__main__"}
    with LocalS3("my-bucket") as server:
        for number in range(40):
            kind = "cat" if number < 10 else "dog"
            server.put("my-bucket", f"images/{kind}/{number:04d}.jpg", bytes([number]) * 1000)
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), names)
