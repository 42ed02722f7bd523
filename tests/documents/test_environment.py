"""docs/environment.md names every variable that is read, and no others."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import botocore

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "s3dataset"
PAGE = ROOT / "docs" / "environment.md"

# Names like those of variables that are something else.
NO_VARIABLES = {"S3DATASET_SAVE"}  # an entry in the header of safetensors files
# Read for us by Python: urllib, tempfile, ssl.
PYTHONS = {"REQUEST_METHOD", "TMPDIR", "SSL_CERT_DIR", "SSL_CERT_FILE"}
# Read by the GNU C library.
OF_GLIBC = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_"}


def read_by_the_package() -> set[str]:
    found = set()
    for file in SOURCE.rglob("*.py"):
        if "testing" not in file.relative_to(SOURCE).parts:  # sets them
            found |= set(variables(ast.parse(file.read_text())))
    return found - NO_VARIABLES


def variables(tree: ast.AST) -> Iterator[str]:
    """Strings that are variables by their beginning, or by who is asked for them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.fullmatch(r"(AWS|S3DATASET)_[A-Z0-9_]+|(HTTPS?|NO)_PROXY|(https?|no)_proxy", node.value):
                yield node.value
        elif isinstance(node, ast.Call):
            asks = ast.unparse(node.func)
            if re.search(r"environ\.\w+$|getenv$|_integer$", asks) and isinstance(node.args[0], ast.Constant):
                yield node.args[0].value
        elif isinstance(node, ast.Subscript) and re.search(r"environ\['\w+'\]$", ast.unparse(node)):
            yield ast.literal_eval(node.slice)


def on_the_page(text: str) -> set[str]:
    """Those in the first column of a table."""
    rows = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_every_variable_that_is_read_is_on_the_page() -> None:
    assert read_by_the_package() - on_the_page(PAGE.read_text()) == set()


def test_every_variable_on_the_page_is_read() -> None:
    text, development = PAGE.read_text().split("## For development")
    of_botocore = "\n".join(file.read_text() for file in Path(botocore.__file__).parent.glob("*.py"))
    others = {name for name in on_the_page(text) if f"'{name}'" in of_botocore or f'"{name}"' in of_botocore}
    assert on_the_page(text) - read_by_the_package() - others - PYTHONS - OF_GLIBC == set()
    tools = [ROOT / "Makefile", *ROOT.glob("tests/*.py"), *ROOT.glob("tools/*.py"), *ROOT.glob("rust/*/src/*.rs")]
    of_development = "\n".join(file.read_text() for file in tools)
    assert [name for name in on_the_page(development) if name not in of_development] == []
