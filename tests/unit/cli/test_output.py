"""What commands print with."""

import io
import sys

import pytest

from s3dataset._cli._output import Paint, bar, counted, paragraph, readable_bytes


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Latin(io.StringIO):
    encoding = "latin-1"


def test_bars_are_as_wide_as_asked_and_never_vanish():
    assert [bar(share, 4) for share in (0, 0.5, 1, 7, -1)] == ["    ", "██  ", "████", "████", "    "]
    assert bar(1e-9, 4) == "▏   "
    assert all(len(bar(n / 64, 8)) == 8 for n in range(65))


def test_paragraphs_fit_the_terminal(monkeypatch):
    text = "word " * 40
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, paragraph(text).splitlines())) > 90  # in a pipe
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert 50 < max(map(len, paragraph(text).splitlines())) <= 60
    assert max(map(len, paragraph(text, "> ", indent=20).splitlines())) <= 40
    assert max(map(len, paragraph(text, indent=50).splitlines())) <= 30


def test_bars_where_blocks_cannot_be_printed(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Latin())
    assert bar(0.5, 4) == "##  "


def test_colours_on_terminals_only(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert Paint(Terminal())("x", "bad") == "\x1b[31mx\x1b[0m"
    assert Paint(io.StringIO())("x", "bad") == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert Paint(Terminal())("x", "bad") == "x"
    monkeypatch.setenv("NO_COLOR", "")  # counts as unset
    monkeypatch.setenv("TERM", "dumb")
    assert Paint(Terminal())("x", "bad") == "x"


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_234_567, "1.2 MB"), (2 * 10**15, "2.0 PB")]
)
def test_bytes(count, expected):
    assert readable_bytes(count) == expected


def test_words():
    assert counted(1, "object") == "1 object"
    assert counted(1797, "object") == "1,797 objects"
    assert paragraph("word " * 30, "- ").splitlines()[1].startswith("  word")
