"""The notebook of examples/ runs as it stands, and was committed with its output."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("transformers")

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "examples" / "getting_started.ipynb"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_it_runs(method):
    done = subprocess.run(
        [sys.executable, "tools/notebook.py", "--check", "--start-method", method],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=850,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_cell_has_run_in_order_and_nothing_went_wrong():
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", output.text


def test_its_functions_stay_out_of_workers():
    source = "\n".join(cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells)
    own = set(re.findall(r"^(?:def|class) (\w+)", source, re.MULTILINE))
    assert own
    for argument in ("transform", "collate_fn", "worker_init_fn"):
        assert not own & set(re.findall(rf"{argument}=(\w+)", source))
        assert f"{argument}=lambda" not in source


def test_it_says_nothing_of_the_machine():
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import notebook
    finally:
        sys.path.remove(str(ROOT / "tools"))
    assert list(notebook.told(nbformat.read(NOTEBOOK, as_version=4))) == []
