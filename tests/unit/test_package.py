"""What holds for the package as a whole: versions agree, the root is light, few modules touch torch or the engine."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import s3dataset

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "s3dataset"
IMPORTS_TORCH = {"_checkpoint", "_datasets", "_demo", "_manager", "dcp", "lightning", "safetensors"}
IMPORTS_NATIVE = {"_client", "testing"}


def modules():
    return [pytest.param(path, id=path.relative_to(PACKAGE).as_posix()) for path in sorted(PACKAGE.rglob("*.py"))]


def layer(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_at_import_time(tree):
    """Names of modules that importing the module imports: not those inside functions or under TYPE_CHECKING."""
    queue = list(tree.body)
    while queue:
        node = queue.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            queue += node.orelse
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            queue += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]


@pytest.mark.parametrize("path", modules())
def test_only_the_layers_above_it_import_torch(path):
    tree = ast.parse(path.read_text())
    assert layer(path) in IMPORTS_TORCH or not any(
        name.split(".")[0] == "torch" for name in imported_at_import_time(tree)
    )


@pytest.mark.parametrize("path", modules())
def test_only_client_and_testing_import_the_engine(path):
    names = [name for node in ast.walk(ast.parse(path.read_text())) for name in names_of(node)]
    assert layer(path) in IMPORTS_NATIVE or not any(name.startswith("s3dataset._native") for name in names)


def names_of(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def test_importing_the_root_loads_neither_torch_nor_botocore():
    heavy = ("torch", "botocore", "numpy", "s3dataset._native")
    program = f"import sys, s3dataset; print([name for name in {heavy} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"


def test_versions_agree():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text())
    assert s3dataset.__version__ == pyproject["project"]["version"]
    assert cargo["workspace"]["package"]["version"] == s3dataset.__version__.replace(".dev", "-dev.")
    assert s3dataset.__version__ > "1.0.0"


def test_every_public_name_is_there_and_the_list_is_sorted():
    assert s3dataset.__all__ == sorted(s3dataset.__all__)
    missing = [name for name in s3dataset.__all__ if not hasattr(s3dataset, name)]
    assert not missing


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        s3dataset.no_such_name  # noqa: B018
