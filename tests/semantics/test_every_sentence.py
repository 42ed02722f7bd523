"""docs/semantics.md: each of its sentences names tests, which exist and are not skipped."""

import ast
import functools
import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "semantics.md").read_text()
NEEDS_TORCH_2_6 = "pytest.mark.skipif(not Skeleton.is_possible(), reason="
"""Torch before 2.6 saves through a writer, whose promises have tests of their own."""
COMMENT = re.compile(r"<!-- (.*?) -->", re.DOTALL)
ITEMS = re.findall(r"^- (.*)$", PAGE, re.MULTILINE)
REFERENCES = sorted({name for comment in COMMENT.findall(PAGE) for name in comment.split()})


def test_there_are_sentences():
    assert len(ITEMS) > 60
    assert len(REFERENCES) > 100


def without_code(text):
    return re.sub(r"`[^`]*`", "Code", text)  # a sentence may begin with it


@pytest.mark.parametrize("item", ITEMS)
def test_every_sentence_has_its_test(item):
    pieces = COMMENT.split(item)
    assert pieces[-1].strip() == "", "text behind the last comment"
    for sentence in pieces[:-1:2]:
        text = without_code(sentence).strip()
        assert text.endswith("."), f"no sentence: {text}"
        assert not re.search(r"[.!?] +[A-Z]", text), f"more than one sentence before a comment: {text}"


def test_promises_are_list_items():
    """What stands in paragraphs and tables has to name its test too, but for the introduction."""
    body = PAGE.split("\n## ", 1)[1]
    for section in body.split("\n## "):
        for paragraph in re.split(r"\n{2,}", section.split("\n", 1)[1].strip()):
            assert paragraph.startswith(("- ", "|")) or COMMENT.search(paragraph), paragraph
            for line in paragraph.splitlines()[1:]:
                assert line.startswith(paragraph[0]), f"belongs to no item: {line}"


@pytest.mark.parametrize("reference", REFERENCES)
def test_every_test_exists_and_is_not_skipped(reference):
    path, *names = reference.split("::")
    assert re.fullmatch(r"tests/\S+/test_\w+\.py", path), "pytest would not look there"
    assert all(name.startswith("Test") for name in names[:-1])
    scope = module = parsed(path)
    for name in names:
        found = [node for node in scope.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name]
        assert found, f"{path} has no {'::'.join(names)}"
        scope = found[0]
        assert not any(map(is_skipping, map(ast.unparse, scope.decorator_list)))
    assert isinstance(scope, ast.FunctionDef)
    assert names[-1].startswith("test_")
    assert any(map(is_looking, ast.walk(scope))), "asserts nothing"
    # A skip of some combinations stands below an `if`; one of the whole test does not.
    for statement in [*module.body, *scope.body]:
        if isinstance(statement, ast.Expr | ast.Assign):
            assert not is_skipping(ast.unparse(statement))


def is_looking(node):
    """Whether it fails where something is not as it should be: it asserts, or demands an error or a warning."""
    if isinstance(node, ast.With):
        return any(re.match(r"(pytest\.)?(raises|warns|fails)\(", ast.unparse(item)) for item in node.items)
    return isinstance(node, ast.Assert)


def is_skipping(code):
    found = re.search(r"pytest\.(skip|importorskip|xfail|mark\.(skip|xfail))", code)
    return found is not None and NEEDS_TORCH_2_6 not in code


def test_this_torch_skips_none_of_them():
    from s3dataset._checkpoint._skeleton import Skeleton

    major, minor = map(int, torch.__version__.split(".")[:2])
    assert Skeleton.is_possible() == ((major, minor) >= (2, 6))


@functools.cache
def parsed(path):
    assert (ROOT / path).is_file(), f"there is no {path}"
    return ast.parse((ROOT / path).read_text())
