"""docs/command-line.md shows what its commands print."""

import re

import pytest
from tests.process.command_line_page import PAGE, blocks, running

from s3dataset._cli import build_parser
from s3dataset._cli._completion import described

FIGURES = re.compile(r"[\d.,]*\d")
UNIT = re.compile(r"# ?(?:[kMGT]?B|[KMGT]iB|ms|s)\b")
BARS = re.compile(r"[█▏▎▍▌▋▊▉]+")
ETAG = re.compile(r'\\"[0-9a-f-]+\\"')


def without_figures(text):
    """Words and their order; figures, units, the length of bars and the places of line breaks differ between runs."""
    text = BARS.sub("▇", ETAG.sub("ETAG", text))
    text = re.sub(r"0*[1-9]\d* objects?", "# objects", text)
    text = UNIT.sub("# UNIT", FIGURES.sub("#", text))
    return " ".join(text.split())


def titles(text):
    """The lines that are neither indented nor sentences of advice."""
    return [
        line for line in text.splitlines() if line and line[0].isalpha() and not re.search(r"\d|not measured", line)
    ]


@pytest.mark.slow
def test_each_block_prints_what_the_page_shows(tmp_path):
    seen = []
    for told, printed in running(str(tmp_path), "--workers", "0", "--max-requests", "5000", "--max-bytes", "200MB"):
        command = told.line.split()[1]
        seen.append(command)
        if command in {"bench", "doctor"}:  # of this machine
            assert titles(printed) == titles(told.printed), printed
        else:
            assert without_figures(printed) == without_figures(told.printed), told.line
    assert set(seen) == {"doctor", "ls", "bench", "cat", "cp"}


def test_the_page_names_every_command():
    text = PAGE.read_text()
    for command in described(build_parser()).commands:
        name = command.words[0]
        assert f"`s3dataset {name}`" in text or f"`{name}`" in text, name
    assert all(told.printed for block in blocks(text) for told in block)
