"""docs/monitoring.md does what it says."""

import io
import re
from pathlib import Path

import pytest
from PIL import Image

from s3dataset.testing import LocalS3

PAGE = Path(__file__).resolve().parents[2] / "docs" / "monitoring.md"


def test_its_blocks_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tensorboard", "prometheus_client", "opentelemetry.sdk"):
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 5
    names: dict[str, object] = {"__name__": "__main__"}
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 0, 0)).save(file, "JPEG")
    with LocalS3("my-bucket") as server:
        for number in range(48):
            server.put("my-bucket", f"images/{number:02d}.jpg", file.getvalue())
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), names)
    assert list((tmp_path / "runs" / "7").iterdir())
