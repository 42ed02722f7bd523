"""docs/stability.md: its versions are those of the code, and its golden tests are there."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

import s3dataset
from s3dataset._commits import _record
from s3dataset._datasets import _mixed, _stages
from s3dataset._manifest import _columns
from s3dataset._order import _fields
from s3dataset._pack import _pack, _state

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "stability.md").read_text()
VERSIONS = {
    "manifest without samples": {_columns.FORMAT_VERSION},
    "manifest with samples": {_columns.SAMPLES_VERSION},
    "commit record of a checkpoint": {_record.VERSION},
    "state of loaders": {_fields.VERSION, _stages._VERSION, _mixed._VERSION},
    "state of a pack": {_state._VERSION},
    "plan of a pack": {_pack._PLAN_VERSION},
}


@pytest.mark.parametrize("file", VERSIONS)
def test_versions_of_files(file):
    (told,) = re.findall(rf"^\| {file}[^|]*\| (\d+) \|", PAGE, re.MULTILINE)
    assert {int(told)} == VERSIONS[file]


def test_every_golden_test_is_there():
    tests = re.findall(r"`(tests/\S+?)::(\w+)`", PAGE)
    assert len(tests) == 5
    for path, name in tests:
        tree = ast.parse((ROOT / path).read_text())
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_lowest_versions():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    rust = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["rust-version"]
    lowest = dict(re.findall(r"^\| (Python|PyTorch|botocore|Rust)[^|]*\| ([\d.]+) \|", PAGE, re.MULTILINE))
    assert project["requires-python"] == f">={lowest['Python']}"
    assert {f"torch>={lowest['PyTorch']}", f"botocore>={lowest['botocore']}"} <= set(project["dependencies"])
    assert rust == lowest["Rust"]


def test_public_modules_are_named():
    package = Path(s3dataset.__file__).parent
    drop_in = {"s3checkpoint", "s3iterable_dataset", "s3map_dataset", "s3reader", "s3writer"}
    modules = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    public = {name for name in modules if not name.startswith("_")} - drop_in
    assert public <= set(re.findall(r"`(\w+)`", PAGE))
